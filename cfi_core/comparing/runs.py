"""Runs of the cases, again with other settings, seeds and inputs: each is made once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for, as_array, framework_of_tensor
from cfi_core.api import attribute
from cfi_core.attribution import Attribution
from cfi_core.comparing.measures import make_comparable
from cfi_core.comparing.question import Case
from cfi_core.detection import detect_framework
from cfi_core.errors import CFIError, LayerError
from cfi_core.registry import registry
from cfi_core.silence import without_warnings

REPEATS = 4
"""Seeds with which a method is run whose values depend on the seed."""

NUDGES = 2
"""Times that the inputs are moved by their rounding."""

Spread = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation of values over seeds, one row per sample."""


def run(case: Case) -> Attribution:
    """One answer, with the warnings of the call.

    Raises:
        CFIError: As `cfi.attribute`; a missing layer is an error here.
    """
    found = attribute(**case.call)
    if not isinstance(found, Attribution):
        layers = ", ".join(layer.name for layer in found.layers)
        raise LayerError(f"{case.method.key} needs a layer: pass layer=, one of {layers}.")
    return found


class Runs:
    """What the cases give under changed settings.

    Attributes:
        answers: What each case gave as it was asked.
        count: How many further runs were made.
    """

    def __init__(self, answers: Mapping[str, Attribution]) -> None:
        self.answers, self.count = answers, 0
        self._kept: dict[Any, Attribution | None] = {}
        self._floors: dict[str, float] = {}
        self._spreads: dict[str, Spread | None] = {}

    def forget(self) -> None:
        """Lets go of all answers but those that were asked for."""
        self._kept.clear()

    def again(self, case: Case, settings: Mapping[str, Any]) -> Attribution | None:
        """The answer with other settings (see `Case.changed`); None if it fails with them."""
        if not settings:
            return self.answers[case.label]
        key = case.label, tuple(sorted((name, _key(value)) for name, value in settings.items()))
        if key not in self._kept:
            self.count += 1
            with without_warnings():
                try:
                    self._kept[key] = run(case.changed(settings))
                except CFIError:
                    self._kept[key] = None
        return self._kept[key]

    def other_method(self, case: Case) -> Attribution | None:
        """The raw answer of another method to the question of a case; None if it cannot answer."""
        known = ("inputs", "explain", "target", "head", "seed", "progress")
        key = case.method.key, case.model_name, case.target_name
        if key not in self._kept:
            with without_warnings():
                try:
                    found = attribute(case.model, case.method.key, **{name: case.arguments[name] for name in known})
                    self._kept[key] = found if isinstance(found, Attribution) else None
                except CFIError:
                    self._kept[key] = None
        return self._kept[key]

    def floor(self, case: Case) -> float:
        """How far the values move, relatively, when the inputs are moved by no more than their rounding."""
        if case.label not in self._floors:
            self._floors[case.label] = max((self._moved(case, seed) for seed in range(NUDGES)), default=0.0)
        return self._floors[case.label]

    def _moved(self, case: Case, seed: int) -> float:
        answer = self.answers[case.label]
        array = only_input(case, answer)
        if array is None:
            return 0.0
        arrays = (array, *(part for part, _ in answer.parts))
        units = [np.finfo(one.dtype).eps for one in arrays if one.dtype.kind == "f"]
        signs = np.random.default_rng(seed).choice([-1, 1], size=array.shape)
        nudged = (array * (1 + signs * max(units))).astype(array.dtype)
        found = self.again(case, {"inputs": like_inputs(case, nudged)})
        pair = make_comparable(answer, found) if found is not None else ""
        return 0.0 if isinstance(pair, str) else pair.difference

    def spread(self, case: Case, settings: Mapping[str, Any] | None = None) -> Spread | None:
        """Mean and standard deviation of the values over seeds, one row per sample; None of what draws nothing."""
        settings = settings or {}
        if not settings and case.label in self._spreads:
            return self._spreads[case.label]
        found = self._measure_spread(case, settings)
        if not settings:
            self._spreads[case.label] = found
        return found

    def _measure_spread(self, case: Case, settings: Mapping[str, Any]) -> Spread | None:
        base = self.again(case, settings)
        first = self.again(case, {**settings, "seed": self._seed(case, 1)})
        if base is None or first is None or rows_equal(base, first):
            return None
        more = [self.again(case, {**settings, "seed": self._seed(case, i)}) for i in range(2, REPEATS)]
        rows = np.array([rows_of(one) for one in (base, first, *more) if one is not None])
        return rows.mean(0), rows.std(0, ddof=1)

    def _seed(self, case: Case, i: int) -> int:
        return int((case.arguments["seed"] + 7919 * i) % 2**32)


def rows_of(attribution: Attribution) -> np.ndarray:
    """All values of each sample in a row."""
    return np.concatenate([np.asarray(one, np.float64).reshape(len(one), -1) for one, _ in attribution.parts], axis=1)


def rows_equal(one: Attribution, other: Attribution) -> bool:
    """Whether all values are the same, to the bit."""
    return all(np.array_equal(first, second) for (first, _), (second, _) in zip(one.parts, other.parts, strict=True))


def only_input(case: Case, answer: Attribution) -> np.ndarray | None:
    """The inputs, where they are one array of floating point numbers that can be changed."""
    given = case.arguments["inputs"]
    if isinstance(given, Mapping | tuple | list) or len(answer.inputs) != 1 or not hasattr(given, "shape"):
        return None
    array = answer.inputs[0]
    return array if array.dtype.kind == "f" and tuple(given.shape) == array.shape else None


def like_inputs(case: Case, array: np.ndarray) -> Any:
    """An array in the place of the inputs: a tensor where these are one, by which a plain function is known."""
    current, given = registry(), case.arguments["inputs"]
    name = framework_of_tensor(current, given)
    if name is None or detect_framework(current, case.model, given).name != name:
        return array
    return adapter_for(current, name).tensor(array, case.model)


def _key(value: Any) -> str:
    """What tells values of an argument apart: arrays and tensors by what they hold."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return repr((tuple(value.shape), as_array(registry(), value, "settings").tobytes()))
    return repr(value) if not hasattr(value, "shape") else f"{type(value).__name__} {id(value)}"
