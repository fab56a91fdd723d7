"""Deletion and insertion: the output while places are taken away, or put back, the most important first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.checks.places import READINGS, Places, read_choice, read_count, reading_of, usual_baseline
from cfi_core.checks.question import Question, Score
from cfi_core.checks.results import Check, Curve

_CITATION = "Petsiuk, Das & Saenko 2018, RISE: Randomized Input Sampling for Explanation of Black-box Models"


def measure_removal(
    model: Any,
    attribution: Attribution,
    name: str,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    seed: int | None = None,
    baseline: Any = None,
    steps: int = 20,
    orders: int = 5,
    reading: str | None = None,
) -> Check:
    """The area under the curve of what is explained, over the share of places that were changed.

    Args:
        model: The user's; it gives outputs, and need have no gradients.
        attribution: What is checked.
        name: `"deletion"`, which begins at the inputs, or `"insertion"`, which begins at the baseline.
        inputs: As for `check`.
        target: As for `check`.
        explain: As for `check`.
        seed: Of what is random: places with equal values, and random orders.
        baseline: What stands for nothing: `"zero"`, `"mean"` (of each channel), `"blur"`, a number, or an array that
            goes with the inputs (of several inputs a tuple of such). None: the mean for deletion and blur for insertion
            where there are axes of space or time, else zero.
        steps: How many times places are changed.
        orders: How many random orders the chance line is the mean of.
        reading: `"gradients"` puts places in the order of their absolute values, `"contributions"` in that of the
            values; None: the first for methods that give gradients.

    Raises:
        ArgumentError: An argument does not fit, or the inputs cannot be changed so.
        CFIError: The model cannot be run.
    """
    question = Question.of(model, attribution, inputs, target, explain, seed)
    places, generator = Places(question), np.random.default_rng(question.seed)
    steps, orders = read_count("steps", steps), read_count("orders", orders)
    reading = reading_of(question) if reading is None else read_choice("reading", reading, READINGS)
    inserts = name == "insertion"
    used = usual_baseline(places.dims[0], blur=inserts) if baseline is None else baseline
    order = places.order(generator, absolute=reading == "gradients")
    others = places.baselines(used)
    cuts = np.unique(np.linspace(0, places.count, min(steps, places.count) + 1).round().astype(int))
    with question.scores() as score:
        found = _curve(places, score, order, others, cuts, inserts)
        random = [_curve(places, score, places.random_order(generator), others, cuts, inserts) for _ in range(orders)]
    shares, chance = cuts / places.count, np.mean(random, axis=0)
    scores, reference = np.trapezoid(found, shares, axis=1), np.trapezoid(chance, shares, axis=1)
    better = "higher" if inserts else "lower"
    gain = (scores - reference).mean() * (1 if inserts else -1)
    error = np.trapezoid(np.mean(random, axis=1), shares, axis=1).std() / np.sqrt(orders)
    way = "put in" if inserts else "taken out"
    return Check(
        name=name,
        scores=scores,
        better=better,
        means=f"area under the explained output while places are {way}, the most important first",
        reference=reference,
        reference_is="random order",
        verdict="" if gain > error else "the order of the values is not clearly better than a random one",
        place="share of places",
        places=tuple(shares.tolist()),
        curves=(Curve("order of the values", found), Curve("random order", chance, is_reference=True)),
        settings={
            "baseline": used if isinstance(used, str | int | float) else "given",
            "order": "absolute values" if reading == "gradients" else "values",
            "steps": len(cuts) - 1,
            "random orders": orders,
            "explained": attribution.provenance.get("explained"),
        },
        citation=_CITATION,
    )


def _curve(
    places: Places, score: Score, order: np.ndarray, others: list[np.ndarray], cuts: np.ndarray, inserts: bool
) -> np.ndarray:
    """One row for each sample, one column for each cut."""
    marked = np.full(order.shape, inserts)
    columns, done = [], 0
    for cut in cuts:
        np.put_along_axis(marked, order[:, done:cut], not inserts, axis=1)
        columns.append(score(places.exchange(marked, others)))
        done = int(cut)
    return np.stack(columns, axis=1)
