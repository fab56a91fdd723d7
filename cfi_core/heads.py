"""Where a softmax at the model's end is explained: at the logits, or at the output as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cfi_core.batches import some_passed
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.records import Call, ModelAtHead
from cfi_core.specs import Head

_UNCUT = {
    "nowhere": "no target: the layer or unit itself",
    "output": "the model's output as it is",
    "function": "your function of the model's output as it is",
}


def place_of(call: Call) -> str:
    """Where the head is to be, as far as the call tells: two calls with the same place get the same head."""
    plan, target = call.plan, call.target
    if call.original.function is not None:
        return "function"  # and what it is a function of was cut before
    if target is None and not plan.own_target:
        return "nowhere"
    if plan.head is Head.OUTPUT:
        return "output"
    if target is not None and target.function is not None and plan.arguments.head is None:
        return "function"
    return f"logits of {'all' if target is None else call.output}"


def _may_be_softmax(outputs: Sequence[np.ndarray]) -> bool:
    """Whether one of them may be what a softmax gives, or its logarithm, in whatever shape; else none is sought."""
    return any(_is_share(one) for one in outputs if one.size)


def _is_share(output: np.ndarray) -> bool:
    """Whether no value tells that it is none; a softmax of infinite values is no number."""
    least, most = float(np.min(output)), float(np.max(output))
    slack = 1e-2  # half precision rounds
    return not (least < -slack and most > slack) and not (least >= -slack and most > 1 + slack)


def at_head(call: Call, adapter: FrameworkAdapter, model: Any, inputs: Sequence[Any]) -> ModelAtHead:
    """Cuts off a softmax where the method explains logits.

    The model, of the adapter's framework, is free to be marked, and gives all tensors that the user's model gives. The
    inputs are tensors for it; empty if the user gave none.
    """
    inputs = some_passed(call, inputs, adapter)
    place, position, outputs = place_of(call), call.output, call.output_arrays
    rows = [output for output in outputs if output.ndim == 2 and output.shape[1] > 1]
    if call.original.function is not None:
        return ModelAtHead(model, f"your function of {call.original.function_of}")
    if place in _UNCUT:
        return ModelAtHead(model, _UNCUT[place])
    several = len(outputs) > 1 and call.target is not None and bool(inputs)
    before = flatten(adapter.outputs(model, inputs)) if several else []
    can_be_sought = bool(inputs) or adapter.input_shapes(model) is not None
    logits = adapter.without_softmax(model, inputs) if can_be_sought and _may_be_softmax(outputs) else None
    if logits is not None:
        after = flatten(adapter.outputs(logits, inputs)) if several else []
        if not several or not np.array_equal(before[position], after[position]):
            return ModelAtHead(logits, "the logit: the model's final softmax was left out", cut=True)
    elif any(output.min() >= 0 and np.allclose(output.sum(1), 1, atol=1e-3) for output in rows):
        return ModelAtHead(
            model,
            "the model's output as it is (probabilities; no softmax was found to leave out)",
            f"{call.plan.method.key} explains logits, and the model gives probabilities, but no softmax was found at "
            f"its end to leave out: the probabilities are explained. Pass a model that gives logits, or head='output'.",
        )
    return ModelAtHead(model if logits is None else logits, "the model's output as it is (no softmax at its end)")
