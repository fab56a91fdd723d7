"""Explained samples: attributions that are read in portions, and what each of them is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cfi_core.errors import ArgumentError
from cfi_scale.store import EXPLAINED

Sign = Literal["all", "positive", "negative", "absolute_value"]

ALL = "all"
"""What the one class is called where samples are not told apart."""

_PORTION = 2**26
"""Bytes of a portion in double precision: a few of them are in memory at once."""
_MOST_CLASSES = 10_000
_SIGNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda values: values,
    "positive": lambda values: np.maximum(values, 0),
    "negative": lambda values: np.minimum(values, 0),
    "absolute_value": np.abs,
}


@dataclass(frozen=True)
class Reading:
    """What is made of the values of each sample when they are read.

    Attributes:
        sign: Which values are kept.
        over: Axes that are summed over, after the sign.
        normalize: Whether the values of a sample are divided by the sum of their absolute values.
    """

    sign: Sign = "all"
    over: tuple[str, ...] = ()
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.sign not in _SIGNS:
            raise ArgumentError(f"sign={self.sign!r} must be one of {', '.join(map(repr, _SIGNS))}.")

    def __call__(self, values: np.ndarray, dims: Sequence[str]) -> np.ndarray:
        """Of values (sample, …), which may be in half precision, in double precision; zeros stay zeros."""
        kept = _SIGNS[self.sign](np.asarray(values, np.float64))
        kept = kept.sum(tuple(dims.index(axis) for axis in self.over))
        if not self.normalize:
            return kept
        strength = np.abs(kept).sum(tuple(range(1, kept.ndim)), keepdims=True)
        return kept / np.where(strength > 0, strength, 1)


def axes_of(over: str | Sequence[str]) -> tuple[str, ...]:
    """As a tuple, also where it is one name."""
    return (over,) if isinstance(over, str) else tuple(over)


@dataclass(frozen=True, eq=False)
class Samples:
    """Attributions of many samples. Only what is asked for is read.

    Attributes:
        values: Array (sample, …), in memory, on disk or lazy.
        dims: The names of its axes.
        ids: What each sample is called: its position where the data give no id.
        labels: The class of each sample.
        present: Which samples were explained and have a class.
        reading: What is made of the values.
    """

    values: Any
    dims: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    present: np.ndarray
    reading: Reading

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def map_dims(self) -> tuple[str, ...]:
        """The names of the axes of one map, as it is read."""
        return tuple(axis for axis in self.dims[1:] if axis not in self.reading.over)

    def portions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and maps of some samples after the others; those that are not finite are left out.

        Raises:
            ArgumentError: None is left.
        """
        step, found = self._step(), False
        for start in range(0, len(self), step):
            values = np.asarray(self.values[start : start + step])
            kept = self.present[start : start + step] & np.isfinite(values).all(tuple(range(1, values.ndim)))
            if kept.any():
                found = True
                yield start + np.flatnonzero(kept), self.reading(values[kept], self.dims)
        if not found:
            raise ArgumentError(f"None of the {len(self)} samples has finite values and a class: nothing can be shown.")

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The maps of these samples, in their order."""
        found = [np.asarray(self.values[int(place) : int(place) + 1]) for place in positions]
        empty = np.empty((0, *self.values.shape[1:]))
        return self.reading(np.concatenate(found) if found else empty, self.dims)

    def _step(self) -> int:
        """Samples of a portion: whole chunks of the store, if it has chunks."""
        fitting = max(1, _PORTION // (8 * max(1, prod(self.values.shape[1:]))))
        chunk = _chunk(self.values)
        return max(chunk, fitting // chunk * chunk)


def gather(
    data: Any, by: Any, reading: Reading, *, variable: str = "attribution", dims: Sequence[str] | None = None
) -> Samples:
    """The samples of a store, a data set or an array.

    Args:
        data: A path, an `xarray.Dataset`, or an array (sample, …).
        by: What tells classes apart: the name of a variable, a label for each sample, or None.
        reading: What is made of the values.
        variable: Which variable of a data set holds the attributions.
        dims: The names of the axes of an array; a data set knows its own.

    Raises:
        ArgumentError: Something is missing or of another length.
    """
    dataset = _opened(data, variable)
    if dataset is None:
        values, ids = _array(data), np.arange(len(data))
        axes = tuple(dims) if dims is not None else ("sample", *(f"axis_{i}" for i in range(1, values.ndim)))
        if len(axes) != values.ndim or axes[0] != "sample":
            raise ArgumentError(f'dims={axes} must name {values.ndim} axes, the first of which is "sample".')
    else:
        values = _variable(dataset, variable)
        if dims is not None:
            raise ArgumentError(f"dims= is for plain arrays; {variable!r} of the data set has the axes {values.dims}.")
        if "sample" not in values.dims:
            raise ArgumentError(f"{variable!r} has the axes {', '.join(map(str, values.dims))}, and none is 'sample'.")
        values = values.transpose("sample", ...)
        axes = tuple(map(str, values.dims))
        ids = _ids(dataset, len(values))
    _check_axes(reading, axes)
    if np.asarray(values[:0]).dtype.kind not in "fiub":
        raise ArgumentError(f"Attributions of type {values.dtype} cannot be looked at: they must be real numbers.")
    if not len(values):
        raise ArgumentError("There is no sample to look at: the data hold none.")
    labels = _labels(dataset, by, len(values))
    return Samples(values, axes, ids, labels, _present(dataset, labels), reading)


def classes_of(samples: Samples, only: Sequence[Any] | None) -> np.ndarray:
    """The classes there are, in order, or those that were asked for.

    Raises:
        ArgumentError: One of these is not there.
    """
    known = np.unique(samples.labels[samples.present])
    if only is None:
        return known
    if not len(only):
        raise ArgumentError("classes= is empty; leave it out for all of them.")
    if missing := [one for one in only if one not in known]:
        shown = ", ".join(map(str, known[:20])) + (" …" if len(known) > 20 else "")
        raise ArgumentError(f"There is no class {missing[0]!r}; there are {shown}.")
    return np.asarray(list(only), known.dtype)


def _opened(data: Any, variable: str) -> Any:
    """An `xarray.Dataset`, which reads its values when they are asked for; None of an array."""
    if isinstance(data, str | Path):
        return _open(Path(data).expanduser())
    if hasattr(data, "to_dataset"):  # a `DataArray` has names for its axes, and maybe the targets
        return data.to_dataset(name=variable)
    return data if hasattr(data, "data_vars") else None


def _open(path: Path) -> Any:
    import xarray
    from zarr.errors import GroupNotFoundError

    if not path.exists():
        raise ArgumentError(f"There is no store at {path}.")
    try:
        return xarray.open_zarr(path, chunks=None)
    except GroupNotFoundError as error:
        raise ArgumentError(f"{path} is no store of zarr: pass what explain_dataset has written.") from error


def _variable(dataset: Any, name: str) -> Any:
    if name not in dataset.variables:
        raise ArgumentError(f"The data set has no variable {name!r}; it has {', '.join(map(str, dataset.variables))}.")
    return dataset[name]


def _ids(dataset: Any, count: int) -> np.ndarray:
    return np.asarray(dataset["id"]) if "id" in dataset.variables else np.arange(count)


def _array(data: Any) -> Any:
    """As it is, if it can be sliced and tells its shape, so that a file is not read into memory."""
    values = data if hasattr(data, "shape") and hasattr(data, "ndim") else np.asarray(data)
    if values.ndim < 2:
        raise ArgumentError(
            f"Attributions of shape {tuple(values.shape)}: samples and at least one more axis are needed."
        )
    return values


def _check_axes(reading: Reading, axes: Sequence[str]) -> None:
    own = axes[1:]
    if unknown := [axis for axis in reading.over if axis not in own]:
        raise ArgumentError(f"over={unknown[0]!r} is no axis of a map; the axes are {', '.join(own)}.")


def _labels(dataset: Any, by: Any, count: int) -> np.ndarray:
    """A label for each sample."""
    if by is None:
        return np.full(count, ALL)
    if isinstance(by, str):
        if dataset is None:
            raise ArgumentError(f"by={by!r} names a variable, and an array has none: pass a label for each sample.")
        name, labels = by, np.asarray(_variable(dataset, by))
    else:
        name, labels = "by", np.asarray(by)
    if labels.shape != (count,):
        hint = f"; of outputs take the largest: by=data[{name!r}].argmax(-1)" if labels.ndim > 1 else ""
        raise ArgumentError(f"{name} has the shape {labels.shape} where {count} samples need one label each{hint}.")
    labels = labels.astype(str) if labels.dtype == object else labels
    if (several := len(np.unique(labels))) > _MOST_CLASSES:
        raise ArgumentError(f"{name} has {several} different values, which are no classes.")
    return _whole(labels)


def _present(dataset: Any, labels: np.ndarray) -> np.ndarray:
    """Not those that a store has no label for, nor those whose `status` says that they failed or are still missing."""
    present = np.isfinite(labels) if labels.dtype.kind == "f" else np.ones(len(labels), bool)
    if dataset is not None and "status" in dataset.variables:
        present &= np.asarray(dataset["status"]) == EXPLAINED
    return present


def _whole(labels: np.ndarray) -> np.ndarray:
    """Whole numbers as such, where a store has kept them as floating point numbers."""
    whole = labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all()
    return labels.astype(int) if whole else labels


def _chunk(values: Any) -> int:
    """How many samples a store keeps together; 1 where it is not known."""
    encoded = getattr(values, "encoding", {}).get("chunks") or getattr(values, "chunks", None)
    first = encoded[0] if encoded else 1
    return int(first[0] if isinstance(first, tuple) else first)
