"""Laws of attributions, checked by numbers on the model itself: which of two implementations keeps one, which not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.checking import check
from cfi_core.comparing.measures import relative_gap
from cfi_core.comparing.question import Case
from cfi_core.comparing.runs import Runs, like_inputs, only_input, rows_equal, rows_of
from cfi_core.completeness import SHARE
from cfi_core.detection import find_original
from cfi_core.errors import CFIError
from cfi_core.process import keep_process, use
from cfi_core.records import Arguments
from cfi_core.registry import registry
from cfi_core.routing import choose
from cfi_core.silence import without_warnings
from cfi_core.specs import Kind

KEPT, BROKEN = 1e-5, 1e-3
"""Relative to the largest value (or to the sum): up to the first a law is kept, from the second on it is broken."""

_CLOSE = 0.01
_PROBES = 3
_DRAWS = 3


@dataclass(frozen=True)
class Law:
    """A law that one of two implementations keeps and the other breaks.

    Attributes:
        name: `"completeness"`, `"sensitivity"`, `"symmetry"`, `"one sample at a time"` or `"dependence on settings"`.
        broken_by: Label of the one that breaks it.
        kept_by: Label of the other.
        evidence: What was measured.
    """

    name: str
    broken_by: str
    kept_by: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.broken_by} breaks {self.name}, which {self.kept_by} keeps: {self.evidence}"


def compare_laws(
    runs: Runs, cases: tuple[Case, Case], settings: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[Law, ...]:
    """Laws that one of two implementations keeps, with these settings of each, and the other breaks."""
    trial = _Trial(runs, cases, settings)
    draws = any(runs.spread(case, one) is not None for case, one in zip(cases, settings, strict=True))
    laws = [law for find in (_OF_DRAWS if draws else _LAWS) for law in find(trial)]
    return tuple({(law.name, law.broken_by): law for law in reversed(laws)}.values())[::-1]


@dataclass(frozen=True, eq=False)
class _Trial:
    """Both implementations, with the settings that they are tried with."""

    runs: Runs
    cases: tuple[Case, Case]
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def answers(self) -> tuple[Attribution, Attribution]:
        """What they answer with them."""
        first, second = (self.again(side, {}) for side in (0, 1))
        assert first is not None and second is not None
        return first, second

    def again(self, side: int, changes: Mapping[str, Any]) -> Attribution | None:
        """The answer of a side with some changes besides."""
        return self.runs.again(self.cases[side], {**self.settings[side], **changes})

    @property
    def labels(self) -> tuple[str, str]:
        """Of the cases."""
        return self.cases[0].label, self.cases[1].label

    @property
    def inputs(self) -> np.ndarray | None:
        """Where they are one array that can be changed; None otherwise."""
        return only_input(self.cases[0], self.answers[0])

    @property
    def of_inputs(self) -> bool:
        """Whether the values of both are those of the inputs' elements, or of their places without the channels."""
        return self.inputs is not None and all(
            len(one.parts) == 1 and one.layer is None and self._spread(one) is not None for one in self.answers
        )

    @property
    def is_summed(self) -> bool:
        """Whether each element has a value of its own, so that a sum of all counts none twice."""
        return self.of_inputs and all(one.parts[0][1] == one.input_dims[0] for one in self.answers)

    @property
    def values(self) -> list[np.ndarray]:
        """Of both, one for each element of the inputs; those of layers as they are."""
        return [self._values(one) for one in self.answers]

    def at(self, inputs: np.ndarray, target: Any, **changes: Any) -> list[np.ndarray] | None:
        """The values of both at other inputs; None if one fails there."""
        changed = {"inputs": like_inputs(self.cases[0], inputs), "target": target, **changes}
        found = [one for side in (0, 1) if (one := self.again(side, changed)) is not None]
        return [self._values(one) for one in found] if len(found) == 2 else None

    def _values(self, answer: Attribution) -> np.ndarray:
        spread = self._spread(answer)
        return np.asarray(answer.parts[0][0] if spread is None else spread, np.float64)

    def _spread(self, answer: Attribution) -> np.ndarray | None:
        """A map's value for each channel of its place; None of what has other axes than the inputs."""
        values, dims = answer.parts[0]
        if (
            len(answer.inputs) != 1
            or tuple(name for name in answer.input_dims[0] if name != "channel" or name in dims) != dims
        ):
            return None
        shape = answer.inputs[0].shape
        full = values if len(dims) == len(shape) else np.expand_dims(values, answer.input_dims[0].index("channel"))
        fits = all(size in (1, whole) for size, whole in zip(full.shape, shape, strict=True))
        return np.broadcast_to(full, shape) if fits else None

    def judge(self, name: str, gaps: Sequence[float], evidence: str) -> Iterator[Law]:
        """The law, if one side keeps it and the other breaks it."""
        for broken in (0, 1):
            kept = 1 - broken
            if gaps[kept] <= KEPT and gaps[broken] >= BROKEN:
                yield Law(name, self.labels[broken], self.labels[kept], evidence.format(gaps[broken]))


def _completeness(trial: _Trial) -> Iterator[Law]:
    """Values add up to what their method promises, which core measures; the other's sums are held against these."""
    measured = [answer.provenance.get("completeness", {}) for answer in trial.answers]
    known = [one.get("gap") for one in measured]
    if any("steps" in case.method.common.values() for case in trial.cases):
        return  # more steps bring the sums closer
    right = min((i for i in (0, 1) if known[i] is not None), key=lambda i: known[i], default=None)
    if right is None or any(case.method.kind is not Kind.ATTRIBUTION for case in trial.cases):
        return
    if known[right] > measured[right]["bound"] or rows_of(trial.answers[0]).shape != rows_of(trial.answers[1]).shape:
        return
    wrong = 1 - right
    gap = known[wrong]
    if gap is None:  # held against the sums of the one that promises, which absorbs by design what the other does
        if trial.cases[0].method.key != trial.cases[1].method.key:
            return
        rows = [rows_of(answer) for answer in trial.answers]
        gap = float(gaps_of(rows[wrong].sum(1), rows[right].sum(1), rows[right]).max())
    if gap >= BROKEN and gap >= 10 * known[right]:
        evidence = f"its values miss {measured[right]['against']} by {gap:.2%}, the other's by {known[right]:.1g}"
        yield Law("completeness", trial.labels[wrong], trial.labels[right], evidence)


def _weights(trial: _Trial) -> Iterator[Law]:
    """Completeness from a baseline close by, on the way from which the gradient hardly changes.

    However the points of a path are chosen there, the values add up if their weights do.
    """
    inputs, target = trial.inputs, _target(trial)
    takes = all("baselines" in (*case.method.required, *case.method.optional) for case in trial.cases)
    if inputs is None or target is None or not takes or not trial.is_summed:
        return
    base = (inputs * (1 - _CLOSE)).astype(inputs.dtype)
    found = trial.at(inputs, target, baselines=base)
    outputs = scores(trial.cases[0], inputs, target), scores(trial.cases[0], base, target)
    if found is None or outputs[0] is None or outputs[1] is None:
        return
    rows = [one.reshape(len(one), -1) for one in found]
    gaps = [float(gaps_of(one.sum(1), outputs[0] - outputs[1], one).max()) for one in rows]
    kept = min((0, 1), key=lambda i: gaps[i])
    if gaps[kept] <= BROKEN and gaps[1 - kept] >= 5 * BROKEN:
        evidence = (
            f"{_CLOSE:.0%} away from the inputs its values miss the difference of the outputs by {gaps[1 - kept]:.2%}"
        )
        yield Law("completeness", trial.labels[1 - kept], trial.labels[kept], evidence)


def gaps_of(sums: np.ndarray, expected: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of sums from what is expected: relative to what is expected, or to a share of all that cancels in it."""
    scale = np.maximum(np.abs(expected), SHARE * np.abs(rows).sum(1))
    return np.abs(sums - expected) / np.where(scale > 0, scale, 1)


def _sensitivity(trial: _Trial) -> Iterator[Law]:
    """What alone differs from the baseline and changes the output counts; what does not differ, or matter, does not."""
    inputs, target = trial.inputs, _target(trial)
    if inputs is None or target is None or not trial.of_inputs:
        return
    base = _baseline(trial.cases[0], inputs)
    yield from _dummies(trial, inputs, target)
    at_base = scores(trial.cases[0], base, target) if base is not None else None
    if base is None or at_base is None:
        return
    for place in _disputed(trial, inputs, base):
        probe = base.copy()
        probe[place] = inputs[place]
        found, outputs = trial.at(probe, target), scores(trial.cases[0], probe, target)
        if found is None or outputs is None or not _differ(outputs, at_base).all():
            continue
        laws = list(_of_probe(trial, place, found, float(np.abs(outputs - at_base).max())))
        if laws:
            yield laws[0]
            return


def _of_probe(trial: _Trial, place: tuple[np.ndarray, ...], found: list[np.ndarray], moved: float) -> Iterator[Law]:
    """What the values must be where one element of each sample alone differs from the baseline."""
    shares = [_shares(one) for one in found]
    there = [float(one[place].min()) for one in shares]
    for wrong in (0, 1):
        if there[wrong] <= KEPT and there[1 - wrong] >= BROKEN:
            element = tuple(int(axis[0]) for axis in place[1:])
            evidence = f"element {element} alone moves the output by {moved:.2g}, and gets nothing"
            yield Law("sensitivity", trial.labels[wrong], trial.labels[1 - wrong], evidence)
    for one in shares:
        one[place] = 0
    elsewhere = (float(shares[0].max()), float(shares[1].max()))
    yield from trial.judge(
        "sensitivity", elsewhere, "elements that do not differ from the baseline get {:.1%} of the largest value"
    )


def _dummies(trial: _Trial, inputs: np.ndarray, target: Any) -> Iterator[Law]:
    """Elements that one side gives nothing: the other must not give them anything, if the output leaves them alone."""
    shares = list(map(_shares, trial.values))
    outputs = scores(trial.cases[0], inputs, target)
    for wrong in (0, 1):
        doubtful = (shares[1 - wrong] == 0) & (shares[wrong] >= BROKEN)
        if outputs is None or not doubtful.any():
            continue
        draws = [np.where(doubtful, _shuffled(inputs, seed), inputs) for seed in range(_DRAWS)]
        others = [scores(trial.cases[0], one, target) for one in draws]
        if all(one is not None and np.array_equal(one, outputs) for one in others):
            most = shares[wrong][doubtful].max()
            evidence = f"elements that do not move the output get {most:.1%} of the largest value"
            yield Law("sensitivity", trial.labels[wrong], trial.labels[1 - wrong], evidence)
            return


def _symmetry(trial: _Trial) -> Iterator[Law]:
    """Elements that may be exchanged without changing the output get the same; tried where the model has such."""
    inputs, target = trial.inputs, _target(trial)
    if inputs is None or target is None or not trial.of_inputs:
        return
    noise, dims = _shuffled(inputs, 0), trial.answers[0].input_dims[0]
    for axis, order in _exchanges(inputs):
        if not all(_are_equal(trial, one, one.take(order, axis), target) for one in (inputs, noise)):
            continue
        there = [one.take(order, axis) for one in trial.values]
        words = f"places along {dims[axis]} can be exchanged without changing the output, and the values change by "
        laws = list(_as_before(trial, "symmetry", inputs.take(order, axis), target, there, words))
        if laws:
            yield laws[0]
            return


def _are_equal(trial: _Trial, inputs: np.ndarray, others: np.ndarray, target: Any) -> bool:
    """Whether the model gives the same for both, up to rounding."""
    one, other = (scores(trial.cases[0], each, target) for each in (inputs, others))
    return one is not None and other is not None and not _differ(one, other, 64).any()


def _one_by_one(trial: _Trial) -> Iterator[Law]:
    """The values of a sample do not depend on the others beside it."""
    inputs, target = trial.inputs, _target(trial)
    if inputs is None or target is None or len(inputs) < 2:
        return
    words = "a sample alone gets other values than among the others, by "
    for row in (0, len(inputs) - 1):
        only = slice(row, row + 1)
        alone = target[only] if isinstance(target, list) else target
        laws = list(
            _as_before(trial, "one sample at a time", inputs[only], alone, [one[only] for one in trial.values], words)
        )
        if laws:
            yield laws[0]
            return


def _as_before(
    trial: _Trial, name: str, inputs: np.ndarray, target: Any, expected: Sequence[np.ndarray], words: str
) -> Iterator[Law]:
    """The law that the values at these inputs are those that are expected."""
    found = trial.at(inputs, target)
    if found is None or any(one.shape != other.shape for one, other in zip(found, expected, strict=True)):
        return
    gaps = [relative_gap(one.ravel(), other.ravel()) for one, other in zip(found, expected, strict=True)]
    yield from trial.judge(name, gaps, words + "{:.1%}")


def _settings_count(trial: _Trial) -> Iterator[Law]:
    """A number that the user gives in the toolset's words, and that counts on one side, counts on the other."""
    given = [case.own for case in trial.cases]
    words = [
        {case.method.common.get(name, name): name for name in own} for case, own in zip(trial.cases, given, strict=True)
    ]
    for word in words[0].keys() & words[1].keys():
        numbers = [{name: own[name]} for name, own in zip((words[0][word], words[1][word]), given, strict=True)]
        if any(
            isinstance(value, bool) or not isinstance(value, int | float) for one in numbers for value in one.values()
        ):
            continue
        twice = [trial.again(side, {name: 2 * value for name, value in numbers[side].items()}) for side in (0, 1)]
        moved = [one is None or not rows_equal(one, answer) for one, answer in zip(twice, trial.answers, strict=True)]
        if None not in twice and moved[0] != moved[1]:
            wrong = moved.index(False)
            evidence = f"twice the {words[wrong][word]} gives the same values, to the last bit"
            yield Law("dependence on settings", trial.labels[wrong], trial.labels[1 - wrong], evidence)


_OF_DRAWS = (_completeness, _settings_count)
"""Of values that are drawn: other laws hold for their mean alone."""

_LAWS = (_completeness, _weights, _sensitivity, _symmetry, _one_by_one, _settings_count)


# what they are made of


def scores(case: Case, inputs: np.ndarray, target: Any) -> np.ndarray | None:
    """What the user's own model gives for the target, one value for each sample; None where it cannot be told."""
    current = registry()
    arguments = Arguments(**{**case.call, "inputs": like_inputs(case, inputs), "target": target})
    with keep_process(current), without_warnings():
        try:
            methods = (case.method,)
            original = find_original(current, arguments, methods)
            choice = choose(current, methods, original, arguments.translator)
            use(current, original, choice.routes, choice.toolset_framework)
            call = check(current, arguments, original, choice)
        except CFIError:
            return None
    if call.target is None or call.target.function is not None:
        return None
    outputs = np.asarray(call.output_arrays[call.output], np.float64)
    if call.target.index is None:
        return outputs.reshape(-1) if outputs.size == len(inputs) else None
    indices = call.target.indices(len(inputs))
    return np.array([np.sum(row[index]) for row, index in zip(outputs, indices, strict=True)])


def _shares(values: np.ndarray) -> np.ndarray:
    """Of each sample's largest magnitude."""
    sizes = np.abs(values.astype(np.float64))
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True)
    return sizes / np.where(largest > 0, largest, 1)


def _shuffled(inputs: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(inputs.ravel()).reshape(inputs.shape)


def _differ(one: np.ndarray, other: np.ndarray, units: float = 8) -> np.ndarray:
    """Where outputs differ by more than the rounding of single precision."""
    return np.abs(one - other) > units * np.finfo(np.float32).eps * np.maximum(np.abs(one), np.abs(other))


def _target(trial: _Trial) -> Any:
    return fixed_target(trial.cases[0], trial.answers[0])


def fixed_target(case: Case, answer: Attribution) -> Any:
    """The target in numbers, so that it stays the same at other inputs; None if it cannot be given so."""
    asked: Any = case.arguments["target"]
    told: Any = answer.provenance.get("target")
    if isinstance(asked, int | list) or not isinstance(told, tuple):
        return asked if isinstance(asked, int | list) else None
    if told and all(isinstance(one, tuple) for one in told):
        return [one[0] if len(one) == 1 else one for one in told]
    return told[0] if len(told) == 1 and isinstance(told[0], int) else told


def _baseline(case: Case, inputs: np.ndarray) -> np.ndarray | None:
    given = case.arguments["baselines"]
    if given is None:
        return np.zeros_like(inputs)
    if isinstance(given, int | float):
        return np.full_like(inputs, given)
    if not isinstance(given, np.ndarray) or given.shape[1:] != inputs.shape[1:] or len(given) not in (1, len(inputs)):
        return None
    return np.broadcast_to(given, inputs.shape).astype(inputs.dtype)


def _disputed(trial: _Trial, inputs: np.ndarray, base: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Of each sample an element on which the two are furthest apart, and then others."""
    one, other = map(_shares, trial.values)
    sizes = np.where(inputs != base, np.abs(one - other), -1).reshape(len(inputs), -1)
    order = np.argsort(-sizes, axis=1)
    for rank in range(min(_PROBES, sizes.shape[1])):
        elements = np.unravel_index(order[:, rank * sizes.shape[1] // _PROBES], inputs.shape[1:])
        yield (np.arange(len(inputs)), *elements)


def _exchanges(inputs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Orders along each axis: the other way round, and with the first two exchanged."""
    for axis in range(1, inputs.ndim):
        places = np.arange(inputs.shape[axis])
        if len(places) > 1:
            yield axis, places[::-1]
            yield axis, np.array([1, 0, *places[2:]])
