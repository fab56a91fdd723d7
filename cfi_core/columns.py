"""A model on a table: which columns are explained, and the model as a function of what stands for their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.errors import FOREIGN, ArgumentError, CFIError, InputError
from cfi_core.records import Arguments, InputNames, Original
from cfi_core.registry import Registry
from cfi_core.specs import MethodSpec, Role
from cfi_core.strings import as_strings, holds_strings
from cfi_core.tables import ADVICE, Table, is_frame, is_plain, make_table

_CELLS, _ROWS = "cells", "rows"


def take_table(
    registry: Registry, original: Original, inputs: Any, explain: Sequence[str] | None, baselines: Any
) -> Original:
    """The user's model as a function of a table's cells, if the inputs are a table that it takes.

    Raises:
        InputError: The columns are not those that the model was fitted on, or nothing that it takes.
        ArgumentError: `explain` names none of them.
    """
    source, adapter, model = _find_source(registry, original, inputs), original.adapter, original.model
    if source is None:
        return original
    frame, run = source.frame, source.run
    if source.of_array and np.ndim(baselines) == 2 and not is_frame(baselines):
        baselines = import_module("pandas").DataFrame(np.asarray(baselines, object), columns=frame.columns)
    check_columns(original, frame, "inputs")
    table = make_table(frame, explain, baselines)
    if table.coded and baselines is None and not _words(table):
        table = make_table(frame, explain, 0)  # as for arrays of numbers
    takes_frames = isinstance(adapter, ArrayAdapter) and adapter.on_frames(model, ()) is not None
    of_arrays = takes_frames and adapter.columns(model) is None and is_plain(frame)
    if takes_frames and (of_arrays or original.framework != _HOME) and not table.coded and not table.held:
        return replace(original, table=table)  # whatever looks into the model finds it as it is
    if of_arrays:
        run = _on_arrays(original)
    # Trees stay trees, so that their own method can say what it does not take.
    home = original if takes_frames else Original(_HOME, adapter_for(registry, _HOME), None)
    shapes = ((None, len(table.columns)),) + (((None,),) if table.holds_rows else ())
    made = ArrayModel(_on_cells(run, table), shapes, classes=adapter.class_names(model))
    names = InputNames((_CELLS,), (_ROWS,)) if table.holds_rows else None
    return replace(home, model=made, names=names, table=table)


_HOME = "numpy"
"""The framework of functions of arrays, whatever runs inside."""


def turn_table(arguments: Arguments, method: MethodSpec, table: Table | None) -> Arguments:
    """The arguments with what stands for the table's cells in their place.

    Raises:
        ArgumentError: The method needs baselines, which a table does not have by itself, or a name is no column.
    """
    if table is None:
        return arguments
    if _lacks_baselines(arguments, method, table):
        raise ArgumentError(
            f"{method.key} of {method.toolset} has nothing to compare the columns {_words(table)} with. {ADVICE}"
        )
    init_args, exec_args = (_turn_own(own, method, table) for own in (arguments.init_args, arguments.exec_args))
    # What was given in the toolset's own words is turned in its place, so that what is given twice is told as ever.
    in_own_words = any(_role(name, method) in _INPUTS for name in (*init_args, *exec_args))
    is_default = table.coded and _takes_baselines(method) and not _given_baselines(arguments, method)
    return replace(
        arguments,
        inputs=None if in_own_words and arguments.inputs is None else cells_of(table, None),
        baselines=table.baselines if is_default or arguments.baselines is not None else None,
        explain=None,
        init_args=init_args,
        exec_args=exec_args,
    )


def check_columns(original: Original, value: Any, name: str) -> None:
    """Refuses a data frame whose columns are not those that the model was fitted on, in their order.

    Raises:
        InputError: Read by position, as arrays are and some libraries read frames, each would be taken for another.
    """
    known, given = original.adapter.columns(original.model), getattr(value, "columns", None)
    if known is None or given is None or tuple(map(str, given)) == known:
        return
    advice = f"pass {name}[{list(known)}]" if set(known) <= set(map(str, given)) else "pass a table of these"
    raise InputError(
        f"{name} has the columns {', '.join(map(str, given))}, and the model was fitted on {', '.join(known)}, in this "
        f"order: {advice}."
    )


def other_cells(table: Table | None, baselines: Any) -> np.ndarray | None:
    """A sample that is none of the inputs, of a table whose cells are codes: nothing lies between two of them."""
    return baselines[0] if table is not None and table.coded and isinstance(baselines, np.ndarray) else None


def cells_of(table: Table | None, inputs: Any) -> Any:
    """What stands for the inputs, where they are a table; else they themselves."""
    if table is None:
        return inputs
    return {_CELLS: table.cells, _ROWS: np.arange(len(table.frame))} if table.holds_rows else table.cells


def describe_table(table: Table | None, baselines: Any) -> dict[str, Any]:
    """For the provenance: the columns that are explained and those that are held, and what they were compared with."""
    if table is None:
        return {}
    if baselines is None:
        against: Any = "nothing that was given"
    elif table.rows == 1:
        against = {str(column.name): column.cells.tolist()[-1] for column in table.columns}
    else:
        against = f"{table.rows} rows" if table.rows else table.given
    held = {"held": f"{', '.join(map(str, table.held))}: each row's own"} if table.held else {}
    return {"columns": table.names, "baselines": against, **held}


@dataclass(frozen=True, eq=False)
class _Source:
    """Inputs as a data frame, and what the model gives for such a frame."""

    frame: Any
    run: Callable[[Any], Any]
    of_array: bool = False  # of cells by their positions


def _find_source(registry: Registry, original: Original, inputs: Any) -> _Source | None:
    """The data frame that the inputs are, or can be read as; None where they are arrays, or tensors, of numbers.

    Raises:
        InputError: They are a table that the model does not take.
    """
    adapter, model = original.adapter, original.model
    if is_frame(inputs):
        run = adapter.on_frames(model, tuple(inputs.columns)) or _by_names(original, inputs, {})
        if run is None and not is_plain(inputs):
            raise InputError(
                f"This {original.framework} model takes arrays, and inputs is a data frame of {_kinds(inputs)}. Pass "
                f"arrays, or a function of the data frame that makes them and runs the model."
            )
        return None if run is None else _Source(inputs, run)
    if isinstance(inputs, Mapping):
        if adapter.takes_one_table(model):
            return _Source(frame := _as_frame(inputs, adapter.columns(model)), adapter.on_frames(model, tuple(frame)))  # type: ignore[arg-type]
        if any(holds_strings(registry, value) for value in inputs.values()):
            return _of_named(original, inputs)
    if holds_strings(registry, inputs) and np.ndim(inputs) == 2 and _takes(original, array := np.asarray(inputs)):
        names = adapter.columns(model) or range(array.shape[1])
        frame = import_module("pandas").DataFrame(array.astype(object), columns=list(names)).infer_objects()
        return _Source(frame, lambda rows: adapter.outputs(model, [rows.to_numpy(object).astype(array.dtype)]), True)
    return None


def _takes(original: Original, array: np.ndarray) -> bool:
    """Whether the model takes an array of words: functions and estimators say by themselves what they do not take."""
    if isinstance(original.adapter, ArrayAdapter):
        return True
    if not any(isinstance(cell, str | bytes) for cell in array.flat):
        return False  # numbers in an array of objects
    try:
        original.adapter.outputs(original.adapter.twin(original.model), [array])
    except FOREIGN:  # whatever the user's model raises
        return False
    return True


def _as_frame(columns: Mapping[str, Any], known: Sequence[str] | None) -> Any:
    """A dict of columns as a data frame, in the order of the fit."""
    lengths = {len(column) for column in columns.values() if hasattr(column, "__len__") and not isinstance(column, str)}
    if len(lengths) != 1:
        raise InputError("inputs is a dict, and no table: pass a list or array of the same length for each column.")
    ordered = [name for name in known or () if name in columns]
    names = [*ordered, *(name for name in columns if name not in ordered)]
    return import_module("pandas").DataFrame({name: columns[name] for name in names})


def _of_named(original: Original, inputs: Mapping[str, Any]) -> _Source:
    """Inputs by name, of which some hold words: each is a column."""
    pandas, columns, constants = import_module("pandas"), {}, {}
    for name, value in inputs.items():
        if np.ndim(value) == 0:
            constants[name] = value
            continue
        array = as_strings(original, value)
        if array.ndim > 2 or array.shape[1:] not in ((), (1,)):
            raise InputError(
                f"inputs[{name!r}] has shape {array.shape}. Where inputs hold words, each has to be a column, of shape "
                f"(samples, 1) or (samples,): pass a function that takes the columns apart and runs the model."
            )
        columns[name] = pandas.Series(
            array.ravel().tolist(), dtype=object if array.dtype.kind in "OSU" else array.dtype
        )
    if len({len(column) for column in columns.values()}) != 1:
        raise InputError("All inputs need the same number of samples along their first axis.")
    frame = pandas.DataFrame(columns)
    run = _by_names(original, frame, constants, {name: np.ndim(inputs[name]) for name in columns})
    if run is None:
        raise InputError(f"The inputs of this {original.framework} model have no names. Pass a tuple of arrays.")
    return _Source(frame, run)


def _by_names(
    original: Original, frame: Any, constants: Mapping[str, Any], ranks: Mapping[str, int] | None = None
) -> Callable[[Any], Any] | None:
    """What a model with an input for each column gives; None where it has others (ranks tell that these are meant)."""
    adapter, names = original.adapter, tuple(map(str, frame.columns))
    known = adapter.input_names(original.model)
    if known is None or (ranks is None and (len(known) < 2 or set(known) != set(names))):
        return None
    named = adapter.by_name(original.model, names, constants)
    model, shapes = adapter.twin(named), adapter.input_shapes(named) or ((None, 1),) * len(names)
    axes = [len(shape) if ranks is None else ranks[name] for name, shape in zip(names, shapes, strict=True)]

    def run(rows: Any) -> Any:
        arrays = [rows[name].to_numpy().reshape((-1, 1)[:rank]) for name, rank in zip(rows.columns, axes, strict=True)]
        return adapter.outputs(model, [adapter.tensor(array, model) for array in arrays])

    return run


def _on_arrays(original: Original) -> Callable[[Any], Any]:
    """The model itself, which knows nothing of names."""
    return lambda frame: original.adapter.outputs(original.model, [np.asarray(frame)])


def _on_cells(run: Callable[[Any], Any], table: Table) -> Callable[..., Any]:
    """What the model gives for the table that stands behind cells."""

    def outputs(cells: np.ndarray, rows: np.ndarray | None = None) -> Any:
        frame = table.read(cells, rows)
        try:
            return run(frame)
        except CFIError:
            raise
        except Exception as error:  # the user's model may raise anything
            said = next(iter(str(error).strip().splitlines()), "").rstrip(".")
            raise InputError(
                f"The model fails on a table of {_kinds(frame)}: {type(error).__name__}: {said}. Inputs and baselines "
                f"need the columns, types and categories that it was fitted on, and missing values only where it takes "
                f"them."
            ) from error

    return outputs


def _turn_own(given: Mapping[str, Any] | None, method: MethodSpec, table: Table) -> dict[str, Any]:
    turned = dict(given or {})
    for name, value in turned.items():
        role = _role(name, method)
        if role is Role.LIKE_INPUTS and isinstance(value, Mapping):
            turned[name] = table.mask(value, name)
        elif role in _BASELINES and value is not None:
            turned[name] = table.baselines
        elif role in _INPUTS and value is not None:
            turned[name] = table.cells
    return turned


_INPUTS = (Role.INPUTS, Role.ONE_OR_SEVERAL)
_BASELINES = (Role.BASELINES,)


def _role(name: str, method: MethodSpec) -> Role | None:
    """What an own word means; uniform words may stand among them."""
    return method.roles.get(name) or {"inputs": Role.INPUTS, "baselines": Role.BASELINES}.get(name)


def _takes_baselines(method: MethodSpec) -> bool:
    return "baselines" in (*method.required, *method.optional)


def _given_baselines(arguments: Arguments, method: MethodSpec) -> bool:
    own = (value for name, value in arguments.own.items() if _role(name, method) in _BASELINES)
    return any(value is not None for value in (arguments.baselines, *own))


def _lacks_baselines(arguments: Arguments, method: MethodSpec, table: Table) -> bool:
    """Whether the method would put a number of its own in the place of what is none."""
    return _takes_baselines(method) and not _given_baselines(arguments, method) and bool(_words(table))


def _words(table: Table) -> str:
    """Names of the columns that hold no numbers."""
    if not table.coded:
        return ""
    return ", ".join(str(column.name) for column in table.columns if getattr(column.dtype, "kind", "O") not in "iuf")


def _kinds(frame: Any) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in list(frame.dtypes.items())[:12])
