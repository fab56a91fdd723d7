"""Samples as they are explained: the rows of one chunk, those apart that cannot be explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest as xxh3

from cfi_core import InputError


@dataclass(frozen=True)
class Form:
    """What every sample of an input is like, in the model's axes, without the axis of samples."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, sample: np.ndarray) -> Form:
        """The form of one sample."""
        return cls(tuple(map(int, sample.shape)), str(sample.dtype))

    def __str__(self) -> str:
        return f"{self.shape} of {self.dtype}"


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of one chunk.

    Attributes:
        ids: Of all samples, whole numbers or texts.
        good: Positions, among all samples, of those that can be explained.
        arrays: Of each input of the model one array, with a row for each good sample.
        names: What the inputs are called, where they go by name.
        targets: Of each good sample, where the data have targets.
        errors: Of samples that cannot be explained, by position.
    """

    ids: Sequence[int] | Sequence[str]
    good: tuple[int, ...]
    arrays: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    targets: tuple[Any, ...] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ids(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(array.nbytes for array in self.arrays)

    def inputs(self, rows: slice) -> Any:
        """Rows of good samples, as `cfi.attribute` takes them."""
        taken = tuple(array[rows] for array in self.arrays)
        if self.names:
            return dict(zip(self.names, taken, strict=True))
        return taken if len(taken) > 1 else taken[0]

    def digests(self) -> np.ndarray:
        """A hash of each sample and its target, to know it again; 0 for those that cannot be explained."""
        made = [0] * len(self.good) if self.targets is None else [xxh3(repr(one).encode()) for one in self.targets]
        for array in self.arrays:
            rows = np.ascontiguousarray(array)
            made = [xxh3(row, seed=former) for row, former in zip(rows, made, strict=True)]
        found = np.zeros(len(self), np.uint64)
        found[list(self.good)] = made
        return found


def sift(
    entries: Sequence[tuple[np.ndarray, ...] | Exception | str],
    ids: Sequence[Any],
    forms: Sequence[Form],
    names: tuple[str, ...] = (),
    targets: Sequence[Any] | None = None,
) -> Samples:
    """Puts samples together, those apart that could not be read or are not of the form.

    Args:
        entries: Of each sample its arrays, or why it could not be read.
        ids: Of each sample.
        forms: Of each input.
        names: Of the inputs.
        targets: Of each sample, where there are some.
    """
    errors = {place: found for place, one in enumerate(entries) if (found := _fault(one, forms))}
    good = tuple(place for place in range(len(entries)) if place not in errors)
    arrays = tuple(
        np.stack([np.asarray(entries[place][part]) for place in good])  # type: ignore[index]
        if good
        else np.empty((0, *form.shape), form.dtype)
        for part, form in enumerate(forms)
    )
    kept = None if targets is None else tuple(targets[place] for place in good)
    return Samples(ids, good, arrays, names, kept, errors)


def sift_rows(
    arrays: Sequence[np.ndarray], ids: Sequence[Any], names: tuple[str, ...] = (), targets: Sequence[Any] | None = None
) -> Samples:
    """The same for rows of arrays, which have one form: those apart that hold NaN or infinite values."""
    errors: dict[int, str] = {}
    for array in arrays:
        for row in np.flatnonzero(~_are_finite(array)):
            errors.setdefault(int(row), _say_not_finite(array[row]))
    if not errors:
        kept = None if targets is None else tuple(targets)
        return Samples(ids, tuple(range(len(ids))), tuple(arrays), names, kept)
    good = tuple(row for row in range(len(ids)) if row not in errors)
    kept = None if targets is None else tuple(targets[row] for row in good)
    return Samples(ids, good, tuple(array[list(good)] for array in arrays), names, kept, errors)


def plain_ids(ids: Sequence[Any]) -> tuple[Any, ...]:
    """Ids as a store holds them: whole numbers if all are, else texts.

    Raises:
        InputError: One is missing.
    """
    if all(isinstance(one, int | np.integer) and -(2**63) <= one < 2**63 for one in ids):
        return tuple(int(one) for one in ids)
    if lost := [place for place, one in enumerate(ids) if one is None]:
        raise InputError(f"Sample {lost[0]} has no id. Give each its own, or leave ids out.")
    return tuple(plain_text(one) for one in ids)


def check_ids(ids: Sequence[Any]) -> None:
    """Raises InputError where one stands for several samples."""
    if not isinstance(ids, range) and len(set(ids)) != len(ids):
        ((double, _),) = Counter(ids).most_common(1)
        raise InputError(f"The id {double!r} stands for several samples. Give each its own, or leave ids out.")


def plain_text(value: Any) -> str:
    """As UTF-8 can hold it: names of files may have other bytes."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _fault(entry: tuple[np.ndarray, ...] | Exception | str, forms: Sequence[Form]) -> str:
    """Why a sample cannot be explained; empty where it can."""
    if isinstance(entry, Exception):
        return f"unreadable ({_summary(entry)})"
    if isinstance(entry, str):
        return entry
    for array, form in zip(entry, forms, strict=True):
        if Form.of(array) != form:
            return f"it is {Form.of(array)}, the others {form}"
        if not _are_finite(array[None])[0]:
            return _say_not_finite(array)
    return ""


def _are_finite(array: np.ndarray) -> np.ndarray:
    """Of each row."""
    if array.dtype.kind not in "fc":
        return np.ones(len(array), bool)
    flat = array.reshape(len(array), -1)
    # A sum is finite where all are, and takes one pass without an array of flags; where it is not, it is looked up.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = ~np.isfinite(flat.sum(1))
    finite = np.ones(len(array), bool)
    finite[suspect] = np.isfinite(flat[suspect]).all(1)
    return finite


def _say_not_finite(sample: np.ndarray) -> str:
    bad = ~np.isfinite(sample)
    what = "NaN" if np.isnan(sample).any() else "infinite"
    return f"{int(bad.sum())} of its {sample.size} values {'is' if bad.sum() == 1 else 'are'} {what}"


def _summary(error: Exception) -> str:
    text = " ".join(str(error).split()).removesuffix(".") or "no message"
    return f"{type(error).__name__}: {text[:300]}"
