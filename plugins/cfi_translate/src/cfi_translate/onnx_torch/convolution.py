"""Convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.onnx_torch.reader import Reader, fixed, operator, refuse, shape_of
from cfi_translate.onnx_torch.windows import ZERO_PADS, Window, spatial_sizes, window
from cfi_translate.program import Operation, Value

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONVOLVE_BACK = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


@operator("Conv")
def _conv(op: Operation, to: Reader) -> fx.Node:
    source, weight, bias = op.input(0), op.input(1), op.input(2)
    sizes = fixed(op, shape_of(op, weight))
    area = window(op, sizes[2:], spatial_sizes(op, source))
    group = op.attributes["group"]
    data = to.tensor(source)
    assert weight is not None
    if not weight.is_constant or (bias is not None and not bias.is_constant):
        data, area = padded(op, to, data, area)
        return to.function(
            CONVOLVE[area.rank],
            data,
            to.tensor(weight),
            to.optional(bias),
            area.strides,
            area.begin,
            area.dilations,
            group,
        )
    data, area = padded(op, to, data, area)
    module = _CONVOLUTIONS[area.rank](
        sizes[1] * group,
        sizes[0],
        area.kernel,
        stride=area.strides,
        padding=area.begin,
        dilation=area.dilations,
        groups=group,
        bias=bias is not None,
        device="meta",
    )
    _give_weights(module, to, weight, bias)
    return to.module(op, module, data)


def _give_weights(module: nn.Module, to: Reader, weight: Value, bias: Value | None) -> None:
    module.weight = to.parameter(weight)
    if bias is not None:
        module.bias = to.parameter(bias)


def padded(op: Operation, to: Reader, data: fx.Node, area: Window) -> tuple[fx.Node, Window]:
    """The data with zeros around them where the operator itself can only pad both sides alike."""
    if area.is_symmetric and min((*area.begin, 0)) == 0:
        return data, area
    nothing = (0,) * area.rank
    data = to.module(op, ZERO_PADS[area.rank](area.padding), data, suffix="_pad")
    return data, replace(area, begin=nothing, end=nothing)


@operator("ConvTranspose")
def _conv_transpose(op: Operation, to: Reader) -> fx.Node:
    source, weight, bias = op.input(0), op.input(1), op.input(2)
    sizes = fixed(op, shape_of(op, weight))
    spatial = spatial_sizes(op, source)
    area, added = _transposed_window(op, sizes[2:], spatial)
    group, data = op.attributes["group"], to.tensor(source)
    assert weight is not None
    # What torch cannot leave out or add by itself is cut off, or added, behind.
    is_allowed = all(
        extra < max(stride, dilation)
        for extra, stride, dilation in zip(added, area.strides, area.dilations, strict=True)
    )
    output_padding = added if is_allowed else (0,) * area.rank
    padding, cut = area.begin, None
    if not (is_allowed and area.is_symmetric):
        padding = (0,) * area.rank
        cut = replace(
            area,
            begin=tuple(-one for one in area.begin),
            end=tuple(extra - own - one for one, extra, own in zip(area.end, added, output_padding, strict=True)),
        )
        if bias is not None and any(one > 0 for one in (*cut.begin, *cut.end)):
            raise refuse(op, "its output padding is larger than torch's")
    if weight.is_constant and (bias is None or bias.is_constant):
        module = _TRANSPOSED[area.rank](
            sizes[0],
            sizes[1] * group,
            area.kernel,
            stride=area.strides,
            padding=padding,
            output_padding=output_padding,
            groups=group,
            bias=bias is not None,
            dilation=area.dilations,
            device="meta",
        )
        _give_weights(module, to, weight, bias)
        result = to.module(op, module, data)
    else:
        result = to.function(
            _CONVOLVE_BACK[area.rank],
            data,
            to.tensor(weight),
            to.optional(bias),
            area.strides,
            padding,
            output_padding,
            group,
            area.dilations,
        )
    return result if cut is None else to.module(op, ZERO_PADS[area.rank](cut.padding), result, suffix="_crop")


def _transposed_window(
    op: Operation, kernel: tuple[int, ...], spatial: tuple[int | None, ...]
) -> tuple[Window, tuple[int, ...]]:
    """The window, and how much longer than it makes them the axes are at their ends."""
    rank = len(kernel)
    area = window(replace_attributes(op, auto_pad="NOTSET"), kernel, spatial)
    added = tuple(op.attributes.get("output_padding") or (0,) * rank)
    mode = op.attributes.get("auto_pad", "NOTSET") or "NOTSET"
    shape = op.attributes.get("output_shape")
    if shape is None and mode in ("NOTSET", "VALID"):
        return (area if mode == "NOTSET" else replace(area, begin=(0,) * rank, end=(0,) * rank)), added
    sizes = fixed(op, spatial)
    if shape is None:
        shape = [size * stride for size, stride in zip(sizes, area.strides, strict=True)]
    shape = shape[-rank:]
    begin, end = [], []
    for axis in range(rank):
        total = area.strides[axis] * (sizes[axis] - 1) + added[axis] + area.extent[axis] - shape[axis]
        if total < 0 and mode == "NOTSET":
            raise refuse(op, "its output is larger than what its input reaches")
        # Against the wording of the specification, and with ONNX Runtime, the smaller half stands in front unless
        # the mode is SAME_LOWER.
        total = max(total, 0)
        halves = (total // 2, total - total // 2)
        halves = halves[::-1] if mode == "SAME_LOWER" else halves
        begin.append(halves[0])
        end.append(halves[1])
    return replace(area, begin=tuple(begin), end=tuple(end)), added


def replace_attributes(op: Operation, **attributes: Any) -> Operation:
    """The operation with other attributes."""
    return Operation(op.kind, op.name, op.version, op.inputs, op.outputs, {**op.attributes, **attributes})


@operator("Col2Im")
def _col2im(op: Operation, to: Reader) -> fx.Node:
    image, block = op.input(1), op.input(2)
    image_sizes = None if image is None else image.constant
    block_sizes = None if block is None else block.constant
    if image_sizes is None or block_sizes is None or len(image_sizes) != 2:
        raise refuse(op, "torch folds two axes of constant sizes")
    area = window(op, [int(one) for one in block_sizes], [int(one) for one in image_sizes])
    if not area.is_symmetric:
        raise refuse(op, "torch folds with the same padding on both sides")
    folding = nn.Fold(
        tuple(int(one) for one in image_sizes),
        area.kernel,
        dilation=area.dilations,
        padding=area.begin,
        stride=area.strides,
    )
    return to.module(op, folding, to.tensor(op.input(0)))


@operator("ConvInteger")
def _conv_integer(op: Operation, to: Reader) -> fx.Node:
    source, weight = op.input(0), op.input(1)
    sizes = fixed(op, shape_of(op, weight))
    area = window(op, sizes[2:], spatial_sizes(op, source))
    data = centred(op, to, source, op.input(2), None)
    kernel = centred(op, to, weight, op.input(3), 0)
    return to.method("to", convolved(op, to, data, kernel, area), torch.int32)


def centred(op: Operation, to: Reader, value: Value | None, zero: Value | None, axis: int | None) -> fx.Node:
    """Quantised numbers less their zero point, as float64, in which sums of products of bytes are exact.

    Args:
        op: Who asks.
        to: The graph.
        value: The numbers.
        zero: One zero point, or, where `axis` is given, one for each place along it.
        axis: See `zero`.
    """
    data = to.method("to", to.tensor(value), torch.float64)
    if zero is None:
        return data
    point = to.method("to", to.tensor(zero), torch.float64)
    rank = len(shape_of(op, value))
    if zero.rank == 1 and axis is not None and zero.shape != (1,):
        point = to.method("reshape", point, *(-1 if one == axis % rank else 1 for one in range(rank)))
    elif zero.rank == 1 and zero.shape == (1,):
        point = to.method("reshape", point, ())
    elif zero.rank != 0:
        raise refuse(op, "such zero points are not supported")
    return to.function(torch.sub, data, point)


def convolved(op: Operation, to: Reader, data: Any, kernel: Any, area: Window) -> fx.Node:
    """A convolution of nodes."""
    data, area = padded(op, to, data, area)
    group = op.attributes["group"]
    return to.function(CONVOLVE[area.rank], data, kernel, None, area.strides, area.begin, area.dilations, group)


def depthwise_ones(channels: int, kernel: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Weights with which a convolution in groups of one adds up what a window holds."""
    return np.ones((channels, 1, *kernel), dtype)
