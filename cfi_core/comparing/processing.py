"""Whether the values of one implementation are those of another, processed: absolute, scaled, times the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from cfi_core.comparing.measures import relative_gap

Step = tuple[str, Callable[[np.ndarray], np.ndarray]]


def explain_by_processing(values: np.ndarray, others: np.ndarray, inputs: np.ndarray | None, within: float) -> str:
    """Which one or two steps make the values those of the other, in words; nothing if none do.

    Args:
        values: One row for each sample.
        others: Of the same shape.
        inputs: Of the same shape; None where values do not belong to the inputs' elements.
        within: Largest relative difference of a sample that may remain.
    """
    steps = list(_steps(inputs))
    chains = [(step,) for step in steps] + [(one, other) for one in steps for other in steps if one is not other]
    for chain in [(), *chains]:
        found = values
        for _, step in chain:
            found = step(found)
        words = [name for name, _ in chain]
        if words and _fits(found, others, within):
            return ", then ".join(words)
        factor = _factor(found, others)
        if factor and _fits(found * factor, others, within):
            return ", then ".join([*words, f"times {factor:.5g}"])
    return ""


def _steps(inputs: np.ndarray | None) -> Iterator[Step]:
    yield "absolute values", np.abs
    yield "the positive part", lambda values: np.maximum(values, 0)
    yield "each sample from 0 to 1", _to_unit_range
    yield (
        "each sample divided by its largest magnitude",
        lambda values: values / _nonzero(np.abs(values).max(1, keepdims=True)),
    )
    if inputs is not None:
        yield "times the inputs", lambda values: values * inputs
    yield "the samples in reverse order", lambda values: values[::-1]


def _to_unit_range(values: np.ndarray) -> np.ndarray:
    low = values.min(1, keepdims=True)
    return (values - low) / _nonzero(values.max(1, keepdims=True) - low)


def _nonzero(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, 1, values)


def _factor(values: np.ndarray, others: np.ndarray) -> float:
    """The number that brings the values closest to the others."""
    size = float((values * values).sum())
    return float((values * others).sum() / size) if size else 0.0


def _fits(found: np.ndarray, others: np.ndarray, within: float) -> bool:
    return max(map(relative_gap, found, others), default=0.0) <= within
