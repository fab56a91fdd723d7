"""Where a softmax at the model's end is explained: at the logits, or at the output as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_core.contract import Target
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.frameworks.structure import flatten
from cfi_core.planning import Plan
from cfi_core.specs import Head

_UNCUT = {
    "nowhere": "no target: the layer or unit itself",
    "output": "the model's output as it is",
    "function": "your function of the model's output as it is",
}


@dataclass(frozen=True, eq=False)
class AtHead:
    """A model that ends where the method explains it.

    Attributes:
        model: The model.
        explained: In words what is explained (for the provenance).
        warning: What the user should be told of it; empty if nothing.
    """

    model: Any
    explained: str
    warning: str = ""


def place_of(plan: Plan, target: Target | None, position: int) -> str:
    """Where the head is to be, as far as the call tells: two calls with the same place get the same head."""
    if target is None and not plan.call.own_target:
        return "nowhere"
    if plan.head is Head.OUTPUT:
        return "output"
    if target is not None and target.function is not None and plan.call.head is None:
        return "function"
    return f"logits of {'all' if target is None else position}"


def at_head(
    plan: Plan,
    adapter: FrameworkAdapter,
    model: Any,
    inputs: Sequence[Any],
    target: Target | None,
    outputs: Sequence[np.ndarray],
    position: int,
) -> AtHead:
    """Cuts off a softmax where the method explains logits.

    Args:
        plan: The call.
        adapter: Adapter of the model's framework.
        model: The model to cut, free to be marked.
        inputs: Tensors for it; empty if the user gave none.
        target: What is explained; None if the method or the user's own score says it.
        outputs: What the user's model gives, flat.
        position: Position of the explained output among them.
    """
    place = place_of(plan, target, position)
    if place in _UNCUT:
        return AtHead(model, _UNCUT[place])
    several = len(outputs) > 1 and target is not None and bool(inputs)
    before = flatten(adapter.outputs(model, inputs)) if several else []
    logits = adapter.without_softmax(model, inputs) if inputs or adapter.input_shapes(model) is not None else None
    if logits is not None and several:
        after = flatten(adapter.outputs(logits, inputs))
        if np.array_equal(before[position], after[position]):
            return AtHead(logits, "the model's output as it is (no softmax at its end)")
    if logits is not None:
        return AtHead(logits, "the logit: the model's final softmax was left out")
    if any(_looks_like_probabilities(output) for output in outputs):
        return AtHead(
            model,
            "the model's output as it is (probabilities; no softmax was found to leave out)",
            f"{plan.method.key} explains logits, and the model gives probabilities, but no softmax was found at its "
            f"end to leave out: the probabilities are explained. Pass a model that gives logits, or head='output'.",
        )
    return AtHead(model, "the model's output as it is (no softmax at its end)")


def _looks_like_probabilities(output: np.ndarray) -> bool:
    if output.ndim != 2 or output.shape[1] < 2 or output.min() < 0:
        return False
    return bool(np.allclose(output.sum(axis=1), 1, atol=1e-3))
