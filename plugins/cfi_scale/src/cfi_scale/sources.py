"""What people hold their data in, as one thing: chunks of samples by number.

Data that is sized and indexable is read where it is explained, if it travels well (files do, by their names), and
otherwise here, chunk by chunk. An iterable of batches is cut anew into chunks.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import cloudpickle
import numpy as np

from cfi_core import InputError
from cfi_core.adapters import as_array
from cfi_core.errors import FOREIGN, brief, summary
from cfi_core.registry import registry
from cfi_scale.samples import Form, Samples, check_ids, plain_ids, plain_text, sift, sift_rows

_EMPTY = "There is no sample to explain: data are empty."
ROLES = ("inputs", "target", "id")
TRAVELS = 2**23
"""Bytes of data that are sent to each worker as a whole; more is read here, chunk by chunk."""
_FIRST = 64
"""How many samples are tried to find one that can be read."""

Fields = Sequence[str | None] | Mapping[Any, str]


class Source(Protocol):
    """Samples by number."""

    @property
    def samples(self) -> int | None:
        """How many there are; None where nobody knows before the end."""

    @property
    def forms(self) -> tuple[Form, ...]:
        """What every sample is like."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs, where they go by name."""

    @property
    def travels(self) -> bool:
        """Whether workers read by themselves."""

    @property
    def ids(self) -> Sequence[Any] | None:
        """Of all samples, where somebody gave them."""

    @property
    def brings_ids(self) -> bool:
        """Whether ids come with the samples, so that nobody knows all of them before."""

    def read(self, start: int, stop: int) -> Samples:
        """These samples; of a stream, each once and in order."""


def open_source(data: Any, *, target: Any = None, ids: Any = None, fields: Fields | None = None) -> Source:
    """Whatever the data are in.

    Args:
        data: Arrays (also memory maps, arrays of zarr and HDF5), a tuple of these for a model of several inputs, a
            mapping by the names of its inputs; anything sized and indexable that gives samples; an iterable of batches.
        target: Of each sample; None where there are none, or one for all.
        ids: Of each sample; None numbers them, or takes those of the data.
        fields: What the parts of a sample or batch are, where it is a tuple or dict: `"inputs"`, `"target"`, `"id"`.

    Raises:
        InputError: It is nothing of the kind, or its parts do not fit.
    """
    if isinstance(data, str | os.PathLike):
        raise InputError(
            f"data is the path {brief(str(data))!r}. Open it: cfi_scale.ImageFolder(path, preprocess) for a folder of "
            f"images, numpy.load(path, mmap_mode='r'), zarr.open_array(path), h5py.File(path)['name']."
        )
    parts = _arrays_of(data)
    if parts is not None:
        return _open_arrays(parts, target, ids, tuple(data) if isinstance(data, Mapping) else ())
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not _gives_batches(data):
        return _open_sequence(data, target, ids, fields)
    if hasattr(data, "__iter__"):
        if ids is not None or target is not None:
            which = "ids" if ids is not None else "one target per sample"
            raise InputError(
                f"A stream of batches brings {which} itself: let it yield tuples, and say what they hold, as in "
                f"fields=('inputs', 'target', 'id')."
            )
        return StreamSource(data, fields)
    raise InputError(
        f"data is a {type(data).__name__}, which can neither be indexed nor iterated. Pass an array, a data set with "
        f"len() and [i], or an iterable of batches."
    )


def _gives_batches(data: Any) -> bool:
    """Whether it is one of the loaders that have a length but give batches."""
    return not hasattr(type(data), "__getitem__")


def _arrays_of(data: Any) -> tuple[Any, ...] | None:
    """The arrays, if these are all it is."""
    several = tuple(data.values()) if isinstance(data, Mapping) else data
    parts = several if isinstance(several, tuple) else (several,)
    return parts if parts and all(hasattr(part, "shape") and hasattr(part, "dtype") for part in parts) else None


def _open_arrays(parts: tuple[Any, ...], target: Any, ids: Any, names: tuple[str, ...]) -> Source:
    arrays = tuple(portable(part) for part in parts)
    counts = {int(array.shape[0]) if len(array.shape) else 0 for array in arrays}
    if len(counts) > 1:
        raise InputError(f"The inputs have {' and '.join(map(str, sorted(counts)))} samples. Pass as many of each.")
    (count,) = counts
    if not count:
        raise InputError(_EMPTY)
    return ArraySource(arrays, names, _each(target, count, "target"), _names_of(ids, count))


def _open_sequence(data: Any, target: Any, ids: Any, fields: Fields | None) -> Source:
    count = len(data)
    if not count:
        raise InputError(_EMPTY)
    told = getattr(data, "ids", None)
    own = None if callable(told) else told
    return SequenceSource(
        data, count, _each(target, count, "target"), _names_of(own if ids is None else ids, count), fields
    )


def _each(values: Any, count: int, what: str) -> tuple[Any, ...] | None:
    if values is None:
        return None
    try:
        plain = values if hasattr(values, "tolist") or not hasattr(values, "__array__") else np.asarray(values)
        found = tuple(plain.tolist() if hasattr(plain, "tolist") else plain)
    except TypeError:
        raise InputError(
            f"{what}={brief(repr(values))} is none for each sample. Pass a list with one for each."
        ) from None
    if len(found) != count:
        raise InputError(f"There are {count} samples and {len(found)} of {what}. Pass one for each sample.")
    return found


def _names_of(ids: Any, count: int) -> tuple[Any, ...] | None:
    found = _each(ids, count, "ids")
    if found is None:
        return None
    plain = plain_ids(found)
    check_ids(plain)
    return plain


# Arrays


@dataclass(frozen=True)
class MappedArray:
    """A memory map by the name of its file: pickled, it opens the file anew."""

    file: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    @cached_property
    def _open(self) -> np.ndarray:
        return np.memmap(self.file, np.dtype(self.dtype), "r", self.offset, self.shape, self.order)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self._open[key])

    def __reduce__(self) -> Any:
        return MappedArray, (self.file, self.dtype, self.offset, self.shape, self.order)


@dataclass(frozen=True)
class Hdf5Array:
    """A data set of an HDF5 file, by its name."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def _open(self) -> Any:
        import h5py

        return h5py.File(self.file, "r")[self.name]

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self._open[key])

    def __reduce__(self) -> Any:
        return Hdf5Array, (self.file, self.name, self.dtype, self.shape)


def portable(array: Any) -> Any:
    """The array as what can be sent to other processes: those in files as their names."""
    if isinstance(array, np.memmap) and (mapped := _map_of(array)) is not None:
        return mapped
    if type(array).__module__.partition(".")[0] == "h5py":
        return Hdf5Array(str(Path(array.file.filename).resolve()), array.name, str(array.dtype), tuple(array.shape))
    if not isinstance(array, np.ndarray) and (hasattr(array, "store") or hasattr(array, "dims")):
        return array  # of zarr, xarray: both give numpy arrays for slices
    return as_array(registry(), array, "data")


def _map_of(array: np.memmap[Any, Any]) -> MappedArray | None:
    """Where a map as it was opened lies in its file; None of a part of one, or of one without a file."""
    base = array.base
    whole = not isinstance(base, np.ndarray)
    if array.filename is None or not whole or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    return MappedArray(str(Path(array.filename).resolve()), array.dtype.str, array.offset, array.shape, order)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of arrays."""

    arrays: tuple[Any, ...]
    names: tuple[str, ...] = ()
    targets: tuple[Any, ...] | None = None
    ids: tuple[Any, ...] | None = None
    brings_ids: bool = False

    @property
    def samples(self) -> int:
        """As many as the first axis is long."""
        return int(self.arrays[0].shape[0])

    @property
    def forms(self) -> tuple[Form, ...]:
        """Of the arrays' rows."""
        return tuple(Form(tuple(map(int, one.shape[1:])), str(np.dtype(one.dtype))) for one in self.arrays)

    @cached_property
    def travels(self) -> bool:
        """Whether they lie in files, or are small."""
        size = sum(one.nbytes for one in self.arrays if isinstance(one, np.ndarray))
        return size <= TRAVELS and _travels(self)

    def read(self, start: int, stop: int) -> Samples:
        """Slices of the arrays."""
        arrays = [np.asarray(one[start:stop]) for one in self.arrays]
        ids = range(start, start + len(arrays[0])) if self.ids is None else self.ids[start:stop]
        return sift_rows(arrays, ids, self.names, None if self.targets is None else self.targets[start:stop])


# Samples one by one


@dataclass(frozen=True, eq=False)
class SequenceSource:
    """A data set with a length, which gives one sample for each number."""

    data: Any
    samples: int
    targets: tuple[Any, ...] | None = None
    ids: tuple[Any, ...] | None = None
    fields: Fields | None = None

    @cached_property
    def _first(self) -> Parts:
        """The first sample that can be read."""
        failed: Counter[str] = Counter()
        for number in range(min(self.samples, _FIRST)):
            try:
                return take_apart(self.data[number], self.fields, "sample")
            except FOREIGN as error:
                failed[summary(error)] += 1
        ((most, _),) = failed.most_common(1)
        raise InputError(f"None of the first {failed.total()} samples can be read ({most}).")

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """Of the first sample that can be read."""
        return tuple(Form.of(array) for array in self._first.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the first sample that can be read."""
        return self._first.names

    @property
    def brings_ids(self) -> bool:
        """Where the first sample has one, and nobody gave others."""
        return self.ids is None and self._first.id is not None

    @cached_property
    def travels(self) -> bool:
        """Whether it is small when it is pickled: it reads files, or makes what it gives."""
        return _travels(self)

    def __getstate__(self) -> dict[str, Any]:
        """All but what was found here."""
        return {name: getattr(self, name) for name in ("data", "samples", "targets", "ids", "fields")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def read(self, start: int, stop: int) -> Samples:
        """Sample after sample; what fails is an error of that one."""
        found = [self._read(number) for number in range(start, stop)]
        own_targets = [one.target if isinstance(one, Parts) else None for one in found]
        has_targets = any(target is not None for target in own_targets)
        targets = own_targets if has_targets else None if self.targets is None else self.targets[start:stop]
        numbers: Sequence[Any] = range(start, stop) if self.ids is None else self.ids[start:stop]
        entries = [one.inputs if isinstance(one, Parts) else one for one in found]
        if self.brings_ids:
            # What cannot be read cannot say its id.
            pairs = zip(found, numbers, strict=True)
            numbers = [plain_text(one.id) if isinstance(one, Parts) else f"number {number}" for one, number in pairs]
        return sift(entries, numbers, self.forms, self.names, targets)

    def _read(self, number: int) -> Parts | Exception:
        try:
            return take_apart(self.data[number], self.fields, "sample")
        except FOREIGN as error:
            return error if isinstance(error, Exception) else Exception(summary(error))


# Batches as they come


@dataclass(eq=False)
class StreamSource:
    """An iterable of batches, which is read once from its beginning to its end."""

    data: Iterable[Any]
    fields: Fields | None = None
    samples: None = None
    ids: None = None
    travels: bool = False
    _parts: Iterator[Parts] = field(init=False)
    _rest: list[Parts] = field(default_factory=list)
    _read: int = 0

    def __post_init__(self) -> None:
        self._parts = self._take_apart()

    def _take_apart(self) -> Iterator[Parts]:
        """Batches that hold something.

        Raises:
            InputError: data fail, or the parts of a batch do not fit.
        """
        given = 0
        try:
            for batch in self.data:
                parts = take_apart(batch, self.fields, "batch", several=True)
                _check_batch(parts, given, self.fields)
                given += len(parts.inputs[0])
                if len(parts.inputs[0]):
                    yield parts
        except InputError:
            raise
        except FOREIGN as error:
            raise InputError(
                f"data failed after {given} samples ({summary(error)}). What is in the store stays valid: mend them, "
                f"and the same call goes on with the rest."
            ) from error

    @cached_property
    def _first(self) -> Parts:
        found = next(self._parts, None)
        if found is None:
            raise InputError("data gives no batch. A generator that was used before is empty: make a new one.")
        self._rest.append(found)
        return found

    @property
    def brings_ids(self) -> bool:
        """Where the first batch has some."""
        return self._first.id is not None

    @cached_property
    def _are_numbers(self) -> bool:
        """Whether the ids of the first batch are whole numbers, as all others must be then."""
        return isinstance(plain_ids(self._first.id)[0], int)

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """Of the first batch's samples."""
        return tuple(Form.of(array[0]) for array in self._first.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the first batch."""
        return self._first.names

    def read(self, start: int, stop: int) -> Samples:
        """The next samples, fewer at the end.

        Raises:
            ValueError: They are not the next.
        """
        if start != self._read:
            raise ValueError(f"A stream is at sample {self._read}, and {start} is asked for.")
        forms, taken, count = self.forms, [], stop - start
        while count and (part := self._next(count)) is not None:
            taken.append(part)
            count -= len(part.inputs[0])
        total = stop - start - count
        ids: Sequence[Any] = range(start, start + total)
        self._read += total
        entries: list[Any] = []
        for part in taken:
            entries += zip(*part.inputs, strict=True)
        if taken and taken[0].id is not None:
            ids = self._plain([name for part in taken for name in part.id])
        targets = [one for part in taken for one in part.target] if taken and taken[0].target is not None else None
        return sift(entries, ids, forms, self.names, targets)

    def _plain(self, ids: list[Any]) -> tuple[Any, ...]:
        """Ids of one kind, that of the first."""
        if not self._are_numbers:
            return tuple(map(plain_text, ids))
        if strange := [one for one in ids if not isinstance(plain_ids([one])[0], int)]:
            raise InputError(f"The id {strange[0]!r} is no whole number, as those before it. Make all of them texts.")
        return plain_ids(ids)

    def _next(self, most: int) -> Parts | None:
        part = self._rest.pop() if self._rest else next(self._parts, None)
        if part is None or len(part.inputs[0]) <= most:
            return part
        self._rest.append(part.rows(slice(most, None)))
        return part.rows(slice(most))


# What a sample or a batch is made of


@dataclass(frozen=True, eq=False)
class Parts:
    """A sample or a batch: its inputs, and what else it brings."""

    inputs: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    target: Any = None
    id: Any = None

    def rows(self, part: slice) -> Parts:
        """Some rows of a batch."""
        inputs = tuple(array[part] for array in self.inputs)
        target = None if self.target is None else self.target[part]
        return Parts(inputs, self.names, target, None if self.id is None else self.id[part])


def _check_batch(parts: Parts, given: int, fields: Fields | None) -> None:
    """Raises InputError where the parts of a batch are not of as many samples, or some are missing."""
    sizes = {f"input {place}": array for place, array in enumerate(parts.inputs)}
    sizes |= {"target": parts.target, "id": parts.id}
    counts = {name: len(one) for name, one in sizes.items() if hasattr(one, "__len__")}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"The batch behind sample {given} has {told}. Give as many of each.")
    roles = list(fields.values() if isinstance(fields, Mapping) else fields or ())
    if lost := [role for role in ("target", "id") if role in roles and role not in counts]:
        raise InputError(f"The batch behind sample {given} has no {lost[0]}s: one for each of its samples is needed.")


def take_apart(value: Any, fields: Fields | None, what: str, *, several: bool = False) -> Parts:
    """Inputs, target and id of a sample or batch.

    Raises:
        InputError: It is a tuple, and nobody says what it holds.
    """
    if fields is None:
        if isinstance(value, Mapping):
            return Parts(tuple(_array(one) for one in value.values()), tuple(map(str, value)))
        if isinstance(value, tuple | list) and any(hasattr(one, "shape") for one in value):
            raise InputError(
                f"A {what} of data is a {type(value).__name__} of {len(value)}. Say what its parts are, as in "
                f"fields=('inputs', 'target'); None leaves a part out."
            )
        return Parts((_array(value),))
    roles = _roles(fields, value, what)
    named = isinstance(fields, Mapping)
    inputs = {str(key): _array(value[key]) for key, role in roles.items() if role == "inputs"}
    rest = {role: value[key] for key, role in roles.items() if role != "inputs"}
    names = tuple(inputs) if named and len(inputs) > 1 else ()
    target, id_ = (_plain(rest.get(role), several=several) for role in ("target", "id"))
    return Parts(tuple(inputs.values()), names, target, id_)


def _roles(fields: Fields, value: Any, what: str) -> dict[Any, str]:
    """The role of each part that is used.

    Raises:
        InputError: There is no such part or role.
    """
    given = dict(fields) if isinstance(fields, Mapping) else dict(enumerate(fields))
    roles = {key: role for key, role in given.items() if role is not None}
    if wrong := [role for role in roles.values() if role not in ROLES]:
        raise InputError(f"fields has {wrong[0]!r}; the parts of a {what} are {', '.join(map(repr, ROLES))} or None.")
    if "inputs" not in roles.values():
        raise InputError(f"fields={fields!r} names no 'inputs'. Say which part of a {what} the model takes.")
    known: Any = set(value) if isinstance(value, Mapping) else set(range(len(value)))
    if lost := [key for key in roles if key not in known]:
        raise InputError(f"A {what} of data has no part {lost[0]!r}; it has {', '.join(map(str, islice(known, 20)))}.")
    return roles


def _array(value: Any) -> np.ndarray:
    """Of its own: who makes samples may use the same memory for the next one."""
    return np.array(as_array(registry(), value, "a sample of data"))


def _plain(value: Any, *, several: bool) -> Any:
    """Targets and ids in the types of Python."""
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "numpy"):
        value = value.numpy().tolist()
    if several:
        return [one.decode() if isinstance(one, bytes) else one for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _travels(value: Any) -> bool:
    """Whether it can be pickled, and is small then; a large one is not pickled to its end."""
    try:
        cloudpickle.dump(value, _Scale(TRAVELS))
    except FOREIGN:
        return False
    return True


class _Scale(io.RawIOBase):
    """A file that nothing is kept of, and that overflows."""

    def __init__(self, most: int) -> None:
        self._left = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise OverflowError("too large to travel")
        return size
