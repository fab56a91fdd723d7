"""Convolution and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator

_PADDING = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@operator("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def convolution(
    op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> OnnxValue:
    kernel = list(weight.shape[2:])
    require(len(x.shape) == len(kernel) + 2, "its input has no sample axis")
    dilation = each(dilation, len(kernel))
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pads = [one // 2 for one in total] + [one - one // 2 for one in total]
    else:
        pads = each(padding, len(kernel)) * 2
    strides = each(stride, len(kernel))
    settings = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilation, "group": groups}
    return to.node("Conv", x, weight, bias, **settings)


@operator("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def transposed_convolution(op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, *settings: Any) -> OnnxValue:
    stride, padding, output_padding, groups, dilation = settings
    kernel = list(weight.shape[2:])
    require(len(x.shape) == len(kernel) + 2, "its input has no sample axis")
    return to.node(
        "ConvTranspose",
        x,
        weight,
        bias,
        kernel_shape=kernel,
        strides=each(stride, len(kernel)),
        pads=each(padding, len(kernel)) * 2,
        output_padding=each(output_padding, len(kernel)),
        dilations=each(dilation, len(kernel)),
        group=groups,
    )


@operator("convolution")
def any_convolution(op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, *settings: Any) -> OnnxValue:
    stride, padding, dilation, transposed, output_padding, groups = settings
    if transposed:
        return transposed_convolution(op, to, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolution(op, to, x, weight, bias, stride, padding, dilation, groups)


@operator("col2im")
def fold(
    op: TorchOp, to: OnnxGraph, x: Any, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> OnnxValue:
    require(len(x.shape) == 3, "its input has no sample axis")
    settings = {"dilations": list(dilation), "pads": list(padding) * 2, "strides": list(stride)}
    return to.node("Col2Im", x, list(size), list(kernel), **settings)


@operator("pad", "constant_pad_nd")
def pad(op: TorchOp, to: OnnxGraph, x: Any, padding: Sequence[int], *how: Any) -> Any:
    mode, value = how if len(how) == 2 else ("constant", how[0])
    known = mode in _PADDING and not any(isinstance(one, torch.SymInt) for one in padding)
    require(known, "its padding is computed, or of an unknown mode")
    if not any(padding):
        return x
    require(mode != "circular" or min(padding) >= 0, "it cuts off what it wraps around")
    untouched = [0] * (len(x.shape) - len(padding) // 2)
    begin, end = list(padding[-2::-2]), list(padding[-1::-2])  # torch's come last axis first
    constant = to.scalar(value, x.dtype) if value else None
    return to.node("Pad", x, [*untouched, *begin, *untouched, *end], constant, mode=_PADDING[mode])


def each(value: Any, axes: int) -> list[int]:
    """One number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
