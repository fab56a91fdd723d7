"""Layers that only move values: reshaping, permuting, repeating, resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cfi_translate.keras_torch.builder import Builder
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.convolutions import spatial, spatial_axes
from cfi_translate.keras_torch.values import (
    Flattened,
    Shape,
    Value,
    channels_first,
    plain_axes,
    same_memory,
)


def reshaped(builder: Builder, value: Value, shape: Shape) -> tuple[Any, tuple[int, ...]]:
    """A reshape in Keras's order of the values, without a transpose where axes of size 1 allow it.

    Args:
        builder: Writes the graph.
        value: What to reshape.
        shape: Keras's new shape.

    Returns:
        The node and its layout.
    """
    if value.flattened is not None or not same_memory(value.shape, value.axes, plain_axes(value.rank)):
        value = builder.plain(value)
    axes = plain_axes(len(shape))
    if len(shape) > 3 and same_memory(shape, channels_first(len(shape)), axes):
        axes = channels_first(len(shape))
    return builder.reshape(value.node, tuple(shape[axis] for axis in axes)), axes


@translates("layers.Reshape")
def reshape(call: Call) -> Value:
    """A reshape."""
    node, axes = reshaped(call.builder, call.input, (None, *call.output.shape[1:]))
    return call.result(call.builder.marker(call.path, node), axes)


@translates("layers.Flatten")
def flatten(call: Call) -> Value:
    """A Flatten module; the order of the features is left to the Linear after it."""
    value, builder = call.input, call.builder
    if value.flattened is not None or value.rank < 3:
        node = builder.marker(call.path, value.node) if value.rank == 2 else builder.reshape(value.node, (None, 1))
        return call.result(node, flattened=value.flattened)
    call.require(call.operation.data_format == "channels_last", "it expects channels first")
    node = builder.module(call.path, nn.Flatten(1), value.node, own=True)
    if same_memory(value.shape, value.axes, plain_axes(value.rank)):
        return call.result(node)
    call.require(value.axes[0] == 0, "its samples do not lie along the first axis")
    return call.result(node, flattened=Flattened(value.shape, value.axes))


@translates("layers.Permute")
def permute(call: Call) -> Value:
    """Another meaning for the same axes; nothing is moved until it has to be."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    return transposed(call, value, (0, *call.operation.dims))


def transposed(call: Call, value: Value, order: Sequence[int]) -> Value:
    """The value with Keras's axes in another order, moved only if Keras would have nothing to show for it."""
    axes = tuple(list(order).index(axis) for axis in value.axes)
    node = call.builder.marker(call.path, value.node) if call.walk.is_layer(call.operation) else value.node
    return call.result(node, axes)


@translates("layers.RepeatVector")
def repeat_vector(call: Call) -> Value:
    """The vector at each of n time steps."""
    builder, value = call.builder, call.builder.plain(call.input)
    node = builder.function(torch.unsqueeze, value.node, 1)
    node = builder.graph.call_method("expand", (node, -1, call.operation.n, -1))
    return call.result(builder.marker(call.path, node))


@translates("layers.UpSampling1D", "layers.UpSampling2D", "layers.UpSampling3D")
def up_sampling(call: Call) -> Value:
    """An Upsample module."""
    layer, value = call.operation, spatial(call, call.input)
    size = layer.size
    factors = tuple(float(one) for one in (size if isinstance(size, list | tuple) else (size,)))
    mode = getattr(layer, "interpolation", "nearest")
    call.require(mode in ("nearest", "bilinear"), f"torch interpolates {mode!r} with other coefficients")
    module = nn.Upsample(scale_factor=factors, mode=mode, align_corners=False if mode == "bilinear" else None)
    return call.result(call.builder.module(call.path, module, value.node, own=True), spatial_axes(call, value.rank))


@translates("layers.Resizing")
def resizing(call: Call) -> Value:
    """An Upsample module to a fixed size."""
    layer = call.operation
    call.require(not layer.crop_to_aspect_ratio and not layer.pad_to_aspect_ratio, "it keeps the aspect ratio")
    call.require(not layer.antialias, "torch filters against aliasing in another way")
    return _resized(call, (layer.height, layer.width), layer.interpolation)


@translates("ops.Resize")
def resize(call: Call) -> Value:
    """An Upsample module to a fixed size."""
    own = call.operation
    call.require(not own.crop_to_aspect_ratio and not own.pad_to_aspect_ratio, "it keeps the aspect ratio")
    call.require(not own.antialias, "torch filters against aliasing in another way")
    return _resized(call, tuple(own.size), own.interpolation)


def _resized(call: Call, size: tuple[int, int], mode: str) -> Value:
    call.require(mode in ("nearest", "bilinear"), f"torch interpolates {mode!r} with other coefficients")
    call.require(call.input.rank == 4, "its input is no batch of images")
    value = call.walk.floating(spatial(call, call.input), call.output.dtype)
    if mode == "nearest":
        module = nn.Upsample(size=size, mode="nearest-exact")  # TensorFlow takes the nearest centre
    else:
        module = nn.Upsample(size=size, mode="bilinear", align_corners=False)
    own = call.walk.is_layer(call.operation)
    return call.result(call.builder.module(call.path, module, value.node, own=own), spatial_axes(call, 4))
