"""Tokens have no gradient: methods that differentiate them are moved to the output of the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, is_number
from cfi_core.checking.inputs import check_baselines, run_as_it_is
from cfi_core.distance import relative_difference
from cfi_core.errors import InputError, LayerError
from cfi_core.framework import Embedded, flatten
from cfi_core.records import Inputs, Original, Plan
from cfi_core.registry import Registry
from cfi_core.specs import Kind, Need, Role

EMBEDDINGS = "embeddings"
"""As a layer: the one that turns tokens into vectors, if no layer of the model's own is called so."""

_SAME = 1e-5  # relative difference of two passes over the same weights that rounding explains
_HOW = (
    "Let one layer of the model (an Embedding), or one look-up (jnp.take, tf.gather, Gather), turn the tokens, the "
    "first input, into vectors; or name a layer whose output is floating point"
)


def means_embeddings(original: Original, layer: Any) -> bool:
    """Whether a user who names this layer asks for the output of the embedding."""
    if not isinstance(layer, str) or layer != EMBEDDINGS:
        return False
    return all(one.name != EMBEDDINGS for one in original.adapter.layers(original.model))


def needs_embedding(plan: Plan, inputs: Inputs) -> bool:
    """Whether the call is to start at the embedding: the user says so, or it differentiates whole numbers."""
    method = plan.method
    if plan.embeddings:
        return method.kind is Kind.ATTRIBUTION
    if not any(array.dtype.kind in "iub" for array in inputs.arrays) or (
        method.kind is Kind.ATTRIBUTION and plan.layers
    ):
        return False
    # Rules on modules end at the inputs, too, but for those of layers.
    return Need.INPUT_GRADIENT in method.needs or (Need.MODULES in method.needs and method.kind is Kind.ATTRIBUTION)


def layer_of_embedding(original: Original, inputs: Inputs) -> str:
    """Name of the layer that embeds the tokens.

    Raises:
        LayerError: There is none.
    """
    found, adapter = _split(original, inputs), original.adapter
    if found is None:
        raise LayerError(f"layer={EMBEDDINGS!r}: no embedding was found in the model. {_HOW}.")
    try:
        opened = adapter.activations(adapter.twin(original.model), inputs.passed, [found.layer])
    except LayerError:
        opened = {}
    if found.layer not in opened:
        raise LayerError(
            f"layer={EMBEDDINGS!r} is {found.layer!r} here, which cannot be opened as a layer: the model calls it "
            f"several times, or looks tokens up by a function. Use a method of inputs, such as integrated_gradients, "
            f"which starts there."
        )
    return found.layer


def embed(registry: Registry, plan: Plan, original: Original, inputs: Inputs) -> tuple[Plan, Original, Inputs]:
    """The call on the model from the output of its embedding on, the tokens held.

    Baselines of tokens are embedded too.

    Raises:
        InputError: There are several inputs to explain, or no layer that embeds the tokens; or the embedding is not all
            that the tokens do.
    """
    method = plan.method
    place = method.argument_of(Role.HELD)
    adapter, tokens = original.adapter, inputs.arrays[0]
    # Which says what is wrong with images in whole numbers.
    run_as_it_is(original, inputs, batch_size=plan.arguments.batch_size)
    found = _split(original, inputs)
    if found is None and len(inputs.arrays) > 1:
        named = f" ({', '.join(original.names.explained)})" if original.names else ""
        raise InputError(
            f"{method.key} differentiates with respect to the inputs, and of the {len(inputs.arrays)} that are "
            f"explained{named} some are whole numbers. Pass them by name, with explain= the one that holds the tokens."
        )
    if found is None:
        asked = f"layer={EMBEDDINGS!r}" if plan.embeddings else f"{tokens.dtype} inputs have no gradient"
        raise InputError(
            f"{method.key} differentiates with respect to the inputs, {asked}, and an embedding that it could start "
            f"from was not found. {_HOW}, use a layer method there, or a perturbation method (feature_ablation)."
        )
    moved = replace(original, model=found.model, embedding=found.layer)
    whole = Inputs(
        (adapter.tensor(found.activation, found.model),),
        (found.activation,),
        held=inputs.passed,
        held_arrays=(tokens, *inputs.held_arrays),
    )
    _check_same(original, moved, inputs, whole)
    baselines = _embed_baselines(registry, original, inputs, plan.arguments.baselines, found.layer)
    own: Mapping[str, Any] = plan.arguments.exec_args or {}
    if place is not None:
        own = {**own, place: whole.held}
    return replace(plan, arguments=replace(plan.arguments, baselines=baselines, exec_args=own)), moved, whole


def _split(original: Original, inputs: Inputs) -> Embedded | None:
    if len(inputs.arrays) != 1 or inputs.arrays[0].dtype.kind not in "iu":
        return None
    return original.adapter.split_embedding(original.model, inputs.passed)


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


def _embed_baselines(registry: Registry, original: Original, inputs: Inputs, given: Any, layer: str) -> Any:
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
    passed = [adapter.tensor(np.array(one), model) for one in (filled, *held)]
    found = adapter.split_embedding(model, passed, layer)
    if found is None:
        raise InputError(f"The model does not give the baselines to {layer!r} as it does the tokens. Pass vectors.")
    return found.activation
