"""Pooling, with Keras's meaning of 'same': what is added at the borders does not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.convolutions import Pads, extents, same_pads, spatial, spatial_axes, torch_order
from cfi_translate.keras_torch.values import Value

MAXIMUM = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
CONSTANT_PADDING = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
ADAPTIVE_AVERAGE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
ADAPTIVE_MAXIMUM = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


@translates("layers.MaxPooling1D", "layers.MaxPooling2D", "layers.MaxPooling3D")
def max_pooling(call: Call) -> Value:
    """A MaxPool module; padded with minus infinity where its own padding cannot do it."""
    value = spatial(call, call.input)
    kernel, strides, pads = _window(call, value)
    symmetric = _symmetric(extents(value), kernel, strides, pads)
    builder, node, rank = call.builder, value.node, len(kernel)
    if symmetric is None:
        borders = CONSTANT_PADDING[rank - 1](torch_order(pads), float("-inf"))
        node, symmetric = builder.module(f"{call.path}_pad", borders, node), ((0,) * rank, False)
    padding, ceil = symmetric
    module = MAXIMUM[rank - 1](kernel, strides, padding=padding, ceil_mode=ceil)
    return call.result(builder.module(call.path, module, node, own=True), spatial_axes(call, rank + 2))


@translates("layers.AveragePooling1D", "layers.AveragePooling2D", "layers.AveragePooling3D")
def average_pooling(call: Call) -> Value:
    """An AvgPool module that counts no padding; weighted afterwards where its own padding cannot do it."""
    value = spatial(call, call.input)
    kernel, strides, pads = _window(call, value)
    sizes = extents(value)
    symmetric = _symmetric(sizes, kernel, strides, pads)
    builder, rank = call.builder, len(kernel)
    if symmetric is not None:
        padding, ceil = symmetric
        module = AVERAGE[rank - 1](kernel, strides, padding=padding, ceil_mode=ceil, count_include_pad=False)
        node = builder.module(call.path, module, value.node, own=True)
        return call.result(node, spatial_axes(call, rank + 2))
    borders = CONSTANT_PADDING[rank - 1](torch_order(pads), 0.0)
    node = builder.module(f"{call.path}_pad", borders, value.node)
    node = builder.module(f"{call.path}_window", AVERAGE[rank - 1](kernel, strides), node)
    weights = np.ones((1,) * rank, value.dtype)
    for axis in range(rank):
        ratio = _share(sizes[axis], kernel[axis], strides[axis], pads[axis]).astype(value.dtype)
        weights = weights * ratio.reshape(tuple(-1 if i == axis else 1 for i in range(rank)))
    node = builder.function(torch.mul, node, builder.constant(f"{call.path}_weights", weights))
    return call.result(builder.marker(call.path, node), spatial_axes(call, rank + 2))


def _window(call: Call, value: Value) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    layer = call.operation
    kernel, strides = tuple(layer.pool_size), tuple(layer.strides)
    if layer.padding == "valid":
        return kernel, strides, ((0, 0),) * len(kernel)
    return kernel, strides, same_pads(extents(value), kernel, strides, (1,) * len(kernel))


def _symmetric(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Pads
) -> tuple[tuple[int, ...], bool] | None:
    """Padding and ceil mode of torch with the same windows; None if there are none.

    torch pads as much after as before; in ceil mode the last window may reach beyond that.
    """
    padding = tuple(before for before, _ in pads)
    if any(2 * before > width for before, width in zip(padding, kernel, strict=True)):
        return None
    for ceil in (False, True):
        counts = [_windows(*settings, ceil=ceil) for settings in zip(sizes, kernel, strides, padding, strict=True)]
        wanted = [
            (size + before + after - width) // stride + 1
            for size, width, stride, (before, after) in zip(sizes, kernel, strides, pads, strict=True)
        ]
        if counts == wanted:
            return padding, ceil
    return None


def _windows(size: int, width: int, stride: int, padding: int, ceil: bool) -> int:
    reach = size + 2 * padding - width
    count = (-(-reach // stride) if ceil else reach // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def _share(size: int, width: int, stride: int, pads: tuple[int, int]) -> np.ndarray:
    """For each window of one axis: its width over the number of its positions that are no padding."""
    present = np.pad(np.ones(size), pads)
    return np.array([width / present[at : at + width].sum() for at in range(0, len(present) - width + 1, stride)])


@translates("layers.GlobalAveragePooling1D", "layers.GlobalAveragePooling2D", "layers.GlobalAveragePooling3D")
def global_average(call: Call) -> Value:
    """AdaptiveAvgPool to size 1, then Flatten."""
    mask = call.argument(1, "mask")
    if isinstance(mask, Value):
        return _masked_average(call, mask)
    value = spatial(call, call.input)
    node = call.builder.module(call.path, ADAPTIVE_AVERAGE[value.rank - 3](1), value.node, own=True)
    return _without_space(call, node, value.rank)


@translates("layers.GlobalMaxPooling1D", "layers.GlobalMaxPooling2D", "layers.GlobalMaxPooling3D")
def global_maximum(call: Call) -> Value:
    """A MaxPool over everything, then Flatten."""
    value = spatial(call, call.input)
    node = call.builder.module(call.path, MAXIMUM[value.rank - 3](extents(value)), value.node, own=True)
    return _without_space(call, node, value.rank)


@translates("layers.AdaptiveAveragePooling1D", "layers.AdaptiveAveragePooling2D", "layers.AdaptiveAveragePooling3D")
def adaptive_average(call: Call) -> Value:
    """An AdaptiveAvgPool module."""
    return _adaptive(call, ADAPTIVE_AVERAGE)


@translates("layers.AdaptiveMaxPooling1D", "layers.AdaptiveMaxPooling2D", "layers.AdaptiveMaxPooling3D")
def adaptive_maximum(call: Call) -> Value:
    """An AdaptiveMaxPool module."""
    return _adaptive(call, ADAPTIVE_MAXIMUM)


def _adaptive(call: Call, modules: Sequence[Any]) -> Value:
    value = spatial(call, call.input)
    size = call.operation.output_size
    module = modules[value.rank - 3](size if isinstance(size, int) else tuple(size))
    return call.result(call.builder.module(call.path, module, value.node, own=True), spatial_axes(call, value.rank))


def _without_space(call: Call, node: Any, rank: int) -> Value:
    if call.operation.keepdims:
        return call.result(node, spatial_axes(call, rank))
    return call.result(call.builder.module(f"{call.path}_flatten", nn.Flatten(1), node))


def _masked_average(call: Call, mask: Value) -> Value:
    """The mean over the time steps that the mask leaves."""
    builder, layer = call.builder, call.operation
    call.require(layer.data_format == "channels_last" and mask.dtype == "bool", "its mask does not fit")
    value = builder.plain(call.input)
    kept = builder.function(torch.unsqueeze, builder.plain(mask).node, 2)
    hidden = builder.function(torch.masked_fill, value.node, builder.function(torch.logical_not, kept), 0.0)
    total = builder.function(torch.sum, hidden, 1, keepdim=bool(layer.keepdims))
    count = builder.function(torch.sum, kept, 1, keepdim=bool(layer.keepdims))
    return call.result(builder.marker(call.path, builder.function(torch.div, total, count)))
