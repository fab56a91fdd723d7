"""One question to several implementations, methods, targets or models: how far apart the answers are, and why."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from cfi_core.attribution import Attribution
from cfi_core.comparing.comparison import Comparison, Pair, Verdict
from cfi_core.comparing.measures import TOP
from cfi_core.comparing.question import Case, ask
from cfi_core.comparing.reasons import compare_pair
from cfi_core.comparing.runs import Runs, run
from cfi_core.errors import FOREIGN, ArgumentError, CFIError, summary
from cfi_core.progress import phase, show
from cfi_core.records import check_progress
from cfi_core.registry import registry
from cfi_core.specs import Translator

__all__ = ["Comparison", "compare"]


def compare(
    model: Any,
    method_key: Any,
    toolset: str | Sequence[str] | None = None,
    *,
    inputs: Any = None,
    explain: Sequence[str] | None = None,
    feature_names: Any = None,
    target: Any = None,
    layer: Any = None,
    reshape: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    defaults: str = "raw",
    seed: int | None = None,
    top: float = TOP,
    reasons: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Asks several implementations, methods, targets or models the same, and finds out why the answers differ.

    Arguments and their meaning are those of `cfi.attribute`, but for these:

    Args:
        model: A model; or several, as a list or as a dict with a name for each.
        method_key: A method; or several, as a list or as a dict with a name for each. Instead of a key a dict of
            arguments of `cfi.attribute` that are of this method alone, with its `method_key`:
            `{"plain": "saliency", "smooth": {"method_key": "smooth_grad", "toolset": "zennit"}}`.
        toolset: The toolsets to ask; None asks all that offer the method.
        inputs: Of several models with axes in different orders (channels first or last) in those of the first one; or
            a dict by the names of the models, as `layer`, `target`, `baselines`, `neuron` and own arguments may be.
        explain: As there.
        feature_names: As there.
        target: As there; several in a dict with a name for each, or in a list whose length is not the number of
            samples (of which a list has one target each).
        layer: Given to the methods that take one, as `neuron`, `baselines` and own arguments are; `notes` tells.
        reshape: As there.
        neuron: As there.
        baselines: As there.
        init_args: As there.
        exec_args: As there.
        translator: As there.
        head: As there.
        defaults: As there.
        seed: For all; None draws one.
        top: Share of the features whose overlap is taken.
        reasons: Whether to look for the reasons, which takes further runs of each method (some dozens where settings
            have to be aligned); otherwise answers are measured alone.
        progress: As there.

    Returns:
        The answers, and for every two of them the measures and the reason: print it.

    Raises:
        ArgumentError: There is nothing to compare, or fewer than two gave an answer.
        CFIError: As `cfi.attribute`.
    """
    given = dict(locals())
    models, methods, toolsets = (given.pop(name) for name in ("model", "method_key", "toolset"))
    if not 0 < given.pop("top") <= 1:
        raise ArgumentError(f"top={top!r} is no share of the features: a number above 0, up to 1.")
    if inputs is None:
        raise ArgumentError("Nothing is compared without samples: pass inputs= with the sample axis first.")
    check_progress(progress)
    del given["reasons"]
    given["seed"] = secrets.randbits(31) if seed is None else seed
    question = ask(registry(), models, methods, toolsets, given)
    with show(progress):
        answers, refused = _run(question.cases)
        cases = [case for case in question.cases if case.label in answers]
        pairs = tuple(_compare(Runs(answers), cases, top, reasons=reasons))
    notes = (*question.notes, *_odd_ones_out(cases, pairs))
    return Comparison(answers, pairs, refused, notes, top, given["seed"])


def _compare(runs: Runs, cases: Sequence[Case], top: float, *, reasons: bool) -> Iterator[Pair]:
    """Every two answers."""
    for both in combinations(cases, 2):
        try:
            with phase(f"comparing {both[0].label} and {both[1].label}"):
                pair = compare_pair(runs, both, top, reasons=reasons)
        except FOREIGN as error:  # of whatever is run again; the answers must not be lost with it
            why = f"the search for the reason failed ({summary(error)})"
            pair = replace(compare_pair(runs, both, top, reasons=False), reason=why)
        yield pair
        runs.forget()  # as many answers as a search makes may be large


def _run(cases: Sequence[Case]) -> tuple[dict[str, Attribution], dict[str, str]]:
    answers, refused, errors = {}, {}, list[CFIError]()
    for case in cases:
        try:
            answers[case.label] = run(case)
        except CFIError as error:
            refused[case.label] = str(error)
            errors.append(error)
    if len(answers) < 2:
        told = "; ".join(f"{label}: {why}" for label, why in refused.items())
        if len({str(error) for error in errors}) == 1 and not answers:
            raise errors[0]
        raise ArgumentError(f"Fewer than two gave an answer, so there is nothing to compare. {told}") from errors[0]
    return answers, refused


def _odd_ones_out(cases: Sequence[Case], pairs: Sequence[Pair]) -> list[str]:
    """Implementations that alone are apart from others of the same method, which go together."""
    notes = []
    for case in cases:
        others = [one.label for one in cases if one is not case and one.method.key == case.method.key]
        apart = [
            pair
            for pair in pairs
            if case.label in (pair.first, pair.second)
            and pair.first in [*others, case.label]
            and pair.second in [*others, case.label]
        ]
        among = [pair for pair in pairs if pair.first in others and pair.second in others]
        unexplained = all(pair.verdict in (Verdict.DIFFER, Verdict.PROCESSED) for pair in apart)
        if len(others) > 1 and unexplained and all(pair.agrees or pair.verdict is Verdict.SETTINGS for pair in among):
            notes.append(f"{case.label} stands alone: {' and '.join(others)} go together")
    return notes
