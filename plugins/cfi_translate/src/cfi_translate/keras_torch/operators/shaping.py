"""What moves, joins and repeats whole tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, name_of, operator, tensors
from cfi_translate.keras_torch.laid import Flattened, Laid, axes_of, channels_first, plain_axes, same_memory
from cfi_translate.keras_torch.walk import KerasWalk


@operator("layers.Reshape", "ops.Reshape", "ops.Ravel")
def reshape(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """A reshape in Keras's order of the values, without a transpose where axes of size 1 allow it."""
    shape: tuple[int | None, ...] = (None, *op.output.shape[1:]) if op.is_layer else op.output.shape
    sizes = [[size or 0 for size in one[1:]] for one in (x.shape, shape)]
    apart = x.shape[:1] == shape[:1] == (None,) and None not in shape[1:] and math.prod(sizes[0]) == math.prod(sizes[1])
    require(apart, f"it mixes samples: {x.shape} to {shape}")
    if x.flattened is not None or not same_memory(x.shape, x.axes, plain_axes(x.rank)):
        x = to.plain(x)
    axes = plain_axes(len(shape))
    if len(shape) > 3 and same_memory(shape, channels_first(len(shape)), axes):
        axes = channels_first(len(shape))
    node = to.reshape(x.node, tuple(shape[axis] for axis in axes))
    return op.result(to.marker(op, node), axes)


@operator("layers.Flatten")
def flatten(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A Flatten module; the order of the features is left to the Linear after it."""
    x = inputs
    if x.rank < 3:
        node = to.marker(op, x.node) if x.rank == 2 else to.reshape(x.node, (None, 1))
        return op.result(node, flattened=x.flattened)
    require(op.operation.data_format == "channels_last", "it expects channels first")
    node = to.module(op, nn.Flatten(1), x.node)
    if same_memory(x.shape, x.axes, plain_axes(x.rank)):
        return op.result(node)
    require(x.axes[0] == 0, "its samples do not lie along the first axis")
    return op.result(node, flattened=Flattened(x.shape, x.axes))


# What becomes of an array whose sizes are the numbers of its axes.
_MOVED: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "layers.Permute": lambda own, array: array.transpose(0, *own.dims),
    "ops.Transpose": lambda own, array: array.transpose(own.axes),
    "ops.Swapaxes": lambda own, array: array.swapaxes(own.axis1, own.axis2),
    "ops.Moveaxis": lambda own, array: np.moveaxis(array, own.source, own.destination),
}


@operator(*_MOVED)
def transpose(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Another meaning for the same axes; nothing is moved until it has to be."""
    order = _MOVED[name_of(op.operation)](op.operation, np.empty(range(x.rank))).shape
    x = to.unscramble(x)
    return op.result(to.marker(op, x.node), tuple(order.index(axis) for axis in x.axes))


@operator("ops.ExpandDims")
def expand_dims(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """New axes of size 1."""
    node = to.plain(x).node
    for axis in sorted(axes_of(op.operation.axis, len(op.output.shape))):
        node = to.function(torch.unsqueeze, node, axis)
    return op.result(node)


@operator("ops.Squeeze")
def squeeze(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Axes of size 1 taken away."""
    given = op.operation.axis
    if given is None:
        given = [axis for axis, size in enumerate(x.shape) if size == 1]
    return op.result(to.function(torch.squeeze, to.plain(x).node, axes_of(given, x.rank)))


@operator("layers.Concatenate", "ops.Concatenate")
def concatenate(op: LayerCall, to: KerasWalk, xs: Any) -> Laid:
    """Tensors one after the other."""
    values = [x if op.is_layer else to.cast(x, op.output.dtype) for x in tensors(xs)]
    values = to.together([to.unscramble(x) for x in values])
    node = to.function(torch.cat, [x.node for x in values], values[0].at(op.operation.axis))
    return op.result(to.marker(op, node), values[0].axes)


@operator("ops.Stack")
def stack(op: LayerCall, to: KerasWalk, xs: Any) -> Laid:
    """Tensors along a new axis."""
    nodes = [to.plain(to.cast(x, op.output.dtype)).node for x in tensors(xs)]
    return op.result(to.function(torch.stack, nodes, op.operation.axis % len(op.output.shape)))


@operator("layers.RepeatVector")
def repeat_vector(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """The vector at each of n time steps."""
    node = to.function(torch.unsqueeze, to.plain(inputs).node, 1)
    return op.result(to.marker(op, to.method("expand", node, -1, op.operation.n, -1)))


@operator("ops.Repeat")
def repeat(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Each position several times."""
    own, x = op.operation, to.plain(x)
    require(own.axis is not None and isinstance(own.repeats, int), "its repeats differ")
    axis = own.axis % x.rank
    require(axis > 0, "it repeats samples")
    return op.result(to.function(torch.repeat_interleave, x.node, own.repeats, axis))


@operator("ops.Tile")
def tile(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """The whole several times."""
    x, repeats = to.plain(x), op.operation.repeats
    repeats = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    require(all(isinstance(one, int) for one in repeats), "its repeats are not constant")
    repeats = (1,) * (x.rank - len(repeats)) + repeats
    require(len(repeats) == x.rank and repeats[0] == 1, "it repeats samples")
    return op.result(to.function(torch.tile, x.node, repeats))


@operator("ops.BroadcastTo")
def broadcast_to(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Axes of size 1 repeated."""
    x, shape = to.plain(x), op.output.shape
    require(x.rank == len(shape) and x.shape[0] is None, "it repeats samples")
    return op.result(to.method("expand", x.node, -1, *shape[1:]))
