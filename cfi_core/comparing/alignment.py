"""Which settings make two implementations differ: they are aligned, one and several at a time, and run again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.comparing.measures import Comparable, make_comparable
from cfi_core.comparing.question import OWN_ROLES, Case, same
from cfi_core.comparing.runs import Runs
from cfi_core.specs import Head, MethodSpec, Role

BUDGET = 48
"""Runs that the search may take for a pair, after which it is content with the best that it has found; a quarter where
two methods were asked for, which seldom are one."""

STEPS = 4
"""So many times more steps are taken to see whether two approximations approach each other."""

_WIDTH, _LARGEST = 3, 4
_GAIN = 4.0
"""A setting matches another one on the other side if with it the difference is at least so many times smaller."""


@dataclass(frozen=True, eq=False)
class Setting:
    """An argument of one side, and another value for it.

    Attributes:
        side: 0 or 1.
        name: Of the argument, in the toolset's words; or `head`, `baselines`.
        was: Its value as the case was asked.
        becomes: The other value.
        to_raw: The other value is that of the raw method.
        from_raw: The value as it was is that of the raw method, from which the other one departs.
    """

    side: int
    name: str
    was: Any
    becomes: Any
    to_raw: bool = False
    from_raw: bool = False


@dataclass(frozen=True, eq=False)
class Alignment:
    """What the search has found.

    Attributes:
        settings: The smallest set that explains the difference; the best one, where none does.
        remaining: Difference that remains with them; as it was without any.
        alone: What remains with one of all the settings that were tried, smallest first.
        without: For each of `settings`, what remains if it alone is left as it was.
        matched: For some of `settings`, one of the other side that does as much, and what remains with it.
        alike: Settings that depart from the raw method on one side as others do on the other side: to change one of
            them alone makes a difference.
    """

    settings: tuple[Setting, ...]
    remaining: float
    alone: tuple[tuple[Setting, float], ...]
    without: tuple[float, ...]
    matched: Mapping[int, tuple[Setting, float]]
    alike: tuple[Setting, ...] = ()


class Search:
    """The settings of two cases, and what remains of their difference with some of them."""

    def __init__(self, runs: Runs, cases: tuple[Case, Case]) -> None:
        self.runs, self.cases = runs, cases
        answers = tuple(runs.answers[case.label] for case in cases)
        self.settings = tuple(_list(cases, answers))
        self._known = [effective(case, answer) for case, answer in zip(cases, answers, strict=True)]
        alike = cases[0].method.key == cases[1].method.key
        self._most = runs.count + (BUDGET if alike else BUDGET // 4)

    def remains(self, settings: Sequence[Setting]) -> float:
        """The difference with these settings; infinite where a side fails, or the axes do not go together."""
        answers = self.answers(settings)
        if answers is None:
            return math.inf
        pair = self.match(answers)
        return math.inf if isinstance(pair, str) else pair.difference

    def match(self, answers: tuple[Attribution, Attribution]) -> Comparable | str:
        """Both in the same axes."""
        return make_comparable(*answers, same_model=self.cases[0].model is self.cases[1].model)

    def answers(self, settings: Sequence[Setting]) -> tuple[Attribution, Attribution] | None:
        """What both sides give with these settings."""
        sides = ({one.name: one.becomes for one in settings if one.side == side} for side in (0, 1))
        first, second = (self.runs.again(case, side) for case, side in zip(self.cases, sides, strict=True))
        return None if first is None or second is None else (first, second)

    def align(self, within: float) -> Alignment:
        """The smallest set of settings with which no more than `within` remains; or else the best that was found."""
        alone = [(one, self.remains([one])) for one in self.settings if self._may_go_on()]
        alone.sort(key=lambda pair: pair[1])  # one that fails alone may do with another
        raw = [one for one in self.settings if one.to_raw]
        works = bool(raw) and self.remains(raw) <= within
        chosen = self._smallest(raw, within) if works else self._grow(alone, within)
        without = tuple(self.remains([one for one in chosen if one is not left]) for left in chosen)
        matched = {i: found for i in range(len(chosen)) if (found := self._match(chosen, i, without[i]))}
        remaining = self.remains(chosen)
        left = [one for one in raw if one not in chosen] if remaining <= within else []
        alike = tuple(one for one in left if self.remains([*chosen, one]) > within)
        return Alignment(tuple(chosen), remaining, tuple(alone), without, matched, alike)

    def align_words(self, word: str) -> list[tuple[Setting, float]]:
        """What remains with each setting that is called so among toolsets, smallest first."""
        named = [one for one in self.settings if word_of(self.cases[one.side].method, one.name) == word]
        found = sorted(((one, self.remains([one])) for one in named), key=lambda pair: pair[1])
        return [pair for pair in found if pair[1] < math.inf]

    def with_more_steps(self) -> float:
        """What remains when both sides approximate more closely; infinite if one does not say in how many steps."""
        more = []
        for side, (case, known) in enumerate(zip(self.cases, self._known, strict=True)):
            names = [
                name
                for name, word in case.method.common.items()
                if word == "steps" and isinstance(known.get(name), int)
            ]
            more += [Setting(side, name, known[name], STEPS * known[name]) for name in names]
        return self.remains(more) if {one.side for one in more} == {0, 1} else math.inf

    def to_raw(self) -> list[Setting]:
        """What makes both sides raw where the user did not say otherwise, as far as they run so."""
        raw = [one for one in self.settings if one.to_raw and one.name not in self.cases[one.side].own]
        return raw if self.answers(raw) is not None else []

    def _smallest(self, settings: Sequence[Setting], within: float) -> list[Setting]:
        for size in range(1, len(settings)):
            tried = [(self.remains(one), list(one)) for one in combinations(settings, size) if self._may_go_on()]
            fits = [pair for pair in tried if pair[0] <= within]
            if fits:
                return min(fits, key=lambda pair: pair[0])[1]
        found = list(settings)
        for one in settings:
            left = [other for other in found if other is not one]
            found = left if left and self.remains(left) <= within else found
        return found

    def _grow(self, alone: Sequence[tuple[Setting, float]], within: float) -> list[Setting]:
        """Goes on from the best few sets of each size."""
        best: list[Setting] = []
        left = self.remains([])
        kept: list[list[Setting]] = [[]]
        for _ in range(_LARGEST):
            grown = [[*one, other] for one in kept for other, _ in alone if not _clashes(one, other)]
            tried = [(self.remains(one), one) for one in _distinct(grown) if self._may_go_on()]
            tried = sorted((pair for pair in tried if pair[0] < math.inf), key=lambda pair: pair[0])
            if tried and tried[0][0] < left:
                left, best = tried[0]
            if not tried or left <= within:
                break
            kept = [one for _, one in tried[:_WIDTH]]
        return best

    def _match(self, chosen: Sequence[Setting], place: int, without: float) -> tuple[Setting, float] | None:
        """What the other side can set instead of a setting."""
        rest = [one for one in chosen if one is not chosen[place]]
        others = [one for one in self.settings if one.side != chosen[place].side and not _clashes(rest, one)]
        tried = [(one, self.remains([*rest, one])) for one in others if not one.to_raw and self._may_go_on()]
        found = min(tried, key=lambda pair: pair[1], default=None)
        if found is not None and found[1] * _GAIN < without:
            return found
        if self._are_aligned(rest):
            return None
        return next(
            (pair for pair in sorted(tried, key=lambda pair: pair[1]) if self._are_aligned([*rest, pair[0]])), None
        )

    def _are_aligned(self, settings: Sequence[Setting]) -> bool:
        """Whether the values have the same axes by themselves."""
        answers = self.answers(settings)
        pair = "" if answers is None else self.match(answers)
        return not isinstance(pair, str) and not pair.done

    def _may_go_on(self) -> bool:
        return self.runs.count < self._most


def _clashes(settings: Sequence[Setting], other: Setting) -> bool:
    return any((one.side, one.name) == (other.side, other.name) for one in settings)


def _distinct(sets: Sequence[list[Setting]]) -> Iterator[list[Setting]]:
    known = set()
    for one in sets:
        key = frozenset(map(id, one))
        if key not in known:
            known.add(key)
            yield one


# which settings there are


def _list(cases: tuple[Case, Case], answers: tuple[Attribution, ...]) -> Iterator[Setting]:
    """Every argument that the sides may have otherwise, with the values that it may have instead."""
    known = [effective(case, answer) for case, answer in zip(cases, answers, strict=True)]
    words = [{word_of(case.method, name): name for name in _names(case.method)} for case in cases]
    listed: list[Setting] = []
    for side, (case, mine) in enumerate(zip(cases, known, strict=True)):
        raw = case.method.defaults.raw
        others: list[tuple[str, Any]] = [(name, raw[name]) for name in raw]
        others += [(name, not value) for name, value in mine.items() if isinstance(value, bool)]
        others += [(name, value) for name, values in case.method.choices.items() for value in values]
        others += _of_other_side(case, words[side], words[1 - side], known[1 - side], answers[side], mine)
        others += _uniform(case, cases[1 - side])
        for name, value in others:
            was = case.arguments.get(name) if name in case.arguments else mine.get(name)
            new = Setting(side, name, _head(case) if name == "head" else was, value, *_raw(raw, name, value, was))
            twice = any(one.side == side and one.name == name and same(one.becomes, value) for one in listed)
            if not twice and not (same(new.was, value) and name in {**mine, "head": None}):
                listed.append(new)
    yield from listed


def effective(case: Case, answer: Attribution) -> dict[str, Any]:
    """The own settings of a case as far as they are known: given, of the chosen defaults, or told in the provenance."""
    method, given = case.method, case.arguments
    told = {name.rpartition(".")[2]: value for name, value in answer.provenance.get("applied", {}).items()}
    of_init, of_exec = method.complete(given["defaults"], given["init_args"] or {}, given["exec_args"] or {})
    names, known = _names(method), {**told, **of_init, **of_exec}
    return {name: known[name] for name in names if name in known}


def _names(method: MethodSpec) -> list[str]:
    names = (name for name in (*method.init_args, *method.exec_args) if method.roles.get(name) in OWN_ROLES)
    return [name for name in dict.fromkeys(names) if name not in method.native_only]


def word_of(method: MethodSpec, name: str) -> str:
    """What an argument is called among toolsets: a shared word, or its own name."""
    return method.common.get(name, name)


def _of_other_side(
    case: Case,
    words: Mapping[str, str],
    other_words: Mapping[str, str],
    known: Mapping[str, Any],
    answer: Attribution,
    mine: Mapping[str, Any],
) -> Iterator[tuple[str, Any]]:
    """Values that the other side has for arguments with the same meaning, in the words of this one."""
    for word, name in words.items():
        # Strides that a toolset does not have are its windows: they lie side by side.
        theirs = other_words.get(word) or (other_words.get("window") if word == "stride" else None)
        if theirs is not None and theirs in known:
            value = (
                _translate_window(known[theirs], case, name, answer) if word in ("window", "stride") else known[theirs]
            )
            if isinstance(value, bool | int | float | str | tuple | None) and not isinstance(mine.get(name), bool):
                yield name, value
        elif word in ("noise", "noise share"):
            share = word == "noise share"
            theirs = other_words.get("noise" if share else "noise share")
            size = _mean_range(answer)
            if isinstance(known.get(theirs or ""), int | float) and size:
                yield name, known[theirs or ""] * (1 / size if share else size)


def _translate_window(value: Any, case: Case, name: str, answer: Attribution) -> Any:
    """A window for all axes of the inputs, or the side of a square, in the place of the other."""
    value = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if not answer.input_dims:
        return value
    sizes = dict(zip(answer.input_dims[0][1:], answer.inputs[0].shape[1:], strict=True))
    if isinstance(value, int) and case.method.roles.get(name) is Role.WINDOW:
        return tuple(size if axis == "channel" else min(value, size) for axis, size in sizes.items())
    if isinstance(value, tuple) and case.method.roles.get(name) is not Role.WINDOW:
        sides = {side for axis, side in zip(sizes, value, strict=False) if axis != "channel"}
        return sides.pop() if len(sides) == 1 else value
    return value


def _mean_range(answer: Attribution) -> float:
    """Of the inputs: how far the values of a sample go, on average."""
    return float(np.mean([np.ptp(one) for one in answer.inputs[0]])) if len(answer.inputs) == 1 else 0.0


def _uniform(case: Case, other: Case) -> Iterator[tuple[str, Any]]:
    """Where a softmax is explained, and the baselines, as the other side has them."""
    yield "head", str(_head(other))
    if "baselines" in (*case.method.required, *case.method.optional):
        theirs, mine = other.arguments["baselines"], case.arguments["baselines"]
        if theirs is not None and not same(mine, theirs):
            yield "baselines", theirs
        elif mine is None:
            yield "baselines", 0.0


def _head(case: Case) -> str:
    asked = case.arguments["head"]
    return asked or str(Head.OUTPUT if case.arguments["defaults"] == "toolset" else case.method.head)


def _raw(raw: Mapping[str, Any], name: str, value: Any, was: Any) -> tuple[bool, bool]:
    """Whether a setting makes its side raw, or departs from what is raw."""
    return (name in raw and same(raw[name], value), name in raw and same(raw[name], was))
