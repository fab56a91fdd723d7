"""The places of inputs that are changed together, in the order of what they were given, and what is put there.

A place is a pixel with all its channels, a step of a series, a token, a cell of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cfi_core.adapters import as_array
from cfi_core.checks.question import Arrays, Question
from cfi_core.comparing.measures import stretch
from cfi_core.errors import ArgumentError, InputError
from cfi_core.registry import registry
from cfi_core.specs import Kind, Need

_CONTENTS = ("channel", "embedding")
_SPACE = ("depth", "height", "width", "time")
BASELINES = ("zero", "mean", "blur")
READINGS = ("contributions", "gradients")


@dataclass(frozen=True, eq=False)
class Places:
    """Inputs by their places.

    Attributes:
        question: What is checked.
    """

    question: Question

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The inputs."""
        return self.question.arrays

    @cached_property
    def dims(self) -> tuple[tuple[str, ...], ...]:
        """Names of their axes."""
        return self.question.dims

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the places of each input, samples first."""
        return [
            tuple(size for axis, size in enumerate(array.shape) if axis not in _contents(dims))
            for array, dims in zip(self.arrays, self.dims, strict=True)
        ]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.arrays[0])

    @cached_property
    def count(self) -> int:
        """Of all places of a sample, those of all inputs together."""
        return sum(int(np.prod(shape[1:])) for shape in self.shapes)

    def values(self, *, absolute: bool = False) -> np.ndarray:
        """What each place was given, one row for each sample: summed over channels, maps stretched over the input.

        Raises:
            InputError: The values do not belong to places of the inputs.
        """
        attribution = self.question.attribution
        if isinstance(attribution.layer, tuple) or len(attribution.parts) != len(self.arrays):
            raise InputError(f"there are {len(attribution.parts)} arrays of values for {len(self.arrays)} inputs.")
        found = []
        for (values, dims), shape, own in zip(attribution.parts, self.shapes, self.dims, strict=True):
            array = np.abs(values).astype(np.float64) if absolute else np.asarray(values, np.float64)
            contents = _contents(dims)
            kept = tuple(name for axis, name in enumerate(dims) if axis not in contents)
            names = tuple(name for axis, name in enumerate(own) if axis not in _contents(own))
            array = array.sum(contents)
            if array.shape != shape and (kept != names or set(kept[1:]) - set(_SPACE)):
                where = f"layer {attribution.layer!r}" if attribution.layer else "something else"
                raise InputError(
                    f"the values are of {where}, with the axes {dims}, and no places of inputs with the axes {own}."
                )
            for axis in range(1, array.ndim):
                array = stretch(array, axis, shape[axis])
            found.append(array.reshape(len(array), -1))
        return np.concatenate(found, axis=1)

    def order(self, generator: np.random.Generator, *, absolute: bool) -> np.ndarray:
        """Places of each sample, the one with the largest value first; of equal ones any first."""
        values = self.values(absolute=absolute)
        return np.lexsort((generator.random(values.shape), -values))

    def random_order(self, generator: np.random.Generator) -> np.ndarray:
        """Places of each sample in any order."""
        return np.argsort(generator.random((self.samples, self.count)), axis=1)

    def exchange(self, marked: np.ndarray, others: Arrays) -> list[np.ndarray]:
        """The inputs with what others hold at the marked places, given as `(samples, places)`."""
        masks = self.split(marked)
        return [np.where(mask, other, array) for mask, array, other in zip(masks, self.arrays, others, strict=True)]

    def split(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """What stands for places as arrays that go with the inputs, a length of one in the place of channels."""
        ends = np.cumsum([int(np.prod(shape[1:])) for shape in self.shapes])[:-1]
        for part, array, shape, dims in zip(
            np.split(rows, ends, axis=1), self.arrays, self.shapes, self.dims, strict=True
        ):
            assert part.shape[1] == int(np.prod(shape[1:])) and array.ndim >= len(shape)
            yield np.expand_dims(part.reshape(shape), _contents(dims))

    def baselines(self, given: Any) -> list[np.ndarray]:
        """What is put in the place of the inputs; see `check` for what can be given.

        Raises:
            ArgumentError: It is none of what is known, or does not fit.
        """
        parts = given if isinstance(given, tuple) else (given,) * len(self.arrays)
        if len(parts) != len(self.arrays):
            raise ArgumentError(f"baseline holds {len(parts)} parts for {len(self.arrays)} inputs.")
        return [_baseline(part, array, dims) for part, array, dims in zip(parts, self.arrays, self.dims, strict=True)]


def reading_of(question: Question) -> str:
    """Whether values are what places contribute, or how the output changes with them (gradients)."""
    method, own = question.method, question.own_settings
    if method is None or Need.INPUT_GRADIENT not in method.needs:
        return "contributions"
    promise = method.completeness
    # Without what makes contributions of them, the values are gradients on the way from the baseline.
    if promise is not None and not any(own.get(name) is False for name, value in promise.only_with.items() if value):
        return "contributions"
    # What is multiplied by the inputs names them.
    is_gradient = method.kind is Kind.ATTRIBUTION and "input" not in method.key and not question.attribution.layer
    return "gradients" if is_gradient else "contributions"


def read_choice(name: str, given: Any, known: Sequence[str]) -> str:
    """An option that is one of some words.

    Raises:
        ArgumentError: It is another one.
    """
    if given not in known:
        raise ArgumentError(f"{name}={given!r} is none of {', '.join(map(repr, known))}.")
    return str(given)


def read_share(name: str, given: Any, of: str) -> float:
    """An option that is a positive number.

    Raises:
        ArgumentError: It is none.
    """
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < np.inf:
        raise ArgumentError(f"{name}={given!r} is no share of {of} above 0.")
    return float(given)


def read_perturbations(given: Any, question: Question) -> np.ndarray | None:
    """Noise of the user's, for a model of one explained input.

    Raises:
        ArgumentError: It is of another shape, or there are several inputs.
    """
    if given is None:
        return None
    if len(question.arrays) > 1:
        raise ArgumentError(f"perturbations= goes with one input, and {len(question.arrays)} were explained.")
    found, shape = as_array(registry(), given, "perturbations"), question.arrays[0].shape
    if found.ndim != len(shape) + 1 or found.shape[1:] != shape or not len(found) or found.dtype.kind not in "fiu":
        raise ArgumentError(f"perturbations= has shape {found.shape}, where (draws, {str(shape)[1:-1]}) is needed.")
    return found


def read_count(name: str, given: Any) -> int:
    """An option that is a number of times.

    Raises:
        ArgumentError: It is none.
    """
    if type(given) is not int or given < 1:
        raise ArgumentError(f"{name}={given!r} is no number of times: pass 1 or more.")
    return given


def usual_baseline(dims: Sequence[str], *, blur: bool) -> str:
    """What is put in the place of inputs unless the user says."""
    is_spatial = bool(set(dims) & set(_SPACE))
    return "blur" if blur and is_spatial else "mean" if is_spatial else "zero"


def _contents(dims: Sequence[str]) -> tuple[int, ...]:
    """Axes along which a place goes on; of inputs that have no other, they are the places."""
    found = tuple(axis for axis, name in enumerate(dims) if name in _CONTENTS)
    return found if len(found) < len(dims) - 1 else ()


def _baseline(given: Any, array: np.ndarray, dims: tuple[str, ...]) -> np.ndarray:
    if array.dtype.kind != "f" and isinstance(given, str):
        raise ArgumentError(
            f"the inputs are whole numbers, of which {given!r} may be any: pass baseline= as a number (such as that of "
            f"the padding token) or an array."
        )
    if isinstance(given, str):
        space = tuple(axis for axis, name in enumerate(dims) if name in _SPACE)
        if read_choice("baseline", given, BASELINES) == "zero":
            return np.zeros_like(array)
        if not space:
            raise ArgumentError(f"baseline={given!r} is of axes of space or time, and the inputs have {dims}.")
        if given == "mean":
            return np.broadcast_to(array.mean(space, keepdims=True), array.shape).astype(array.dtype)
        return _blur(array, space)
    found = np.asarray(given)
    try:
        return np.broadcast_to(found, array.shape).astype(array.dtype)
    except ValueError as error:
        raise ArgumentError(f"baseline has shape {found.shape}, the inputs {array.shape}.") from error


def _blur(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Gaussian, with a standard deviation of a tenth of each axis; at the edges of what is inside alone."""
    found = array.astype(np.float64)
    for axis in axes:
        size = array.shape[axis]
        near = np.exp(-0.5 * ((np.arange(size)[:, None] - np.arange(size)) / max(size / 10, 1)) ** 2)
        weights = near / near.sum(1, keepdims=True)
        found = np.moveaxis(np.moveaxis(found, axis, -1) @ weights.T, -1, axis)
    return found.astype(array.dtype)
