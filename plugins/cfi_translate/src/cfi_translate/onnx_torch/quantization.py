"""Quantised numbers, computed as ONNX Runtime does: rounded to even, cut to what the type holds."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from cfi_translate.onnx_torch.convolution import centred, convolved
from cfi_translate.onnx_torch.linear import quantized
from cfi_translate.onnx_torch.reader import Reader, fixed, operator, refuse, shape_of, torch_type
from cfi_translate.onnx_torch.windows import spatial_sizes, window
from cfi_translate.program import Operation, Value


def _spread(op: Operation, to: Reader, value: Value | None, node: fx.Node) -> fx.Node:
    """A scale or zero point as it stands beside the data: one, one per place of an axis, or one per block of it."""
    sizes = shape_of(op, op.input(0))
    own = shape_of(op, value)
    if own in ((), (1,)) and len(sizes) != 1:
        return to.method("reshape", node, ()) if own else node
    axis = op.attributes.get("axis", 1) % max(len(sizes), 1)
    block = op.attributes.get("block_size", 0)
    if block:
        size = sizes[axis]
        if size is None:
            raise refuse(op, "its blocks divide the sample axis")
        repeated = to.function(torch.repeat_interleave, node, block, dim=axis)
        return to.function(torch.narrow, repeated, axis, 0, size)
    if len(own) > 1:
        raise refuse(op, "such scales are not supported")
    return to.method("reshape", node, *(-1 if one == axis else 1 for one in range(len(sizes)))) if own else node


@operator("QuantizeLinear")
def _quantize(op: Operation, to: Reader) -> fx.Node:
    if op.output.dtype is None or op.output.dtype.kind not in "iu" or op.attributes.get("precision"):
        raise refuse(op, "it quantises to another type than integers, or with a precision of its own")
    data, scale, zero = op.input(0), op.input(1), op.input(2)
    divided = to.function(torch.div, to.tensor(data), _spread(op, to, scale, to.tensor(scale)))
    rounded = to.function(torch.round, divided)
    if zero is not None:
        rounded = to.function(torch.add, rounded, _spread(op, to, zero, to.tensor(zero)))
    limits = torch.iinfo(torch_type(op.output))
    return to.method("to", to.function(torch.clamp, rounded, limits.min, limits.max), torch_type(op.output))


@operator("DequantizeLinear")
def _dequantize(op: Operation, to: Reader) -> fx.Node:
    value, scale, zero = op.input(0), op.input(1), op.input(2)
    if value is None or value.dtype is None or value.dtype.kind not in "iu":
        raise refuse(op, "it dequantises another type than integers")
    data = to.tensor(value)
    if zero is not None:
        # The difference of two bytes does not fit into a byte.
        wide = to.method("to", _spread(op, to, zero, to.tensor(zero)), torch.int32)
        data = to.function(torch.sub, to.method("to", data, torch.int32), wide)
    result = to.function(torch.mul, to.method("to", data, torch.float32), _spread(op, to, scale, to.tensor(scale)))
    return result if op.output.dtype == np.float32 else to.method("to", result, torch_type(op.output))


@operator("QLinearConv")
def _qlinear_conv(op: Operation, to: Reader) -> fx.Node:
    value, one_scale, one_zero, weight, other_scale, other_zero, scale, zero = op.inputs[:8]
    for part in (one_scale, scale, one_zero, zero):
        if part is None or part.shape not in ((), (1,)):
            raise refuse(op, "several scales of its data are not supported")
    sizes = fixed(op, shape_of(op, weight))
    area = window(op, sizes[2:], spatial_sizes(op, value))
    data = centred(op, to, value, one_zero, None)
    total = convolved(op, to, data, centred(op, to, weight, other_zero, 0), area)
    per_channel = (-1, *(1,) * area.rank)
    bias = op.input(8)
    if bias is not None:
        total = to.function(torch.add, total, to.method("reshape", to.tensor(bias), *per_channel))
    factor = to.method("reshape", to.tensor(other_scale), *per_channel)
    factor = to.function(torch.div, to.function(torch.mul, to.tensor(one_scale), factor), to.tensor(scale))
    return quantized(op, to, to.function(torch.mul, total, factor), zero)
