"""Explains again, for Quantus: perturbed inputs, other targets, changed weights, by the attributions' own method."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import cfi_core as cfi
from cfi_core import Attribution
from cfi_core.contract import Target
from cfi_core.errors import ArgumentError
from cfi_core.silence import without_warnings
from cfi_core.subject import Subject
from cfi_quantus.alignment import Alignment
from cfi_quantus.layout import Layout
from cfi_quantus.presentation import Presented, Randomisable

NAMES = (
    "method_key",
    "toolset",
    "layer",
    "neuron",
    "baselines",
    "init_args",
    "exec_args",
    "translator",
    "head",
    "defaults",
    "seed",
)
_APART = 1e-3


@dataclass(frozen=True, eq=False)
class Explanation:
    """The method that gave attributions, with all its arguments but inputs and target.

    Attributes:
        label: Of the attributions.
        arguments: Of `cfi.attribute`.
        known: They are those of the call that gave the values; otherwise they are tried on the given inputs first.
    """

    label: str
    arguments: Mapping[str, Any]
    known: bool = False

    def by(self, toolset: str) -> Explanation:
        """The same, with the toolset that was taken."""
        return replace(self, arguments={**self.arguments, "toolset": toolset})

    def explain(self, model: Any, inputs: Any, target: Any, **other: Any) -> Attribution:
        """Explains with it.

        Raises:
            ArgumentError: It needs a layer.
        """
        with without_warnings():  # what concerns the method was told with the attributions
            found = cfi.attribute(model, inputs=inputs, target=target, **{**self.arguments, **other})
        if not isinstance(found, Attribution):
            raise ArgumentError(f"{self.label} needs a layer to be explained again: pass explain={{'layer': …}}.")
        return found


def read_method(label: str, given: Any, seed: int) -> Explanation:
    """A method to explain by, as the user names it: a key, or arguments of `cfi.attribute`.

    Raises:
        ArgumentError: It is neither, or an argument is not one of the method's.
    """
    arguments = {"method_key": given} if isinstance(given, str) else given
    if not isinstance(arguments, Mapping) or "method_key" not in arguments:
        raise ArgumentError(f"The method {label!r} is a key, or a dict with method_key= and further arguments.")
    if unknown := sorted(set(arguments) - set(NAMES)):
        raise ArgumentError(f"The method {label!r} takes {', '.join(NAMES)}, not {', '.join(map(repr, unknown))}.")
    return Explanation(label, {"seed": seed, **arguments}, known=True)


def read_explanation(label: str, attributions: Any, given: Mapping[str, Any] | None) -> Explanation | None:
    """How to explain again what the attributions explain: as their provenance tells, and the user besides.

    Returns:
        None, if neither tells the method.

    Raises:
        ArgumentError: An argument is not one of `cfi.attribute`.
    """
    if unknown := sorted(set(given or {}) - set(NAMES)):
        raise ArgumentError(f"explain= takes {', '.join(NAMES)}, not {', '.join(map(repr, unknown))}.")
    found = _of(attributions) if isinstance(attributions, Attribution) else {}
    arguments = {**found, **(given or {})}
    if "method_key" not in arguments:
        return None
    for name in ("init_args", "exec_args"):
        arguments[name] = {**found.get(name, {}), **((given or {}).get(name) or {})}
    words = {"neuron": arguments.get("neuron"), **arguments["init_args"], **arguments["exec_args"]}
    if lost := [name for name, value in words.items() if value is _LOST]:
        raise ArgumentError(
            f"To explain again as {label} was explained, {', '.join(map(repr, lost))} must be known, of which the "
            f"provenance holds the text alone: pass explain={{…}} with it, or use cfi_quantus.table."
        )
    return Explanation(label, arguments)


_LOST = object()


def _of(attribution: Attribution) -> dict[str, Any]:
    """What the provenance tells; baselines and a head that was chosen stand not in it."""
    provenance = attribution.provenance
    words = {name: provenance.get(name, {}) for name in ("init_args", "exec_args")}
    layer = attribution.layer
    return {
        "method_key": attribution.method_key,
        "toolset": attribution.toolset,
        "layer": list(layer) if isinstance(layer, tuple) else layer,
        "neuron": _LOST if isinstance(neuron := provenance.get("neuron"), str) else neuron,
        **{name: {key: _value(text) for key, text in own.items()} for name, own in words.items()},
        "translator": list(attribution.route) or None,
        "defaults": provenance.get("defaults", "raw"),
        "seed": provenance.get("seed"),
    }


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _LOST


@dataclass(frozen=True, eq=False)
class Explainer:
    """What Quantus calls to explain again.

    Attributes:
        model: The user's.
        explanation: How; None if it is not known, which is an error when Quantus asks.
        subject: The model where Quantus has it.
        layout: Of the arrays before Quantus.
        alignment: How attributions are brought to the inputs.
        metric: Its label, for messages.
    """

    model: Any
    explanation: Explanation | None
    subject: Subject
    layout: Layout
    alignment: Alignment
    metric: str

    def __call__(self, model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        """Attributions before Quantus."""
        arrays = np.asarray(inputs).astype(self.subject.arrays[0].dtype)
        if isinstance(model, Presented) or model is self.subject.model:
            return self.of_users_model(arrays, targets)
        return self._of_copy(model.model if isinstance(model, Randomisable) else model, arrays, targets)

    def required(self) -> Explanation:
        """The explanation.

        Raises:
            ArgumentError: It is not known.
        """
        if self.explanation is None:
            raise ArgumentError(
                f"{self.metric} explains again, so it has to know how: pass attributions of cfi.attribute, or "
                f"explain={{'method_key': …, 'toolset': …}} with all arguments of the method."
            )
        return self.explanation

    def of_users_model(self, shown: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Attributions of the user's own model, in the way in which the given ones were made."""
        arrays = np.ascontiguousarray(self.layout.bring_home(shown))
        inputs = self.subject.users_inputs(arrays)
        found = self.required().explain(self.model, inputs, self._target(targets, self.subject.users_target))
        return self.alignment.align(self.metric, found, arrays.shape).show(self.layout)

    def check(self, given: np.ndarray, targets: np.ndarray) -> None:
        """Whether the explanation gives what was given.

        Raises:
            ArgumentError: It gives something else, so an argument is missing.
        """
        explanation = self.required()
        if explanation.known:
            return
        found = self.of_users_model(self.layout.show(self.subject.arrays[0]), targets)
        apart = float(np.abs(found - given).max() / (np.abs(given).max() or 1))
        if not apart <= _APART:
            raise ArgumentError(
                f"{self.metric} explains again, and {explanation.label} explained again on its own inputs differs by a "
                f"relative {apart:.1e}: an argument is not known. Pass explain= with those that the provenance does "
                f"not hold (baselines, head, init_args, exec_args), or use cfi_quantus.table."
            )

    def _of_copy(self, copy: Any, arrays: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Attributions of a changed copy of the model, which has the axes before Quantus itself."""
        explanation, subject = self.required(), self.subject
        given = {**subject.to_layout(explanation.arguments), "translator": None}
        found = explanation.explain(copy, arrays, self._target(targets, subject.target), **given)
        dims = tuple(self.alignment.dims[axis] for axis in self.layout.order)
        values = replace(self.alignment, dims=dims).align(self.metric, found.values, arrays.shape)
        return values.show(replace(self.layout, order=tuple(range(len(dims)))))

    def _target(self, targets: np.ndarray, target: Target) -> Any:
        if self.subject.outputs[self.subject.position].ndim == 1:
            return target.output
        wanted = [int(one) for one in targets]
        return wanted if target.output is None else (target.output, wanted)
