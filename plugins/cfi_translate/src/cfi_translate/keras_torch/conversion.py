"""From a whole Keras model to a whole torch module."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch import fx

from cfi_core.contract import Converted
from cfi_translate.failures import failure

# The translations register themselves.
from cfi_translate.keras_torch import (  # noqa: F401
    activations,
    attention,
    convolutions,
    dense,
    merging,
    normalization,
    operations,
    pooling,
    recurrent,
    shapes,
)
from cfi_translate.keras_torch.builder import Builder, identifier
from cfi_translate.keras_torch.calls import NAME
from cfi_translate.keras_torch.values import Value, channels_first, plain_axes
from cfi_translate.keras_torch.walk import Walk, graph_of, input_shape

_SEQUENCE_CONVOLUTIONS = frozenset(
    {
        "Conv1D",
        "DepthwiseConv1D",
        "SeparableConv1D",
        "Transpose",
        "MaxPooling1D",
        "AveragePooling1D",
        "UpSampling1D",
        "ZeroPadding1D",
        "Cropping1D",
    }
)
_TRANSPARENT = frozenset(
    {
        "Activation",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "PReLU",
        "Dropout",
        "SpatialDropout1D",
        "GaussianNoise",
        "GaussianDropout",
        "BatchNormalization",
        "Normalization",
        "Rescaling",
        "Identity",
        "Masking",
        "Add",
        "Concatenate",
        "Multiply",
        "Subtract",
        "Average",
    }
)


def converted(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """See `cfi_translate.keras_torch.convert`."""
    if not isinstance(model, keras.Model):
        raise failure(NAME, f"takes Keras models, and this is a {type(model).__name__}")
    function = graph_of(model)
    if function is not None and len(function._inputs) != len(inputs):
        raise failure(NAME, f"got {len(inputs)} inputs for a model that takes {len(function._inputs)}")
    builder = Builder()
    walk = Walk(builder, model)
    tensors = [None] * len(inputs) if function is None else function._inputs
    values = [
        _placeholder(builder, position, array, tensor, function)
        for position, (array, tensor) in enumerate(zip(inputs, tensors, strict=True))
    ]
    if function is not None:
        walk.check(model)
        outputs = walk.graph(function, values)
    else:
        outputs = walk.model(model, values)
    outputs = [builder.plain(value) if value.flattened is not None else value for value in outputs]
    outputs = [value if value.axes[:1] in ((), (0,)) else builder.plain(value) for value in outputs]
    nodes = tuple(value.node for value in outputs)
    builder.graph.output(nodes[0] if len(nodes) == 1 else nodes)
    module = fx.GraphModule(builder.root, builder.graph, class_name=identifier(model.name))
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or node.target is torch._assert)
    module.recompile()
    module.eval()
    return Converted(
        module,
        tuple(_permutation(value) for value in values),
        tuple(_permutation(value) for value in outputs),
    )


def _placeholder(builder: Builder, position: int, array: np.ndarray, tensor: Any, function: Any) -> Value:
    name = f"x{position}" if tensor is None else identifier(tensor.name)
    node = builder.graph.placeholder(name)
    shape = input_shape(array)
    axes = channels_first(array.ndim)
    if array.ndim == 3 and (function is None or not _convolves(function, tensor)):
        axes = plain_axes(3)
    if function is not None and any(size is None for size in tuple(tensor.shape)[1:]):
        _assert_sizes(builder, node, tuple(shape[axis] for axis in axes), name)
    return Value(node, shape, axes, str(array.dtype))


def _assert_sizes(builder: Builder, node: Any, sizes: Sequence[int | None], name: str) -> None:
    """Padding and reshaping were worked out for these sizes, so others must not pass."""
    for axis, size in enumerate(sizes):
        if size is None:
            continue
        actual = builder.graph.call_method("size", (node, axis))
        equal = builder.function(operator.eq, actual, size)
        builder.function(torch._assert, equal, f"axis {axis} of {name} must have size {size}: converted for that size")


def _convolves(function: Any, tensor: Any) -> bool:
    """Whether the first layers that tell take the tensor as a sequence with channels."""
    for nodes in function._nodes_by_depth.values():
        for node in nodes:
            if node.is_input or not any(one is tensor for one in node.arguments.keras_tensors):
                continue
            kind = type(node.operation).__name__
            if kind in _SEQUENCE_CONVOLUTIONS:
                return True
            inner = graph_of(node.operation)
            if inner is not None:
                position = next(i for i, one in enumerate(node.arguments.keras_tensors) if one is tensor)
                if len(inner._inputs) > position and _convolves(inner, inner._inputs[position]):
                    return True
            if kind in _TRANSPARENT and any(
                len(output.shape) == 3 and _convolves(function, output) for output in node.outputs
            ):
                return True
    return False


def _permutation(value: Value) -> tuple[int, ...] | None:
    return None if value.axes == plain_axes(value.rank) else value.axes
