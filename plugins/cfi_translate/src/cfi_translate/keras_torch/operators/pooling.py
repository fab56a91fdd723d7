"""Pooling, with Keras's meaning of 'same': what is added at the borders does not count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator, optional
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.operators.convolution import Pads, as_images, same_pads, torch_order
from cfi_translate.keras_torch.walk import KerasWalk

_MAXIMUM = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_CONSTANT_PADDING = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_ADAPTIVE_AVERAGE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_ADAPTIVE_MAXIMUM = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


@operator("layers.MaxPooling1D", "layers.MaxPooling2D", "layers.MaxPooling3D")
def max_pooling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A MaxPool module; padded with minus infinity where its own padding cannot do it."""
    x = as_images(op, to, inputs)
    kernel, strides, pads = _window(op.operation, x.extents)
    symmetric, node, at = _symmetric(x.extents, kernel, strides, pads), x.node, len(kernel) - 1
    if symmetric is None:
        borders = _CONSTANT_PADDING[at](torch_order(pads), float("-inf"))
        node, symmetric = to.module(op, borders, node, suffix="_pad"), ((0,) * len(kernel), False)
    padding, ceil = symmetric
    return op.result(to.module(op, _MAXIMUM[at](kernel, strides, padding=padding, ceil_mode=ceil), node), x.axes)


@operator("layers.AveragePooling1D", "layers.AveragePooling2D", "layers.AveragePooling3D")
def average_pooling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """An AvgPool module that counts no padding; weighted afterwards where its own padding cannot do it."""
    x = as_images(op, to, inputs)
    kernel, strides, pads = _window(op.operation, x.extents)
    symmetric, rank = _symmetric(x.extents, kernel, strides, pads), len(kernel)
    if symmetric is not None:
        padding, ceil = symmetric
        module = _AVERAGE[rank - 1](kernel, strides, padding=padding, ceil_mode=ceil, count_include_pad=False)
        return op.result(to.module(op, module, x.node), x.axes)
    borders = _CONSTANT_PADDING[rank - 1](torch_order(pads), 0.0)
    node = to.module(op, borders, x.node, suffix="_pad")
    node = to.module(op, _AVERAGE[rank - 1](kernel, strides), node, suffix="_window")
    weights = np.ones((1,) * rank, x.dtype)
    for axis, settings in enumerate(zip(x.extents, kernel, strides, pads, strict=True)):
        shape = tuple(-1 if i == axis else 1 for i in range(rank))
        weights = weights * _share(*settings).astype(x.dtype).reshape(shape)
    node = to.function(torch.mul, node, to.buffer(f"{op.path}_weights", weights))
    return op.result(to.marker(op, node), x.axes)


def _window(layer: Any, sizes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    kernel, strides = tuple(layer.pool_size), tuple(layer.strides)
    if layer.padding == "valid":
        return kernel, strides, ((0, 0),) * len(kernel)
    return kernel, strides, same_pads(sizes, kernel, strides, (1,) * len(kernel))


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


@operator("layers.GlobalAveragePooling1D", "layers.GlobalAveragePooling2D", "layers.GlobalAveragePooling3D")
def global_average(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Any = None) -> Laid:
    """AdaptiveAvgPool to size 1, then Flatten."""
    mask = optional(mask, "mask")
    if mask is not None:
        return _masked_average(op, to, inputs, mask)
    x = as_images(op, to, inputs)
    return _drop_space(op, to, x, _ADAPTIVE_AVERAGE[x.rank - 3](1))


@operator("layers.GlobalMaxPooling1D", "layers.GlobalMaxPooling2D", "layers.GlobalMaxPooling3D")
def global_maximum(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A MaxPool over everything, then Flatten."""
    x = as_images(op, to, inputs)
    return _drop_space(op, to, x, _MAXIMUM[x.rank - 3](x.extents))


def _adaptive_pool(modules: Sequence[Any], op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    x, size = as_images(op, to, inputs), op.operation.output_size
    module = modules[x.rank - 3](size if isinstance(size, int) else tuple(size))
    return op.result(to.module(op, module, x.node), x.axes)


for _kind, _modules in (("Average", _ADAPTIVE_AVERAGE), ("Max", _ADAPTIVE_MAXIMUM)):
    operator(*(f"layers.Adaptive{_kind}Pooling{rank}D" for rank in (1, 2, 3)))(partial(_adaptive_pool, _modules))


def _drop_space(op: LayerCall, to: KerasWalk, x: Laid, module: nn.Module) -> Laid:
    node = to.module(op, module, x.node)
    if op.operation.keepdims:
        return op.result(node, x.axes)
    return op.result(to.module(op, nn.Flatten(1), node, suffix="_flatten"))


def _masked_average(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Laid) -> Laid:
    """The mean over the time steps that the mask leaves."""
    keep = bool(op.operation.keepdims)
    require(op.operation.data_format == "channels_last" and mask.dtype == "bool", "its mask does not fit")
    x, left = to.plain(inputs), to.function(torch.unsqueeze, to.plain(mask).node, 2)
    hidden = to.function(torch.masked_fill, x.node, to.function(torch.logical_not, left), 0.0)
    total = to.function(torch.sum, hidden, 1, keepdim=keep)
    count = to.function(torch.sum, left, 1, keepdim=keep)
    return op.result(to.marker(op, to.function(torch.div, total, count)))
