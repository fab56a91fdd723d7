"""Tokens have no gradient: methods that differentiate them are moved to the output of the embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, is_number
from cfi_core.checking.inputs import check_baselines, run_original
from cfi_core.comparison import relative_difference
from cfi_core.errors import InputError
from cfi_core.framework import flatten
from cfi_core.records import Inputs, Original, Plan
from cfi_core.registry import Registry
from cfi_core.specs import Need, Role

_SAME = 1e-5  # relative difference of two passes over the same weights that rounding explains


def needs_embedding(plan: Plan, inputs: Inputs) -> bool:
    """Whether the method differentiates inputs that are whole numbers."""
    return Need.INPUT_GRADIENT in plan.method.needs and any(array.dtype.kind in "iub" for array in inputs.arrays)


def embed(registry: Registry, plan: Plan, original: Original, inputs: Inputs) -> tuple[Plan, Original, Inputs]:
    """The call on the model from the output of its embedding on, the tokens held.

    Baselines of tokens are embedded too.

    Raises:
        InputError: There are several inputs to explain, no layer that embeds the tokens, or a toolset that cannot hold
            them; or the embedding is not all that the tokens do.
    """
    method = plan.method
    place = method.argument_of(Role.HELD)
    adapter, tokens = original.adapter, inputs.arrays[0]
    run_original(original, inputs)  # which says what is wrong with images in whole numbers
    found = adapter.split_embedding(original.model, inputs.passed) if len(inputs.arrays) == 1 and place else None
    if found is None or place is None:
        raise InputError(
            f"{method.key} differentiates with respect to the inputs, and {tokens.dtype} inputs have no gradient; an "
            f"embedding that it could start from instead was not found. Explain a layer (for example "
            f"layer_integrated_gradients at the embedding), or use a perturbation method (feature_ablation)."
        )
    moved = replace(original, model=found.model, embedding=found.layer)
    whole = Inputs(
        (adapter.tensor(found.activation, found.model),),
        (found.activation,),
        held=inputs.passed,
        held_arrays=(tokens, *inputs.held_arrays),
    )
    _check_same(original, moved, inputs, whole)
    baselines = _embed_baselines(registry, original, inputs, plan.arguments.baselines)
    own = {**(plan.arguments.exec_args or {}), place: whole.held}
    return replace(plan, arguments=replace(plan.arguments, baselines=baselines, exec_args=own)), moved, whole


def _check_same(original: Original, moved: Original, inputs: Inputs, whole: Inputs) -> None:
    expected, given = (
        flatten(one.adapter.outputs(one.adapter.twin(one.model), each.passed))
        for one, each in ((original, inputs), (moved, whole))
    )
    if not relative_difference(expected, given) <= _SAME:
        raise InputError(
            f"The model gives something else from the output of {moved.embedding!r} on than from its tokens, so it "
            f"does more with them than embed them. Explain that layer by a layer method instead."
        )


def _embed_baselines(registry: Registry, original: Original, inputs: Inputs, given: Any) -> Any:
    """Vectors of the tokens that are baselines; what is no whole number is a vector, or one number for all, already."""
    parts = given if isinstance(given, tuple) else (given,)
    if given is None or len(parts) != 1:
        return given
    value, tokens = parts[0], inputs.arrays[0]
    array = np.asarray(value) if is_number(value) else as_array(registry, value, "baselines")
    if array.dtype.kind not in "iu":
        return given
    check_baselines(registry, inputs, given)
    samples = len(array) if array.ndim == tokens.ndim and len(array) > 1 else inputs.samples
    filled = np.broadcast_to(array.astype(tokens.dtype), (samples, *tokens.shape[1:]))
    adapter, model = original.adapter, original.model
    held = [np.resize(one, (samples, *one.shape[1:])) for one in inputs.held_arrays]
    found = adapter.split_embedding(model, [adapter.tensor(np.array(one), model) for one in (filled, *held)])
    assert found is not None  # as for the inputs
    return found.activation
