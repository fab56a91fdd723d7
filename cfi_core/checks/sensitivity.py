"""Max-sensitivity: how far the explanation moves when the inputs hardly do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.checks.places import read_count, read_perturbations, read_share
from cfi_core.checks.question import Question
from cfi_core.checks.results import Check
from cfi_core.errors import InputError

_CITATION = "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations"


def measure_sensitivity(
    model: Any,
    attribution: Attribution,
    name: str,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    seed: int | None = None,
    draws: int = 10,
    radius: float = 0.02,
    perturbations: Any = None,
) -> Check:
    """The largest distance of the explanations of inputs nearby, relative to the size of the explanation.

    Each is made with the seed of the attribution, so that a method which draws draws the same.

    Args:
        model: The user's.
        attribution: What is checked.
        name: Of the metric.
        inputs: As for `check`.
        target: As for `check`.
        explain: As for `check`.
        seed: Of the perturbations.
        draws: How many inputs nearby are explained.
        radius: How far they are at most in each element, as a share of each sample's range.
        perturbations: What to add to the one input in the place of what would be drawn: an array of shape
            `(draws, *inputs.shape)`.

    Raises:
        ArgumentError: It cannot be explained again, or the inputs cannot be changed so.
        CFIError: As `cfi.attribute`.
    """
    question = Question.of(model, attribution, inputs, target, explain, seed)
    if any(array.dtype.kind != "f" for array in question.arrays):
        raise InputError("the inputs are whole numbers, which have no neighbours to explain.")
    radius, drawn = read_share("radius", radius, "the range of the inputs"), read_perturbations(perturbations, question)
    draws = read_count("draws", draws if drawn is None else len(drawn))
    generator = np.random.default_rng(question.seed)
    before = question.explain_as_given()
    size = _norm(before)
    if not size.any():
        raise InputError("the values are zero everywhere, so no change of them is small or large.")
    moved = np.zeros((draws, len(size)))
    for one in range(draws):
        nearby = [
            (array + (_noise(array, generator, radius) if drawn is None else drawn[one])).astype(array.dtype)
            for array in question.arrays
        ]
        after = question.explain(nearby)
        moved[one] = _norm([there - here for there, here in zip(after, before, strict=True)])
    return Check(
        name=name,
        scores=np.divide(moved.max(0), size, out=np.full_like(size, np.nan), where=size > 0),
        better="lower",
        means="largest change of the values for inputs nearby, relative to their size",
        reference=np.full(1, np.sqrt(2)),
        reference_is="unrelated values",
        settings={"draws": draws, "radius": radius if drawn is None else "given"},
        citation=_CITATION,
    )


def _noise(array: np.ndarray, generator: np.random.Generator, radius: float) -> np.ndarray:
    axes = tuple(range(1, array.ndim))
    width = array.max(axes, keepdims=True) - array.min(axes, keepdims=True)
    return generator.uniform(-radius, radius, array.shape) * width


def _norm(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Of all values of each sample together."""
    return np.sqrt(np.sum([(part.reshape(len(part), -1) ** 2).sum(1) for part in parts], axis=0))
