"""Runs a model that was exported for a fixed number of samples on any other number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cfi_core.errors import InputError

Feeds = Mapping[str, np.ndarray]
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


class Portions:
    """In portions of the size that the model takes, the last one filled up; where samples do not touch each other."""

    def __init__(self, run: Callable[[Feeds], list[Any]], size: int | None) -> None:
        """Wraps a model.

        Args:
            run: From named inputs to the outputs.
            size: The number of samples that it takes; None if it takes any.
        """
        self._run, self._size = run, size
        self._are_apart = size == 1

    def __call__(self, feeds: Feeds) -> list[Any]:
        """All outputs.

        Raises:
            InputError: The number of samples is another one, and they cannot be computed apart.
        """
        counts = {len(array) if np.ndim(array) else 0 for array in feeds.values()}
        if self._size is None or counts in (set(), {self._size}) or len(counts) > 1:
            return self._run(feeds)
        count, size = counts.pop(), self._size
        parts = [self._portion(feeds, start, size, count) for start in range(0, count, size)]
        return [np.concatenate(pieces)[:count] for pieces in zip(*parts, strict=True)]

    def _portion(self, feeds: Feeds, start: int, size: int, count: int) -> list[Any]:
        given = {name: _filled(array[start : start + size], size) for name, array in feeds.items()}
        results = self._run(given)
        if any(np.ndim(one) == 0 or len(one) != size for one in results):
            raise _inseparable(size, count, "its outputs have no sample axis")
        if not self._are_apart:
            alone = self._run({name: _filled(array[:1], size, 0) for name, array in given.items()})
            if not all(
                np.allclose(a[0], b[0], _RELATIVE, _ABSOLUTE, equal_nan=True)
                for a, b in zip(results, alone, strict=True)
            ):
                raise _inseparable(size, count, "one sample changes the result of another")
            self._are_apart = True
        return results


def _filled(array: np.ndarray, size: int, factor: int = 1) -> np.ndarray:
    """With more of the last sample, or zeros, up to that size."""
    return np.concatenate([array, np.repeat(array[-1:] * np.asarray(factor, array.dtype), size - len(array), axis=0)])


def _inseparable(size: int, count: int, why: str) -> InputError:
    return InputError(
        f"The model was exported for {size} samples at a time, and {count} cannot be computed in portions: {why}. "
        f"Export it with a free sample axis (dynamic_axes or dynamic_shapes of the exporter)."
    )
