"""Runs a model that was exported for a fixed number of samples on any other one, and says how many rows go at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from math import prod
from typing import Any

import numpy as np

from cfi_core.errors import InputError

Feeds = Mapping[str, np.ndarray]
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


class Portions:
    """In portions of the size that the model takes, the last one filled up; where samples do not touch each other."""

    def __init__(self, run: Callable[[Feeds], list[Any]], size: int | None, *, leave_out: bool = False) -> None:
        """Wraps a model.

        Args:
            run: From named inputs to the outputs.
            size: The number of samples that it takes; None if it takes any.
            leave_out: Outputs that cannot be had in portions are None.
        """
        self._run, self._size, self._leave_out = run, size, leave_out
        self._tested = size == 1

    def __call__(self, feeds: Feeds) -> list[Any]:
        """All outputs.

        Raises:
            InputError: The number of samples is another one, and they cannot be computed apart.
        """
        counts = {len(array) if np.ndim(array) else 0 for array in feeds.values()}
        if self._size is None or counts & {0, self._size} or len(counts) != 1:
            return self._run(feeds)
        count, size = counts.pop(), self._size
        apart = repeat(True) if self._tested else self._apart(feeds, size)
        last = -count % size  # so many more of the last sample fill up the last portion
        filled = {name: np.concatenate([array, np.repeat(array[-1:], last, axis=0)]) for name, array in feeds.items()}
        starts = range(0, count, size)
        results = [self._run({name: array[at : at + size] for name, array in filled.items()}) for at in starts]
        return [self._join(parts, count, each) for parts, each in zip(zip(*results, strict=True), apart, strict=False)]

    def _join(self, parts: Sequence[Any], count: int, apart: bool) -> np.ndarray | None:
        has_samples = all(_has_samples(one, self._size) for one in parts)
        if has_samples and apart:
            return np.concatenate(parts)[:count]
        if self._leave_out:
            return None
        why = "one sample changes the result of another" if has_samples else "its outputs have no sample axis"
        raise InputError(
            f"The model was exported for {self._size} samples at a time, and {count} cannot be computed in portions: "
            f"{why}. Export it with a free sample axis (dynamic_axes or dynamic_shapes of the exporter)."
        )

    def _apart(self, feeds: Feeds, size: int) -> list[bool]:
        """Of each output whether samples in another order give the results in that order, and one changes no other."""
        generator = np.random.default_rng(0)
        batch = {name: _different(array, size, generator) for name, array in feeds.items()}
        plain, order = np.arange(size), np.roll(np.arange(size), 1)
        # In another order; each one place earlier; with the largest values, then the smallest, in the last one's place.
        places = (order, np.append(plain[1:], size), *(np.append(plain[:-1], size + i) for i in (0, 1)))
        first, *others = [self._run({name: array[at] for name, array in batch.items()}) for at in (plain, *places)]
        found = [
            not _has_samples(value, size)
            or all(_close(value[at[at < size]], other[at < size]) for at, other in zip(places, changed, strict=True))
            for value, *changed in zip(first, *others, strict=True)
        ]
        # Of samples that are all alike nothing can be seen.
        differ = any((array[0] != array[1:]).any() for array in batch.values())
        self._tested = all(found) and differ
        return found


def _has_samples(value: Any, size: int | None) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == size


def _different(samples: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """New samples of the values of others, each unlike the one before, then one above and one below all of them.

    Floating point values are of other sizes too, so that samples that are all alike tell something.
    """
    sample = samples[0]
    if np.issubdtype(sample.dtype, np.floating):
        mixed = np.stack([generator.permutation(sample.reshape(-1)) for _ in range(count)])
        sizes, shifts = generator.uniform(-1, 1, (count, 1)), generator.uniform(-0.1, 0.1, (count, 1))
        drawn = (mixed * sizes + shifts).reshape(count, *sample.shape).astype(sample.dtype)
        spread = (np.ptp(drawn, axis=0) + 0.1).astype(sample.dtype)
        return np.concatenate([drawn, [drawn.max(axis=0) + spread, drawn.min(axis=0) - spread]])
    values = np.unique(samples)
    drawn = generator.choice(values, (count, *sample.shape))
    drawn.reshape(count, -1)[:, :1] = values[np.arange(count) % len(values)][:, None]
    return np.concatenate([drawn, [np.full_like(sample, values[-1]), np.full_like(sample, values[0])]])


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    is_number = np.issubdtype(one.dtype, np.number)
    return bool(np.allclose(one, other, _RELATIVE, _ABSOLUTE, equal_nan=True) if is_number else (one == other).all())


def one_size(sizes: Iterable[int | None]) -> int | None:
    """The size that all of them are, if it is known and no zero."""
    found = set(sizes)
    return (found.pop() or None) if len(found) == 1 else None


MOST_ELEMENTS = 2**21
"""Of the inputs that go through a model at once: 13 photographs of 224 by 224 pixels in three colours."""


def rows_at_once(
    shapes: Iterable[Sequence[int]], samples: int, most: int | None = None, *, limit: int | None = None
) -> int:
    """How many rows of inputs a method sends through a model at once, where it makes several of each sample.

    A user who interrupts a call waits for the pass that runs, so that none is to last long. Sizes decide, and no clock:
    the same call has the same passes everywhere.

    Args:
        shapes: Of the model's inputs, sample axis first.
        samples: The samples that are explained. All of them go through together, however large they are.
        most: No more rows than that, if it is not less than the samples.
        limit: What the user or memory allows (`MethodRequest.rows`), in the place of what sizes say.

    Returns:
        A whole multiple of the samples.
    """
    elements = samples * sum(prod(shape[1:]) for shape in shapes)
    fitting = MOST_ELEMENTS // max(elements, 1) if limit is None else limit // samples
    return samples * max(fitting if most is None else min(fitting, most // samples), 1)


def seed_of_sample(seed: int, place: int) -> int:
    """The seed of the sample at a place, where samples are explained apart; that of the first is the seed itself.

    Seeds of places add up: those of samples from another place on, begun with the seed of that place, are the same. So
    what is drawn for a sample does not depend on how many stand in front of it in one call. They go through all numbers
    of 32 bits in steps of the golden ratio (a Weyl sequence), far from those of neighbouring seeds.
    """
    return (seed + place * _STEP) % 2**32


_STEP = 0x9E3779B1
