"""Convolutions, the padding of data, and the sums of windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, along, are_constant
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of, shape_of, static
from cfi_translate.semantics.windows import Window, spatial_sizes, transposed_window, window_of
from cfi_translate.torch_modules import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, padding_module

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONVOLVE_BACK = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def pad(op: Operation, to: TorchBuilder, data: Any, area: Window, fill: float = 0) -> tuple[Any, Window]:
    """The data with the window's padding around them, and the window without."""
    if not area.is_padded:
        return data, area
    return to.module(op, padding_module(area.pairs, fill), data, suffix="_pad"), area.pad()


def pad_if_needed(op: Operation, to: TorchBuilder, data: Any, area: Window) -> tuple[Any, Window]:
    """Pads only where the operator itself cannot, which pads both sides alike."""
    return (data, area) if area.is_symmetric and min(area.begin) >= 0 else pad(op, to, data, area)


@operator("Conv")
def convolution(op: Operation, to: TorchBuilder, data: Value, weight: Value, bias: Value | None = None) -> fx.Node:
    filters, per_group, *kernel = static(shape_of(weight))
    require(len(kernel) in CONVOLUTIONS, f"torch has no convolution over {len(kernel)} spatial axes")
    source, area = pad_if_needed(op, to, data, window_of(op, kernel, spatial_sizes(data)))
    group = op.attributes["group"]
    if not are_constant(weight, bias):
        return convolve(op, to, source, weight, area, bias)
    module = CONVOLUTIONS[area.rank](
        per_group * group,
        filters,
        area.kernel,
        stride=area.strides,
        padding=area.begin,
        dilation=area.dilations,
        groups=group,
        bias=bias is not None,
        device="meta",
    )
    return to.module(op, to.give_weights(module, weight, bias), source)


def convolve(
    op: Operation, to: TorchBuilder, data: Any, kernel: Any, area: Window, bias: Value | None = None
) -> fx.Node:
    """A convolution with a kernel that is computed."""
    data, area = pad_if_needed(op, to, data, area)
    settings = area.strides, area.begin, area.dilations, op.attributes.get("group", 1)
    return to.function(_CONVOLVE[area.rank], data, kernel, bias, *settings)


def sum_windows(op: Operation, to: TorchBuilder, data: Any, area: Window) -> fx.Node:
    """The sums of what each window holds, channel by channel."""
    channels = static(shape_of(op.output)[1:2])[0]
    ones = to.buffer(f"{op.name}.ones", np.ones((channels, 1, *area.kernel), op.output.dtype))
    return to.function(_CONVOLVE[area.rank], data, ones, None, area.strides, 0, area.dilations, channels)


@operator("ConvTranspose")
def transposed_convolution(
    op: Operation, to: TorchBuilder, data: Value, weight: Value, bias: Value | None = None
) -> fx.Node:
    channels, per_group, *kernel = static(shape_of(weight))
    require(len(kernel) in TRANSPOSED_CONVOLUTIONS, f"torch has no convolution over {len(kernel)} spatial axes")
    area, added = transposed_window(op, kernel, spatial_sizes(data))
    group = op.attributes["group"]
    # What torch cannot leave out or add by itself is cut off, or added, behind.
    limits = [max(pair) for pair in zip(area.strides, area.dilations, strict=True)]
    is_allowed = all(extra < limit for extra, limit in zip(added, limits, strict=True))
    own, padding, crop = added if is_allowed else (0,) * area.rank, area.begin, None
    if not (is_allowed and area.is_symmetric):
        padding = (0,) * area.rank
        cut = [(-one, more - within - other) for (one, other), more, within in zip(area.pairs, added, own, strict=True)]
        require(bias is None or max(map(max, cut)) <= 0, "its output padding is larger than torch's")
        crop = padding_module(cut)
    if are_constant(weight, bias):
        module = TRANSPOSED_CONVOLUTIONS[area.rank](
            channels,
            per_group * group,
            area.kernel,
            stride=area.strides,
            padding=padding,
            output_padding=own,
            groups=group,
            bias=bias is not None,
            dilation=area.dilations,
            device="meta",
        )
        result = to.module(op, to.give_weights(module, weight, bias), data)
    else:
        settings = area.strides, padding, own, group, area.dilations
        result = to.function(_CONVOLVE_BACK[area.rank], data, weight, bias, *settings)
    return result if crop is None else to.module(op, crop, result, suffix="_crop")


@operator("Col2Im")
def columns_to_image(op: Operation, to: TorchBuilder, data: Value, image: Value, block: Value) -> fx.Node:
    sizes, kernel = (tuple(constant_of(one, "list of sizes").tolist()) for one in (image, block))
    require(len(sizes) == 2, "torch folds two axes")
    area = window_of(op, kernel, sizes)
    require(area.is_symmetric, "torch folds with the same padding on both sides")
    folding = nn.Fold(sizes, kernel, dilation=area.dilations, padding=area.begin, stride=area.strides)
    return to.module(op, folding, data)


@operator("ConvInteger")
def integer_convolution(
    op: Operation,
    to: TorchBuilder,
    data: Value,
    weight: Value,
    data_zero: Value | None = None,
    weight_zero: Value | None = None,
) -> fx.Node:
    area = window_of(op, static(shape_of(weight))[2:], spatial_sizes(data))
    kernel = subtract_zero(to, weight, weight_zero, 0)
    return to.cast(convolve(op, to, subtract_zero(to, data, data_zero), kernel, area), torch.int32)


def subtract_zero(to: TorchBuilder, value: Value, zero: Value | None, axis: int | None = None) -> fx.Node:
    """Quantised numbers less their zero point, as float64, in which sums of products of bytes are exact.

    Args:
        to: The graph.
        value: The numbers.
        zero: One zero point, or, where `axis` is given, one for each place along it.
        axis: See `zero`.
    """
    data = to.cast(value, torch.float64)
    if zero is None:
        return data
    point = to.cast(zero, torch.float64)
    if zero.rank == 1:
        is_one = zero.shape == (1,)
        require(is_one or axis is not None, "several zero points of its data are not supported")
        point = to.reshape(point, ()) if is_one else to.reshape(point, *along(axis or 0, rank_of(value)))
    require(rank_of(zero) < 2, "such zero points are not supported")
    return to.function(torch.sub, data, point)
