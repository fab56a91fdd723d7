"""Tables as arrays that methods can perturb: a cell is exchanged whole, by a number that stands for it.

Nothing is encoded so that values between two cells would mean something: a number that stands for no cell is refused
when it is read back. Only a table of plain numbers, none of them missing, is an array of these, as it always was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError, InputError, MethodError

_RATIO = 1 + 2.0**-10
"""Of one code to the next. Codes grow so that no mean of two is a third one, save by chance; and so far apart that no
toolset takes two for equal (some compare as `numpy.isclose` does, to a relative 1e-5)."""

_LARGEST = 2**53 - 1
"""Up to which double precision holds every whole number."""

_MOST = int(np.log(float(np.finfo(np.float32).max)) / np.log(_RATIO)) - 1


@dataclass(frozen=True, eq=False)
class Column:
    """One column that is explained.

    Attributes:
        name: As the user's table has it.
        dtype: Of the user's column.
        cells: Those of the inputs, behind them those of the baselines: of that type, but where whole numbers are
            compared with a fraction.
        numbers: What stands for each of them.
        codes: Whether these are codes; numbers of their own otherwise.
    """

    name: Any
    dtype: Any
    cells: Any
    numbers: np.ndarray
    codes: bool

    def read(self, numbers: np.ndarray) -> Any:
        """The cells that these numbers stand for.

        Raises:
            MethodError: One of them stands for none.
        """
        if not self.codes:
            return _in_type(numbers, self.dtype)
        known, first = np.unique(self.numbers, return_index=True)
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        if not np.array_equal(known[places], numbers):
            raise MethodError(
                f"The method computes with the values of column {self.name!r}, of which there is nothing between (or "
                f"beyond) {self.cells.iloc[0]!r} and others. Take one that chooses between inputs and baselines, such "
                f"as 'shapley_values' or 'feature_ablation'; others can explain float columns alone (explain=)."
            )
        cells = self.cells.take(first[places]).reset_index(drop=True)
        return cells if cells.dtype == self.dtype else _in_type(cells, self.dtype)


@dataclass(frozen=True, eq=False)
class Table:
    """A user's table, and what stands for it.

    Attributes:
        frame: The rows to explain, all columns.
        columns: Those that are explained.
        given: The baselines, where they are no rows: a number, an array, or None.
        rows: How many rows of baselines there are.
    """

    frame: Any
    columns: tuple[Column, ...]
    given: Any = None
    rows: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that are explained."""
        return tuple(str(column.name) for column in self.columns)

    @property
    def coded(self) -> bool:
        """Whether codes stand for the cells."""
        return any(column.codes for column in self.columns)

    @property
    def cells(self) -> np.ndarray:
        """What a method perturbs: of shape (samples, columns)."""
        return np.stack([column.numbers[: len(self.frame)] for column in self.columns], axis=1)

    @property
    def baselines(self) -> Any:
        """What it puts in the place: rows of the same kind, or what the user gave in their place."""
        if not self.rows:
            return self.given
        return np.stack([column.numbers[len(self.frame) :] for column in self.columns], axis=1)

    @property
    def shown(self) -> np.ndarray:
        """The cells as they are, for pictures: of shape (samples, columns)."""
        found = np.empty((len(self.frame), len(self.columns)), object)
        for place, column in enumerate(self.columns):
            found[:, place] = column.cells.iloc[: len(self.frame)].tolist()
        return found if self.coded else self.cells

    @property
    def held(self) -> tuple[Any, ...]:
        """The other columns."""
        explained = {column.name for column in self.columns}
        return tuple(name for name in self.frame.columns if name not in explained)

    @property
    def holds_rows(self) -> bool:
        """Whether what is held is not the same in all rows, so that a pass has to know which row is perturbed."""
        return any(len(set(map(_key, self.frame[name].tolist()))) > 1 for name in self.held)

    def read(self, cells: np.ndarray, rows: np.ndarray | None = None) -> Any:
        """The table that stands behind such cells, with the columns, types and categories of the user's.

        Args:
            cells: Of shape (any number, columns).
            rows: For each of them the row of the user's table that it was made of; needed where `holds_rows`.

        Raises:
            MethodError: They stand for no cells.
        """
        pandas = import_module("pandas")
        explained = {column.name: column.read(cells[:, place]) for place, column in enumerate(self.columns)}
        of_row = np.zeros(len(cells), int) if rows is None else rows.astype(int)
        columns = [
            explained[name] if name in explained else self.frame[name].take(of_row).reset_index(drop=True)
            for name in self.frame.columns
        ]
        made = pandas.DataFrame(dict(enumerate(columns)))
        made.columns = self.frame.columns
        if rows is not None or np.array_equal(cells, self.cells):
            made.index = self.frame.index.take(np.arange(len(cells)) if rows is None else of_row)
        return made

    def mask(self, groups: Mapping[Any, Any], what: str) -> np.ndarray:
        """Groups by name of column as an array of shape (1, columns); who is not named is a group of its own.

        Raises:
            ArgumentError: A name is none of the explained columns.
        """
        _check_names(groups, [column.name for column in self.columns], what)
        labels = [groups.get(column.name, (column.name,)) for column in self.columns]
        return np.array([[labels.index(label) for label in labels]])


def is_frame(value: Any) -> bool:
    """Whether this is a data frame."""
    return all(hasattr(value, name) for name in ("iloc", "columns", "dtypes"))


def is_row(value: Any) -> bool:
    """Whether this is one row of a data frame, by name of column."""
    return isinstance(value, Mapping) or (hasattr(value, "iloc") and not is_frame(value))


def is_plain(frame: Any) -> bool:
    """Whether the table is an array of finite numbers, of which none is another one in the type that all have there."""
    if not all(isinstance(dtype, np.dtype) for dtype in frame.dtypes):  # a category, whatever its values
        return False
    array = np.asarray(frame)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        return False
    return not _loses(array.dtype, [frame.iloc[:, place] for place in range(frame.shape[1])])


def _loses(kind: np.dtype[Any], columns: Sequence[Any]) -> bool:
    """Whether a whole number in one of the columns may be another one in that type."""
    whole = (column.to_numpy() for column in columns if column.dtype.kind in "iu")
    return kind.kind == "f" and any(((one > _LARGEST) | (one < -_LARGEST)).any() for one in whole)


def make_table(frame: Any, explain: Sequence[Any] | None, baselines: Any) -> Table:
    """The table of a data frame.

    Args:
        frame: The rows to explain.
        explain: Names of the columns to explain; None: all.
        baselines: As for `cfi.attribute`: rows as a data frame, one row as a Series or a dict, or what is no row.

    Raises:
        InputError: There are no rows, or columns of the same name; or baselines are none of these columns' cells.
        ArgumentError: A name is none of the columns.
    """
    names = list(frame.columns)
    if not len(frame) or not names:
        raise InputError(
            f"inputs is a table of {len(frame)} rows and {len(names)} columns: there is nothing to explain."
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"inputs has several columns named {twice!r}. Give each a name of its own.")
    chosen = names if explain is None else [explain] if isinstance(explain, str) else list(explain)
    if not chosen:
        raise ArgumentError(f"explain={explain!r} names no column. The columns are {_some(names)}.")
    _check_names(chosen, names, "explain=")
    rows = _rows(baselines, frame, chosen)
    chosen = [name for name in names if name in set(chosen)]
    cells = [_join(frame[name], None if rows is None else rows[name]) for name in chosen]
    plain = is_plain(frame[chosen]) and all(is_plain(column.to_frame()) for column in cells)
    if rows is None and baselines is not None and not plain:
        return make_table(frame, explain, _filled(baselines, frame, chosen))
    kind = np.result_type(*(column.dtype for column in cells)) if plain else None
    if kind is not None and _loses(kind, cells):
        raise InputError(f"baselines hold whole numbers beyond 2**53, which would be others beside columns of {kind}.")
    pairs = zip(chosen, cells, strict=True)
    made = tuple(Column(name, frame[name].dtype, column, *_number(name, column, kind)) for name, column in pairs)
    return Table(frame, made, baselines if rows is None else None, 0 if rows is None else len(rows))


def _join(inputs: Any, baselines: Any | None) -> Any:
    """The cells of a column, of inputs and of baselines behind them."""
    if baselines is None:
        return inputs.reset_index(drop=True)
    joined = import_module("pandas").concat([inputs, _like(baselines, inputs)], ignore_index=True)
    if hasattr(inputs.dtype, "categories"):
        return joined.astype(inputs.dtype)  # the categories in their order
    if joined.dtype != inputs.dtype and not np.array_equal(joined[: len(inputs)].astype(inputs.dtype), inputs):
        raise InputError(f"Column {inputs.name!r} holds numbers too large to be compared with a fraction.")
    return joined


def _number(name: Any, cells: Any, kind: Any) -> tuple[np.ndarray, bool]:
    """What stands for the cells: themselves, in the type of numbers that all columns have, or else codes (True)."""
    if kind is not None:
        return cells.to_numpy().astype(kind), False
    places: dict[Any, int] = {}
    order = [places.setdefault(_key(cell), len(places)) for cell in cells.tolist()]
    if len(places) > _MOST:
        raise InputError(f"Column {name!r} has {len(places)} values; {_MOST} are the most. Pass fewer rows.")
    # Single precision holds them too, for toolsets that compute in it.
    numbers = np.power(_RATIO, np.arange(1, len(places) + 1)).astype(np.float32).astype(np.float64)
    return numbers[order], True


def _in_type(numbers: Any, dtype: Any) -> Any:
    """Numbers in the type of the user's column, where they are the same there: a fraction is none among whole ones."""
    with np.errstate(all="ignore"):
        try:
            made = numbers.astype(dtype)
        except (TypeError, ValueError):  # a missing value among whole numbers
            return numbers
    return made if np.array_equal(made, numbers) else numbers


def _rows(baselines: Any, frame: Any, chosen: Sequence[Any]) -> Any | None:
    """The baselines as a data frame of the chosen columns; None where they are no rows."""
    if is_row(baselines):
        pandas, row = import_module("pandas"), dict(baselines.items())
        several = bool(row) and all(isinstance(cell, list | np.ndarray) for cell in row.values())
        columns = {
            name: pandas.Series(np.ravel(np.array(cell, object)) if several else [cell], dtype=object)
            for name, cell in row.items()
        }
        rows = pandas.DataFrame(columns)
    elif is_frame(baselines):
        rows = baselines
    else:
        return None
    _check_names(rows.columns, list(frame.columns), "baselines")
    missing = [name for name in chosen if name not in set(rows.columns)]
    if missing:
        raise InputError(f"baselines have no {_some(missing)}: pass a value for each column that is explained.")
    if not len(rows):
        raise InputError("baselines is a table without rows. Pass one row, one for each sample, or a background.")
    return rows


def _filled(given: Any, frame: Any, chosen: Sequence[Any]) -> Any:
    """One number as a row, where each column holds numbers."""
    words = [name for name in chosen if getattr(frame[name].dtype, "kind", "O") not in "iuf"]
    if np.ndim(given) or words:
        what = "an array" if np.ndim(given) else repr(given)
        raise InputError(
            f"baselines is {what}, which says nothing of what to put into {_some(words or list(chosen))}. {ADVICE}"
        )
    return dict.fromkeys(chosen, given)


ADVICE = (
    "Pass baselines= a row to compare with, by names of columns (a dict, a Series such as train.iloc[0] or "
    "train.mode().iloc[0], or a data frame): a category for a category, a text such as '' for a text."
)
"""What baselines a table takes."""


def _like(baselines: Any, inputs: Any) -> Any:
    """The cells of baselines in the type of a column, in which they must be what they were."""
    name, dtype = inputs.name, inputs.dtype
    if baselines.dtype == dtype:
        return baselines
    is_numpy = isinstance(dtype, np.dtype)
    try:
        are_real = is_numpy and dtype.kind in "iuf" and all(map(_is_real, baselines.tolist()))
        if are_real and dtype.kind in "iu" and all(isinstance(cell, int | np.integer) for cell in baselines.tolist()):
            return baselines.astype(dtype)
        if are_real:
            numbers = baselines.astype(np.float64)
            if dtype.kind in "iu" or numbers.abs().max() > np.finfo(dtype).max:
                return _in_type(numbers, dtype)
            return numbers.astype(dtype)
        known = list(getattr(dtype, "categories", ()))
        cells = baselines.where(baselines.isin(known)) if known else baselines  # others are missing then, and told
        made = cells if is_numpy and dtype.kind == "O" else cells.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"baselines[{name!r}] is no cell of a column of {dtype}: {error}.") from error
    lost = [cell for cell, other in zip(baselines.tolist(), made.tolist(), strict=True) if not _is_same(cell, other)]
    if lost:
        words = f" (its categories are {_some(known)})" if known else ""
        raise InputError(
            f"baselines[{name!r}] holds {lost[0]!r}, which a column of {dtype} cannot{words}. Pass a value of its own, "
            f"or convert the column before the model is trained on it."
        )
    return made


def _is_real(cell: Any) -> bool:
    return isinstance(cell, int | float | np.integer | np.floating) and not isinstance(cell, bool)


def _is_same(cell: Any, other: Any) -> bool:
    if _is_missing(cell) or _is_missing(other):
        return _is_missing(cell) and _is_missing(other)
    return bool(cell == other) or (isinstance(cell, str) and hasattr(other, "isoformat"))


def _is_missing(cell: Any) -> bool:
    """None, NaN, NaT or NA; the last says neither yes nor no when it is compared."""
    try:
        return cell is None or bool(cell != cell)
    except (TypeError, ValueError):
        return type(cell).__name__ == "NAType"


def _key(cell: Any) -> Any:
    """The same for equal cells alone; missing ones are equal to those of their own kind."""
    if _is_missing(cell):
        return (type(cell),)
    try:
        hash(cell)
    except TypeError:  # a list of words, for one: a cell by itself
        return (type(cell), id(cell))
    return type(cell), cell


def _check_names(names: Any, known: Sequence[Any], what: str) -> None:
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        raise ArgumentError(f"{what} names {unknown[0]!r}, which is no column here. Columns are {_some(known)}.")


def _some(names: Sequence[Any]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(map(str, names[:12])) + more
