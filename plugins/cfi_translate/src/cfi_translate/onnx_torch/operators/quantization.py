"""Quantised numbers, computed as ONNX Runtime does: rounded to even, cut to what the type holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, along, torch_type
from cfi_translate.onnx_torch.operators.convolution import convolve, subtract_zero
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import shape_of, static
from cfi_translate.semantics.windows import spatial_sizes, window_of


def _spread(op: Operation, to: TorchBuilder, data: Value, value: Value) -> Any:
    """A scale or zero point as it stands beside the data: one, one per place of an axis, or one per block of it."""
    sizes, own = shape_of(data), shape_of(value)
    if not own or (own == (1,) and len(sizes) != 1):
        return to.reshape(value, ()) if own else value
    axis = op.attributes.get("axis", 1) % max(len(sizes), 1)
    block = op.attributes.get("block_size", 0)
    if block:
        (size,) = static(sizes[axis : axis + 1])
        return to.function(torch.narrow, to.function(torch.repeat_interleave, value, block, dim=axis), axis, 0, size)
    require(len(own) == 1, "such scales are not supported")
    return to.reshape(value, *along(axis, len(sizes)))


def _quantize(op: Operation, to: TorchBuilder, data: Any, zero: Any) -> fx.Node:
    """Rounded to even, moved by a zero point and cut to what the output's type holds."""
    rounded = to.function(torch.round, data)
    if zero is not None:
        rounded = to.function(torch.add, rounded, zero)
    limits = torch.iinfo(torch_type(op.output))
    return to.cast(to.function(torch.clamp, rounded, limits.min, limits.max), torch_type(op.output))


@operator("QuantizeLinear")
def quantize(op: Operation, to: TorchBuilder, data: Value, scale: Value, zero: Value | None = None) -> fx.Node:
    is_integer = np.dtype(op.output.dtype).kind in "iu" and not op.attributes.get("precision")
    require(is_integer, "it quantises to another type than integers, or with a precision of its own")
    divided = to.function(torch.div, data, _spread(op, to, data, scale))
    return _quantize(op, to, divided, None if zero is None else _spread(op, to, data, zero))


@operator("DequantizeLinear")
def dequantize(op: Operation, to: TorchBuilder, data: Value, scale: Value, zero: Value | None = None) -> fx.Node:
    require(np.dtype(data.dtype).kind in "iu", "it dequantises another type than integers")
    difference: Any = data
    if zero is not None:
        # The difference of two bytes does not fit into a byte.
        wide = to.cast(_spread(op, to, data, zero), torch.int32)
        difference = to.function(torch.sub, to.cast(data, torch.int32), wide)
    result = to.function(torch.mul, to.cast(difference, torch.float32), _spread(op, to, data, scale))
    return result if op.output.dtype == np.float32 else to.cast(result, torch_type(op.output))


def _require_single(*values: Value) -> None:
    single = all(value.shape in ((), (1,)) for value in values)
    require(single, "scales and zero points of several values are not supported")


@operator("QLinearMatMul")
def product(
    op: Operation,
    to: TorchBuilder,
    one: Value,
    one_scale: Value,
    one_zero: Value,
    other: Value,
    other_scale: Value,
    other_zero: Value,
    scale: Value,
    zero: Value,
) -> fx.Node:
    _require_single(one_scale, other_scale, scale, one_zero, other_zero, zero)
    total = to.function(torch.matmul, subtract_zero(to, one, one_zero), subtract_zero(to, other, other_zero))
    factor = to.function(torch.div, to.function(torch.mul, one_scale, other_scale), scale)
    return _quantize(op, to, to.function(torch.mul, total, factor), zero)


@operator("QLinearConv")
def convolution(
    op: Operation,
    to: TorchBuilder,
    data: Value,
    data_scale: Value,
    data_zero: Value,
    weight: Value,
    weight_scale: Value,
    weight_zero: Value,
    scale: Value,
    zero: Value,
    bias: Value | None = None,
) -> fx.Node:
    _require_single(data_scale, scale, data_zero, zero)
    area = window_of(op, static(shape_of(weight))[2:], spatial_sizes(data))
    total = convolve(op, to, subtract_zero(to, data, data_zero), subtract_zero(to, weight, weight_zero, 0), area)
    per_channel = (-1, *(1,) * area.rank)
    if bias is not None:
        total = to.function(torch.add, total, to.reshape(bias, *per_channel))
    factor = to.function(torch.mul, data_scale, to.reshape(weight_scale, *per_channel))
    return _quantize(op, to, to.function(torch.mul, total, to.function(torch.div, factor, scale)), zero)
