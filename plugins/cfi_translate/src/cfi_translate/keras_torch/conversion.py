"""From a whole Keras model to a whole torch module."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch

import cfi_translate.keras_torch.operators  # noqa: F401 - the functions for each layer register themselves
from cfi_core.contract import Converted
from cfi_core.errors import kind_of
from cfi_translate.failures import failure
from cfi_translate.keras_torch.laid import Laid, channels_first, plain_axes
from cfi_translate.keras_torch.walk import KerasWalk, graph_of, nodes_of
from cfi_translate.translators import KERAS_TORCH

_SEQUENCE_CONVOLUTIONS = frozenset(
    (
        *("Conv1D", "DepthwiseConv1D", "SeparableConv1D", "Transpose", "MaxPooling1D", "AveragePooling1D"),
        *("UpSampling1D", "ZeroPadding1D", "Cropping1D"),
    )
)
_TRANSPARENT = frozenset(
    (
        *("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Dropout", "SpatialDropout1D", "GaussianNoise"),
        *("GaussianDropout", "BatchNormalization", "Normalization", "Rescaling", "Identity", "Masking"),
        *("Add", "Concatenate", "Multiply", "Subtract", "Average"),
    )
)


def convert_model(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """See `cfi_translate.keras_torch.convert`."""
    if not isinstance(model, keras.Model):
        raise failure(KERAS_TORCH, f"takes Keras models, and this is a {kind_of(model)}")
    function = graph_of(model)
    if function is not None and len(function._inputs) != len(inputs):
        raise failure(KERAS_TORCH, f"got {len(inputs)} inputs for a model that takes {len(function._inputs)}")
    to = KerasWalk(model)
    tensors = [None] * len(inputs) if function is None else function._inputs
    given = [
        _placeholder(to, position, array, tensor, function)
        for position, (array, tensor) in enumerate(zip(inputs, tensors, strict=True))
    ]
    outputs = [to.unscramble(x) for x in to.model(model, given)]
    outputs = [x if x.axes[:1] in ((), (0,)) else to.plain(x) for x in outputs]
    module = to.finish([x.node for x in outputs])
    return Converted(module, tuple(map(_permutation, given)), tuple(map(_permutation, outputs)))


def _placeholder(to: KerasWalk, position: int, array: np.ndarray, tensor: Any, function: Any) -> Laid:
    name = f"x{position}" if tensor is None else tensor.name
    node = to.input(name)
    shape = (None, *array.shape[1:])
    axes = channels_first(array.ndim)
    if array.ndim == 3 and (function is None or not _convolves(function, tensor)):
        axes = plain_axes(3)
    if function is not None and any(size is None for size in tuple(tensor.shape)[1:]):
        _assert_sizes(to, node, tuple(shape[axis] for axis in axes), name)
    return Laid(node, shape, axes, str(array.dtype))


def _assert_sizes(to: KerasWalk, node: Any, sizes: Sequence[int | None], name: str) -> None:
    """Padding and reshaping were worked out for these sizes, so others must not pass."""
    for axis, size in enumerate(sizes):
        if size is not None:
            equal = to.function(operator.eq, to.method("size", node, axis), size)
            message = f"axis {axis} of {name} must have size {size}: converted for that size"
            to.function(torch._assert, equal, message)


def _convolves(function: Any, tensor: Any) -> bool:
    """Whether the first layers that tell take the tensor as a sequence with channels."""
    for node in nodes_of(function):
        taken = node.arguments.keras_tensors
        position = next((i for i, one in enumerate(taken) if one is tensor), None)
        if position is None:
            continue
        kind = type(node.operation).__name__
        if kind in _SEQUENCE_CONVOLUTIONS:
            return True
        inner = graph_of(node.operation)
        if inner is not None and len(inner._inputs) > position and _convolves(inner, inner._inputs[position]):
            return True
        if kind in _TRANSPARENT and any(len(one.shape) == 3 and _convolves(function, one) for one in node.outputs):
            return True
    return False


def _permutation(x: Laid) -> tuple[int, ...] | None:
    return None if x.axes == plain_axes(x.rank) else x.axes
