"""Activation functions, each a module of torch where torch has one."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, torch_type
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import clip_bounds, is_standard, softmax_axes

_PLAIN: dict[str, type[nn.Module]] = {
    "HardSwish": nn.Hardswish,
    "Mish": nn.Mish,
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "Softsign": nn.Softsign,
    "Tanh": nn.Tanh,
}
_BY_ALPHA: dict[str, type[nn.Module]] = {"Celu": nn.CELU, "Elu": nn.ELU, "LeakyRelu": nn.LeakyReLU}


@operator(*_PLAIN)
def plain(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.module(op, _PLAIN[op.kind](), data)


@operator(*_BY_ALPHA)
def by_alpha(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.module(op, _BY_ALPHA[op.kind](op.attributes["alpha"]), data)


@operator("Selu")
def selu(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    if is_standard(op):
        return to.module(op, nn.SELU(), data)
    return to.function(torch.mul, to.module(op, nn.ELU(op.attributes["alpha"]), data), op.attributes["gamma"])


@operator("HardSigmoid")
def hard_sigmoid(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    if is_standard(op):
        return to.module(op, nn.Hardsigmoid(), data)
    line = to.function(torch.add, to.function(torch.mul, data, op.attributes["alpha"]), op.attributes["beta"])
    return to.module(op, nn.Hardtanh(0.0, 1.0), line)


@operator("Gelu")
def gelu(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.module(op, nn.GELU(op.attributes["approximate"]), data)


@operator("Swish")
def swish(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    alpha = op.attributes["alpha"]
    if alpha == 1:
        return to.module(op, nn.SiLU(), data)
    return to.function(torch.mul, data, to.module(op, nn.Sigmoid(), to.function(torch.mul, data, alpha)))


@operator("ThresholdedRelu")
def thresholded_relu(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.module(op, nn.Threshold(op.attributes["alpha"], 0.0), data)


@operator("Shrink")
def shrink(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    bias, bound = op.attributes["bias"], op.attributes["lambd"]
    if data.is_float and bound >= 0 and bias in (0, bound):
        return to.module(op, nn.Softshrink(bound) if bias else nn.Hardshrink(bound), data)
    require(data.is_float or bias == int(bias), "it shrinks integers by a broken number")
    bias = bias if data.is_float else int(bias)
    below = to.function(torch.where, to.function(torch.lt, data, -bound), to.function(torch.add, data, bias), 0)
    result = to.function(torch.where, to.function(torch.gt, data, bound), to.function(torch.sub, data, bias), below)
    return to.cast(result, torch_type(op.output))


@operator("PRelu")
def prelu(op: Operation, to: TorchBuilder, data: Value, slope: Value) -> fx.Node:
    slopes = _native_slopes(data, slope)
    if slopes is not None and data.is_float:
        module = nn.PReLU(slopes, device="meta")
        module.weight = to.parameter(slope, "flat", lambda one: one.reshape(-1))
        return to.module(op, module, data)
    negative = to.function(torch.lt, data, 0)
    return to.function(torch.where, negative, to.function(torch.mul, data, slope), data)


def _native_slopes(data: Value, slope: Value) -> int | None:
    """Number of slopes if there is one for all or one per channel, which torch has on axis 1."""
    if not slope.is_constant or not slope.shape or data.shape is None or len(slope.shape) > len(data.shape):
        return None
    full = (1,) * (len(data.shape) - len(slope.shape)) + tuple(size or 0 for size in slope.shape)
    if all(size == 1 for size in full):
        return 1
    is_channel = all(size == 1 for axis, size in enumerate(full) if axis != 1) and full[1] == data.shape[1]
    return full[1] if is_channel else None


@operator("Clip")
def clip(op: Operation, to: TorchBuilder, data: Value, low: Value | None = None, high: Value | None = None) -> fx.Node:
    least, most = clip_bounds(op, low, high)
    if least is None and most is None:
        return to.tensor(data)
    if isinstance(least, Value) or isinstance(most, Value):
        return _clip_to_tensors(to, data, least, most)
    if data.is_float and least == 0 and most in (None, 6):
        return to.module(op, nn.ReLU() if most is None else nn.ReLU6(), data)
    if data.is_float and least is not None and most is not None and least < most:
        return to.module(op, nn.Hardtanh(least, most), data)
    return to.function(torch.clamp, data, least, most)


def _clip_to_tensors(to: TorchBuilder, data: Any, least: Any, most: Any) -> fx.Node:
    # In this order the upper bound wins where they contradict each other.
    for bound, function in ((least, torch.maximum), (most, torch.minimum)):
        if bound is not None:
            full = bound if isinstance(bound, Value) else to.function(torch.full_like, data, bound)
            data = to.function(function, data, full)
    return data


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    axis, *others = softmax_axes(op, data)
    source: Any = to.function(torch.flatten, data, axis) if others else data
    if op.kind == "Hardmax":
        where = to.function(torch.argmax, source, dim=axis, keepdim=True)
        result = to.function(torch.scatter, to.function(torch.zeros_like, source), axis, where, 1)
    else:
        result = to.module(op, nn.Softmax(dim=axis) if op.kind == "Softmax" else nn.LogSoftmax(dim=axis), source)
    return to.reshape(result, *to.sizes(data)) if others else result
