"""Masks of time steps: which layers get them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import keras
import torch
from keras.src.ops.function import Function

from cfi_translate.grammar import Refusal, require
from cfi_translate.keras_torch.graph import LaidGraph
from cfi_translate.keras_torch.laid import Laid, plain_axes, tensors_in

# Layers whose call takes a mask that changes what they compute in inference, and whose translation heeds it.
_HEED = frozenset(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "GlobalAveragePooling1D", "Softmax"))
# Layers that look at the mask in training only, and the one that takes the masks of its inputs by itself.
_IGNORE = frozenset(("BatchNormalization", "MultiHeadAttention"))
# Layers whose output has no mask, and those whose sequences keep it.
_DROP = frozenset(("GlobalAveragePooling1D", "Flatten"))
_RETURN = frozenset(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"))


def with_mask(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call, with the mask of its first input if the layer heeds it, as Keras gives it.

    Raises:
        Refusal: The layer heeds it, and its translation does not.
    """
    given = {name: value for name, value in kwargs.items() if name != "mask" or value is not None}
    if not isinstance(operation, keras.Layer) or isinstance(operation, Function | keras.Sequential):
        return given
    kind = type(operation).__name__
    masked = any(x.mask is not None for x in tensors_in((args, given)))
    if not masked or kind in _IGNORE or not getattr(operation, "_call_has_mask_arg", False):
        return given
    require(kind in _HEED, "it heeds the mask of its input, and there is no translation of that")
    first = args[0] if args else next(iter(given.values()))
    if "mask" not in given and len(args) < 2 and isinstance(first, Laid):
        given["mask"] = first.mask
    return given


def hand_on(operation: Any, to: LaidGraph, inputs: Sequence[Laid], results: list[Laid]) -> list[Laid]:
    """The outputs of a layer with the masks that it hands on.

    Raises:
        Refusal: What it makes of the mask of its input is not known.
    """
    if not isinstance(operation, keras.Layer) or all(x.mask is None for x in inputs):
        return results
    if not operation.supports_masking or any(x.mask is not None for x in results):
        return results
    kind, own = type(operation).__name__, type(operation).compute_mask
    if own is keras.Layer.compute_mask:
        keeps = len(results) == len(inputs) == 1
        return [replace(results[0], mask=inputs[0].mask)] if keeps else results
    if own is keras.layers.Add.compute_mask:
        masks = [x.mask for x in inputs if x.mask is not None]
        return [replace(results[0], mask=_either(to, masks))] if len(masks) == len(inputs) else results
    if kind in _DROP:
        return results
    if kind not in _RETURN:
        raise Refusal("what it makes of the mask of its input has no translation")
    keeps = getattr(operation, "return_sequences", True)
    return [replace(results[0], mask=inputs[0].mask), *results[1:]] if keeps else results


def _either(to: LaidGraph, masks: Sequence[Laid]) -> Laid:
    """Where one of the masks leaves a step."""

    def join(one: Laid, other: Laid) -> Laid:
        if one is other:
            return one
        return Laid(to.function(torch.logical_or, one.node, other.node), one.shape, plain_axes(one.rank), "bool")

    return reduce(join, masks)


def mask_node(to: LaidGraph, mask: Any) -> Any:
    """The node of a mask, samples × steps; None without one.

    Raises:
        Refusal: It is a constant, or not one of time steps.
    """
    if mask is None:
        return None
    fits = isinstance(mask, Laid) and mask.rank == 2 and mask.dtype == "bool"
    require(fits, "its mask is not one of time steps")
    return to.plain(mask).node
