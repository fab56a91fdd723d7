"""How far two attributions are apart: they are made comparable by the names of their axes, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cfi_core.attribution import Attribution

TOP = 0.1
"""Share of the features whose overlap is taken, where none is asked for."""

_SPACE = frozenset({"depth", "height", "width", "position"})
"""Axes along which a map may be stretched: positions of one are between positions of the other."""

_CONTENTS = frozenset({"channel", "embedding"})
"""Axes along which everything lies at the same place, so that a sum over them is a value of that place."""


@dataclass(frozen=True)
class Measures:
    """How far two attributions are apart.

    Attributes:
        difference: L2 norm of the difference over the larger of both norms; 0 where both are zero everywhere.
        cosine: Of the angle between them; of zeros 1 with zeros, and 0 with anything else.
        rank: Spearman's rank correlation, equal values sharing their mean rank; of constants 1 with constants, and 0
            with anything else.
        overlap: Share that the features of largest magnitude have in common (`top` of all, at least one); features
            that tie for the last places share these.
    """

    difference: float
    cosine: float
    rank: float
    overlap: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Comparable:
    """Two attributions in the same axes: of each part of the values one array, and what had to be done to them."""

    first: tuple[np.ndarray, ...]
    second: tuple[np.ndarray, ...]
    dims: tuple[tuple[str, ...], ...]
    done: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Both, with one row for each sample that holds all of its values."""
        return _rows(self.first), _rows(self.second)

    @property
    def difference(self) -> float:
        """The largest relative difference of a sample, which none with larger values can hide."""
        one, other = self.rows
        return float(max(map(relative_gap, one, other), default=0.0))

    def measure(self, top: float = TOP) -> Measures:
        """All samples together."""
        one, other = self.rows
        return measure(one.ravel(), other.ravel(), top)

    def measure_each(self, top: float = TOP) -> tuple[Measures, ...]:
        """Each sample by itself."""
        return tuple(measure(one, other, top) for one, other in zip(*self.rows, strict=True))


def measure(first: np.ndarray, second: np.ndarray, top: float = TOP) -> Measures:
    """Of two vectors of the same length."""
    return Measures(
        relative_gap(first, second),
        _cosine(first, second),
        _cosine(*(ranks(one) - (one.size - 1) / 2 for one in (first, second))),
        _overlap(np.abs(first), np.abs(second), top),
    )


def relative_gap(first: np.ndarray, second: np.ndarray) -> float:
    """The norm of the difference over the larger of both norms; 0 of nothing and nothing."""
    largest = max(np.abs(first).max(initial=0), np.abs(second).max(initial=0))
    if largest == 0:
        return 0.0
    first, second = first / largest, second / largest  # so that no square is too large or too small for a number
    return float(np.linalg.norm(first - second) / max(np.linalg.norm(first), np.linalg.norm(second)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Of each value, from 0; equal ones share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[places]


def stretch(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Another number of cells along an axis: linearly between the middles of cells, as pictures are resized."""
    had = array.shape[axis]
    if had == size:
        return array
    at = np.clip((np.arange(size) + 0.5) * had / size - 0.5, 0, had - 1)  # in cells that are there
    below = np.floor(at).astype(int)
    share = (at - below).reshape(-1, *(1,) * (array.ndim - axis - 1))
    low, high = (array.take(np.minimum(below + i, had - 1), axis) for i in (0, 1))
    return np.asarray(low * (1 - share) + high * share)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    largest = [float(np.abs(one).max(initial=0)) for one in (first, second)]
    if not all(largest):
        return float(not any(largest))
    first, second = first / largest[0], second / largest[1]
    return float(np.clip(first @ second / np.sqrt((first @ first) * (second @ second)), -1, 1))


def _overlap(first: np.ndarray, second: np.ndarray, top: float) -> float:
    count = min(max(1, round(top * first.size)), first.size)
    return float(np.minimum(_membership(first, count), _membership(second, count)).sum() / count) if count else 1.0


def _membership(sizes: np.ndarray, count: int) -> np.ndarray:
    """How far each belongs to the largest ones: 1 or 0, and what is left for those that tie for the last places."""
    last = np.partition(sizes, -count)[-count]
    above, tied = sizes > last, sizes == last
    return above + tied * ((count - above.sum()) / tied.sum())


def make_comparable(first: Attribution, second: Attribution, *, same_model: bool = True) -> Comparable | str:
    """Two attributions in the same axes; or why they cannot be brought there.

    Axes are matched by their names. Channels (or the elements of embeddings) that one of them alone has are summed over
    (where all values along them are equal, taken once), and so are those of two layers of a model, which are not the
    same channels. A map of another size is stretched to that of the finer one, linearly. What was done stands in the
    result.
    """
    parts = [attribution.parts for attribution in (first, second)]
    if len(parts[0]) != len(parts[1]):
        return f"{len(parts[0])} arrays of values stand against {len(parts[1])}"
    pairs, done = [], list[str]()
    for both in zip(*parts, strict=True):
        one, other = (_Named(np.asarray(values, np.float64), dims) for values, dims in both)
        if same_model and first.layer != second.layer:
            one, other = (each.without_contents(done) for each in (one, other))
        if why := _refuse(one, other):
            return why
        pairs.append(_match(one, other, done))
    first_arrays, second_arrays = zip(*((one.values, other.values) for one, other in pairs), strict=True)
    dims = tuple(one.dims for one, _ in pairs)
    return Comparable(first_arrays, second_arrays, dims, tuple(dict.fromkeys(done)))


@dataclass(frozen=True, eq=False)
class _Named:
    """An array with names of its axes."""

    values: np.ndarray
    dims: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        return dict(zip(self.dims, self.values.shape, strict=True))

    def without(self, axis: str, done: list[str]) -> _Named:
        place = self.dims.index(axis)
        is_repeated = self.values.shape[place] > 1 and bool((np.ptp(self.values, axis=place) == 0).all())
        done.append(f"{axis}: all values along it are equal, taken once" if is_repeated else f"summed over {axis}")
        reduced = self.values.take(0, place) if is_repeated else self.values.sum(place)
        return _Named(reduced, tuple(name for name in self.dims if name != axis))

    def without_contents(self, done: list[str]) -> _Named:
        found = self
        for axis in _CONTENTS & set(self.dims):
            found = found.without(axis, done)
        return found

    def stretched(self, axis: str, size: int, done: list[str]) -> _Named:
        place = self.dims.index(axis)
        had = self.values.shape[place]
        if had == size:
            return self
        done.append(f"{axis} stretched from {had} to {size}, linearly")
        return _Named(stretch(self.values, place, size), self.dims)


def _refuse(one: _Named, other: _Named) -> str:
    """Why the axes do not go together; nothing if they do."""
    mine, theirs = ({axis for axis in each.dims if axis not in _CONTENTS} for each in (one, other))
    sizes, others = one.sizes(), other.sizes()
    unequal = [axis for axis in mine & theirs - _SPACE if sizes[axis] != others[axis]]
    return f"axes {_show(one)} do not go with {_show(other)}" if mine != theirs or unequal else ""


def _match(one: _Named, other: _Named, done: list[str]) -> tuple[_Named, _Named]:
    for axis in _CONTENTS & {*one.dims, *other.dims}:
        if one.sizes().get(axis) != other.sizes().get(axis):
            one, other = (each.without(axis, done) if axis in each.dims else each for each in (one, other))
    other = _Named(np.transpose(other.values, [other.dims.index(name) for name in one.dims]), one.dims)
    for axis in one.dims:
        size = max(one.sizes()[axis], other.sizes()[axis])
        one, other = (each.stretched(axis, size, done) for each in (one, other))
    return one, other


def _show(array: _Named) -> str:
    return "(" + ", ".join(f"{name} {size}" for name, size in array.sizes().items()) + ")"


def _rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts], axis=1)
