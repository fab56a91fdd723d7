"""Infidelity: how well the values tell what the output does when the inputs are perturbed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfi_core.adapters import as_array
from cfi_core.attribution import Attribution
from cfi_core.checks.places import (
    READINGS,
    Places,
    read_choice,
    read_count,
    read_perturbations,
    read_share,
    reading_of,
    usual_baseline,
)
from cfi_core.checks.question import Arrays, Question
from cfi_core.checks.results import Check
from cfi_core.errors import InputError
from cfi_core.registry import registry

_CITATION = "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations"


def measure_infidelity(
    model: Any,
    attribution: Attribution,
    name: str,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    seed: int | None = None,
    draws: int = 50,
    noise: float = 0.1,
    baseline: Any = None,
    reading: str | None = None,
    perturbations: Any = None,
) -> Check:
    """The mean square of what the values predict less what the output does, relative to the square of the latter.

    Values that are gradients predict the change for noise `I` as `sum(I * values)`, those that are contributions the
    drop when random places are replaced as the sum of what these were given. The prediction is scaled by the best
    factor for each sample, as in the paper, so 0 is perfect, and 1 no better than values that are zero everywhere.
    `settings["infidelity"]` has the unscaled numbers.

    Args:
        model: The user's; it gives outputs, and need have no gradients.
        attribution: What is checked.
        name: Of the metric.
        inputs: As for `check`.
        target: As for `check`.
        explain: As for `check`.
        seed: Of the perturbations.
        draws: How many perturbations of each sample.
        noise: Standard deviation of the noise, as a share of that of each sample.
        baseline: What is put at replaced places, as for `measure_removal`; None: what the method compares with
            (`explain={"baselines": …}`, or its default), else the mean of each channel where there are axes of space or
            time, else zero.
        reading: `"gradients"` or `"contributions"`; None: the first for methods that give gradients.
        perturbations: Noise to use in the place of what would be drawn, for gradients of models of one input:
            an array of shape `(draws, *inputs.shape)`, which is subtracted from the inputs.

    Raises:
        ArgumentError: An argument does not fit, or the inputs cannot be changed so.
        CFIError: The model cannot be run.
    """
    question = Question.of(model, attribution, inputs, target, explain, seed)
    places, generator = Places(question), np.random.default_rng(question.seed)
    reading = reading_of(question) if reading is None else read_choice("reading", reading, READINGS)
    drawn = read_perturbations(perturbations, question)
    draws = read_count("draws", draws if drawn is None else len(drawn))
    settings: dict[str, Any] = {"reading": reading, "draws": draws}
    if reading == "gradients":
        noise = read_share("noise", noise, "the standard deviation of the inputs")
        settings["noise"] = noise if drawn is None else "given"
        pairs = (_add_noise(places, generator, noise, None if drawn is None else drawn[one]) for one in range(draws))
    else:
        used = _own_baseline(places) if baseline is None else baseline
        settings["baseline"] = used if isinstance(used, str | int | float) else "given"
        others, values = places.baselines(used), places.values()
        pairs = (_replace(places, generator, others, values) for _ in range(draws))
    with question.scores() as score:
        before = score(places.arrays)
        told, drops = [], []
        for predicted, changed in pairs:
            told.append(predicted)
            drops.append(before - score(changed))
    scores, plain, zero = _compare(np.array(told), np.array(drops))
    return Check(
        name=name,
        scores=scores,
        better="lower",
        means="share of what the output does under perturbations that the values, scaled, do not tell",
        reference=np.ones(1),
        reference_is="values that are zero",
        settings={**settings, "infidelity": plain.tolist(), "infidelity of zero": zero.tolist()},
        citation=_CITATION,
    )


def _own_baseline(places: Places) -> Any:
    """What the method compared with, as far as it is known: contributions are of the way from there."""
    question = places.question
    given = question.own.get("baselines")
    if given is not None and not isinstance(given, str):
        return given if isinstance(given, int | float | tuple) else as_array(registry(), given, "baselines")
    promise = None if question.method is None else question.method.completeness
    return usual_baseline(places.dims[0], blur=False) if promise is None else float(promise.baseline)


def _compare(told: np.ndarray, drops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scaled and plain infidelity of each sample, and that of values that are zero; arrays of draws and samples."""
    plain, zero = ((told - drops) ** 2).mean(0), (drops**2).mean(0)
    size = (told**2).mean(0)
    scale = np.divide((told * drops).mean(0), size, out=np.zeros_like(size), where=size > 0)
    left = ((scale * told - drops) ** 2).mean(0)
    return np.divide(left, zero, out=np.full_like(zero, np.nan), where=zero > 0), plain, zero


def _add_noise(
    places: Places, generator: np.random.Generator, share: float, given: Any
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What values that are gradients predict, and the inputs without the noise."""
    told, changed = np.zeros(places.samples), []
    for (values, _), array in zip(places.question.attribution.parts, places.arrays, strict=True):
        if array.dtype.kind != "f" or values.shape != array.shape:
            raise InputError(
                f"values of shape {values.shape} are no gradients of inputs of shape {array.shape} and type "
                f"{array.dtype}: pass reading='contributions'."
            )
        axes = tuple(range(1, array.ndim))
        spread = array.std(axes, keepdims=True, dtype=np.float64)
        drawn = generator.normal(size=array.shape) * share * spread if given is None else np.asarray(given)
        after = (array - drawn).astype(array.dtype)
        # What was really taken away, in the type of the inputs.
        told += ((array.astype(np.float64) - after) * values).sum(axes)
        changed.append(after)
    return told, changed


def _replace(
    places: Places, generator: np.random.Generator, others: Arrays, values: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What contributions predict, and the inputs with random places replaced: any share of them."""
    marked = generator.random(values.shape) < generator.random((len(values), 1))
    return (values * marked).sum(1), places.exchange(marked, others)
