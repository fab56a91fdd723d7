"""Why two answers differ: rounding, other draws, settings, a step behind, a law that one breaks; or two methods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.comparing.alignment import STEPS, Alignment, Search, Setting
from cfi_core.comparing.comparison import Pair, Row, Verdict
from cfi_core.comparing.laws import Law, compare_laws, fixed_target, gaps_of, scores
from cfi_core.comparing.measures import Comparable, make_comparable, relative_gap
from cfi_core.comparing.processing import explain_by_processing
from cfi_core.comparing.question import Case
from cfi_core.comparing.runs import REPEATS, Runs, only_input, rows_of

AGREE = 1e-5
"""Largest relative difference of a sample up to which two answers agree."""

FLOORS = 4.0
"""So many times the movement by the inputs' rounding is rounding too: sums are taken in other orders."""

SIMPLER = ("saliency", "input_x_gradient")
"""What methods with rules of their own become where these do nothing."""

CONVERGES = 2.5
"""So many times smaller is the difference of two approximations of one integral with more steps."""

ERRORS = 3.0
"""Standard errors of the mean over the seeds up to which a difference may be by chance."""


def compare_pair(runs: Runs, cases: tuple[Case, Case], top: float, *, reasons: bool) -> Pair:
    """Measures two answers, and finds the reason of their difference."""
    answers = (runs.answers[cases[0].label], runs.answers[cases[1].label])
    same_model = cases[0].model is cases[1].model
    found = make_comparable(*answers, same_model=same_model)
    labels = (cases[0].label, cases[1].label)
    if isinstance(found, str):
        return Pair(*labels, Verdict.INCOMPARABLE, found, same_model=same_model)
    pair = Pair(
        *labels,
        verdict=Verdict.AGREE,
        reason="",
        measures=found.measure(top),
        samples=found.measure_each(top),
        difference=found.difference,
        same_model=same_model,
        made_comparable=found.done,
    )
    if pair.difference <= AGREE:
        return pair
    pair = replace(pair, verdict=Verdict.DIFFER)
    if cases[0].target_name != cases[1].target_name:
        return replace(pair, verdict=Verdict.TARGETS)
    if not same_model:
        apart = _outputs_apart(runs, cases) if reasons else None
        if apart is None or apart > AGREE:
            words = "" if apart is None else f"what is explained of them differs by {apart:.1e}"
            return replace(pair, verdict=Verdict.MODELS, reason=words)
    return _Reason(runs, cases, pair, Search(runs, cases)).find() if reasons else pair


def _outputs_apart(runs: Runs, cases: tuple[Case, Case]) -> float | None:
    """By how much what is explained of two models differs; None where it cannot be told."""
    outputs = []
    for case in cases:
        inputs, target = only_input(case, runs.answers[case.label]), fixed_target(case, runs.answers[case.label])
        outputs.append(None if inputs is None or target is None else scores(case, inputs, target))
    if outputs[0] is None or outputs[1] is None or outputs[0].shape != outputs[1].shape:
        return None
    return relative_gap(outputs[0], outputs[1])


def _rounding(floor: float) -> str:
    return f"the inputs' rounding alone moves the values by up to {floor / FLOORS:.1e}"


@dataclass(frozen=True, eq=False)
class _Reason:
    """The search for the reason why two implementations of one question differ."""

    runs: Runs
    cases: tuple[Case, Case]
    pair: Pair
    search: Search

    def find(self) -> Pair:
        pair, labels = self.pair, (self.pair.first, self.pair.second)
        floor = max(AGREE, FLOORS * max(map(self.runs.floor, self.cases)))
        pair = replace(pair, floor=floor)
        if pair.difference <= floor:
            return replace(pair, verdict=Verdict.ROUNDING, reason=_rounding(floor))
        chance = self._chance({}, {})
        if chance is not None and chance[0] <= ERRORS:
            reason = f"another seed alone moves them by {chance[1]:.1e}"
            more = _tried(self.search.align_words("samples"), labels)
            return replace(pair, verdict=Verdict.SAMPLING, reason=reason, sampling=chance[1], rows=more)
        within = floor if chance is None else max(floor, 2 * chance[1])
        found = self.search.align(within)
        pair = replace(pair, tried=_tried(found.alone, labels))
        if found.remaining <= max(within, pair.difference / 2):
            pair = replace(pair, rows=_rows(found, labels), remaining=found.remaining)
        if found.remaining <= floor or (found.settings and self._by_chance(found)):
            return self._explained(pair, found)
        law, words = self._laws(), self._processed(found, floor)
        pair = replace(pair, laws=law, sampling=None if chance is None else chance[1])
        if self.cases[0].method.key != self.cases[1].method.key:
            return replace(pair, verdict=Verdict.METHODS, reason=words or self._two_methods(law))
        if words:
            return replace(pair, verdict=Verdict.PROCESSED, reason=words, rows=(), remaining=None)
        if not law and (left := self.search.with_more_steps()) * CONVERGES <= pair.difference:
            reason = f"of one integral: with {STEPS} times the steps on both sides {left:.1e} remains{self._sums()}"
            return replace(pair, verdict=Verdict.CONVERGES, reason=reason)
        return replace(pair, verdict=Verdict.DIFFER, reason=self._unexplained(found, chance))

    def _explained(self, pair: Pair, found: Alignment) -> Pair:
        """By settings; where these change how a method works, laws say which side does right."""
        decides = any(not one.to_raw and not self._is_of_question(one) for one in found.settings)
        laws = compare_laws(self.runs, self.cases, ({}, {})) if decides and self.pair.same_model else ()
        names = ", ".join(dict.fromkeys(one.name for one in found.settings))
        alike = ", ".join(f"{one.name}={show(one.was)} of {self.cases[one.side].label}" for one in found.alike)
        reason = f"{names} ({alike} {'do' if len(found.alike) > 1 else 'does'} the same)" if alike else names
        return replace(pair, verdict=Verdict.SETTINGS, reason=reason, laws=laws)

    def _is_of_question(self, one: Setting) -> bool:
        """Whether a setting is part of what is asked (a window, a baseline), so that either side is right."""
        case = self.cases[one.side]
        return one.name in case.arguments or one.name in case.method.common

    def _by_chance(self, found: Alignment) -> bool:
        chance = self._chance(*_of_sides(found))
        return chance is not None and chance[0] <= ERRORS

    def _chance(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, float] | None:
        """The difference of the means over seeds in standard errors, and how far one seed moves the values."""
        means, moved = [], []
        for case, settings in zip(self.cases, (first, second), strict=True):
            answer, spread = self.runs.again(case, settings), self.runs.spread(case, settings)
            if answer is None:
                return None
            means.append(answer if spread is None else _like(answer, spread[0]))
            moved.append(0.0 if spread is None else float(np.linalg.norm(spread[1])))
        pair = self.search.match((means[0], means[1]))
        if not any(moved) or isinstance(pair, str) or pair.done:
            return None
        one, other = pair.rows
        deviation = float(np.hypot(moved[0], moved[1]))
        size = float(max(np.linalg.norm(one), np.linalg.norm(other)))
        return float(np.linalg.norm(one - other)) / (deviation / np.sqrt(REPEATS)), deviation / (size or 1.0)

    def _processed(self, found: Alignment, within: float) -> str:
        """One side's values as the other's with a step or two behind: as asked, or with settings that are aligned."""
        sets = [(), found.settings, *((one,) for one, _ in found.alone)]
        for settings in sets:
            answers = self.search.answers(settings)
            if answers is not None and (words := self._process(answers, within)):
                given = ", ".join(f"{one.name}={show(one.becomes)}" for one in settings)
                return f"with {given}, {words}" if given else words
        return ""

    def _process(self, answers: tuple[Attribution, Attribution], within: float) -> str:
        pair, labels = self.search.match(answers), (self.pair.first, self.pair.second)
        if isinstance(pair, str) or pair.done:
            return ""
        inputs = only_input(self.cases[0], answers[0]) if self.pair.same_model else None
        fits = inputs is not None and all(one.parts[0][0].shape == inputs.shape for one in answers)
        flat = inputs.reshape(len(inputs), -1) if inputs is not None and fits else None
        for mine, theirs in ((0, 1), (1, 0)):
            if words := explain_by_processing(pair.rows[mine], pair.rows[theirs], flat, within):
                return f"the values of {labels[theirs]} are those of {labels[mine]}: {words}"
        return ""

    def _sums(self) -> str:
        """By how much the sums of both miss what the one promises that keeps its promise best."""
        answers = [self.runs.answers[label] for label in (self.pair.first, self.pair.second)]
        known = [one.provenance.get("completeness", {}).get("gap") for one in answers]
        right = min((i for i in (0, 1) if known[i] is not None), key=lambda i: known[i], default=None)
        if right is None or rows_of(answers[0]).shape != rows_of(answers[1]).shape:
            return ""
        rows = [rows_of(one) for one in answers]
        other = float(gaps_of(rows[1 - right].sum(1), rows[right].sum(1), rows[right]).max())
        gaps = {self.cases[right].label: known[right], self.cases[1 - right].label: max(other, known[1 - right] or 0.0)}
        return "; their sums miss the difference of the outputs by " + " and ".join(
            f"{gap:.1e} ({label})" for label, gap in gaps.items()
        )

    def _laws(self) -> tuple[Law, ...]:
        """Of the raw methods, where both sides can be had so."""
        if not self.pair.same_model:
            return ()
        raw = self.search.to_raw()
        sides = tuple({one.name: one.becomes for one in raw if one.side == side} for side in (0, 1))
        return compare_laws(self.runs, self.cases, (sides[0], sides[1]))

    def _two_methods(self, laws: tuple[Law, ...]) -> str:
        keys = " and ".join(case.method.key for case in self.cases)
        return f"two methods: {keys}" + ("" if laws else "; no law that was tried tells them apart")

    def _unexplained(self, found: Alignment, chance: tuple[float, float] | None) -> str:
        words = [
            f"none of {len(found.alone)} settings that were tried explains it"
            if found.alone
            else "no setting explains it"
        ]
        if chance is not None:
            words.append(f"it is {chance[0]:.0f} standard errors of the draws")
        words += self._impostor()
        answers = [self.runs.answers[label] for label in (self.pair.first, self.pair.second)]
        below = [np.mean([(part < 0).mean() for part, _ in one.parts]) for one in answers]
        for one, other in ((0, 1), (1, 0)):
            if not below[one] and below[other]:
                labels = (self.pair.first, self.pair.second)
                words.append(
                    f"{labels[one]} has no negative value, {below[other]:.0%} of {labels[other]}'s are negative"
                )
        return "; ".join(words)

    def _impostor(self) -> Iterator[str]:
        """A simpler method whose values one side gives, where the other does not."""
        for key in SIMPLER:
            case = replace(self.cases[0], method=replace(self.cases[0].method, key=key))
            if key in {one.method.key for one in self.cases}:
                continue
            plain = self.runs.other_method(case)
            pairs = [plain and make_comparable(plain, self.runs.answers[one.label]) for one in self.cases]
            same = [isinstance(pair, Comparable) and pair.difference <= AGREE for pair in pairs]
            if plain is not None and same[0] != same[1]:
                side = self.cases[same.index(True)]
                yield f"{side.label} gives the values of {key} ({plain.toolset}), as if its rules attached to nothing"
                return


def _like(answer: Attribution, rows: np.ndarray) -> Attribution:
    """The attribution with other values, given in rows."""
    ends = np.cumsum([part[0].size for part, _ in answer.parts])[:-1]
    parts = np.split(rows, ends, axis=1)
    shaped = [part.reshape(own.shape) for part, (own, _) in zip(parts, answer.parts, strict=True)]
    return replace(answer, values=answer.like_values(shaped))


def _of_sides(found: Alignment) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = ({one.name: one.becomes for one in found.settings if one.side == side} for side in (0, 1))
    return first, second


def _rows(found: Alignment, labels: tuple[str, str]) -> tuple[Row, ...]:
    """The settings that were found, for reading."""
    alone = {id(one): left for one, left in found.alone}
    rows = []
    for i, (one, without) in enumerate(zip(found.settings, found.without, strict=True)):
        row = _row(one, alone.get(id(one), math.inf), labels)
        other, left = found.matched.get(i, (None, 0.0))
        match = f"{other.name}={show(other.becomes)} of {labels[other.side]} leaves {left:.1e}" if other else ""
        rows.append(replace(row, without=without if len(found.settings) > 1 else None, matched=match))
    return tuple(rows)


def _row(one: Setting, alone: float, labels: tuple[str, str]) -> Row:
    return Row(one.name, labels[one.side], show(one.was), show(one.becomes), alone)


def _tried(alone: Sequence[tuple[Setting, float]], labels: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(_row(one, left, labels) for one, left in alone if left < math.inf)


def show(value: Any) -> str:
    """A value in short; of a function that is named by its place, the name."""
    if hasattr(value, "shape"):
        return f"array of shape {tuple(value.shape)}"
    if isinstance(value, str) and ":" in value:
        return value.rpartition(":")[2]
    text = value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 24 else text[:23] + "…"
