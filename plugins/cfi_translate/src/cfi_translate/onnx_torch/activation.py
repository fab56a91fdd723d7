"""Activation functions, each a module of torch where torch has one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.onnx_torch.reader import HANDLERS, Reader, is_float, operator, rank_of, refuse, shape_of, torch_type
from cfi_translate.program import Operation, Value

_PLAIN: dict[str, type[nn.Module]] = {
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softplus": nn.Softplus,
    "Softsign": nn.Softsign,
    "HardSwish": nn.Hardswish,
    "Mish": nn.Mish,
}


def _plain(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, _PLAIN[op.kind](), to.tensor(op.input(0)))


HANDLERS.update(dict.fromkeys(_PLAIN, _plain))


@operator("Elu")
def _elu(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, nn.ELU(op.attributes["alpha"]), to.tensor(op.input(0)))


@operator("Celu")
def _celu(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, nn.CELU(op.attributes["alpha"]), to.tensor(op.input(0)))


@operator("LeakyRelu")
def _leaky(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, nn.LeakyReLU(op.attributes["alpha"]), to.tensor(op.input(0)))


@operator("Selu")
def _selu(op: Operation, to: Reader) -> fx.Node:
    alpha, gamma = op.attributes["alpha"], op.attributes["gamma"]
    if math.isclose(alpha, 1.6732632423543772, rel_tol=1e-6) and math.isclose(gamma, 1.05070098735548, rel_tol=1e-6):
        return to.module(op, nn.SELU(), to.tensor(op.input(0)))
    return to.function(torch.mul, to.module(op, nn.ELU(alpha), to.tensor(op.input(0))), gamma)


@operator("HardSigmoid")
def _hard_sigmoid(op: Operation, to: Reader) -> fx.Node:
    alpha, beta = op.attributes["alpha"], op.attributes["beta"]
    data = to.tensor(op.input(0))
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return to.module(op, nn.Hardsigmoid(), data)
    line = to.function(torch.add, to.function(torch.mul, data, alpha), beta)
    return to.module(op, nn.Hardtanh(0.0, 1.0), line)


@operator("Gelu")
def _gelu(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, nn.GELU(op.attributes.get("approximate", "none")), to.tensor(op.input(0)))


@operator("Swish")
def _swish(op: Operation, to: Reader) -> fx.Node:
    alpha, data = op.attributes.get("alpha", 1.0), to.tensor(op.input(0))
    if alpha == 1:
        return to.module(op, nn.SiLU(), data)
    return to.function(torch.mul, data, to.module(op, nn.Sigmoid(), to.function(torch.mul, data, alpha)))


@operator("ThresholdedRelu")
def _thresholded(op: Operation, to: Reader) -> fx.Node:
    return to.module(op, nn.Threshold(op.attributes["alpha"], 0.0), to.tensor(op.input(0)))


@operator("Shrink")
def _shrink(op: Operation, to: Reader) -> fx.Node:
    bias, bound = op.attributes["bias"], op.attributes["lambd"]
    data = to.tensor(op.input(0))
    if is_float(op.output) and bound >= 0 and bias in (0, bound):
        return to.module(op, nn.Softshrink(bound) if bias else nn.Hardshrink(bound), data)
    if not is_float(op.output) and bias != int(bias):
        raise refuse(op, "it shrinks integers by a broken number")
    bias = bias if is_float(op.output) else int(bias)
    below = to.function(torch.where, to.function(torch.lt, data, -bound), to.function(torch.add, data, bias), 0)
    result = to.function(torch.where, to.function(torch.gt, data, bound), to.function(torch.sub, data, bias), below)
    return to.method("to", result, torch_type(op.output))


@operator("PRelu")
def _prelu(op: Operation, to: Reader) -> fx.Node:
    value, slope = op.input(0), op.input(1)
    data = to.tensor(value)
    channel = _channel_slope(value, slope)
    if channel is not None and slope is not None and is_float(value):
        module = nn.PReLU(channel, device="meta")
        module.weight = to.parameter(slope, "flat", lambda one: one.reshape(-1))
        return to.module(op, module, data)
    negative = to.function(torch.lt, data, 0)
    return to.function(torch.where, negative, to.function(torch.mul, data, to.tensor(slope)), data)


def _channel_slope(value: Value | None, slope: Value | None) -> int | None:
    """Number of slopes if there is one for all or one per channel, which torch has on axis 1."""
    if value is None or slope is None or not slope.is_constant or not slope.shape or value.shape is None:
        return None
    full = (1,) * (len(value.shape) - len(slope.shape)) + tuple(size or 0 for size in slope.shape)
    if len(full) != len(value.shape):
        return None
    if all(size == 1 for size in full):
        return 1
    others = [size for axis, size in enumerate(full) if axis != 1]
    return full[1] if len(full) > 1 and all(size == 1 for size in others) and full[1] == value.shape[1] else None


@operator("Clip")
def _clip(op: Operation, to: Reader) -> fx.Node:
    data = to.tensor(op.input(0))
    low, high = _bounds(op, to)
    numeric = not isinstance(low, fx.Node) and not isinstance(high, fx.Node)
    if low is None and high is None:
        return data
    if numeric and is_float(op.output):
        if low == 0 and high is None:
            return to.module(op, nn.ReLU(), data)
        if low == 0 and high == 6:
            return to.module(op, nn.ReLU6(), data)
        if low is not None and high is not None and low < high:
            return to.module(op, nn.Hardtanh(low, high), data)
        return to.function(torch.clamp, data, low, high)
    if numeric:
        return to.function(torch.clamp, data, low, high)
    # In this order the upper bound wins where they contradict each other.
    for bound, function in ((low, torch.maximum), (high, torch.minimum)):
        if bound is not None:
            data = to.function(function, data, bound if isinstance(bound, fx.Node) else _filled(to, data, bound))
    return data


def _filled(to: Reader, like: fx.Node, number: Any) -> fx.Node:
    return to.function(torch.full_like, like, number)


def _bounds(op: Operation, to: Reader) -> tuple[Any, Any]:
    if op.version < 11:
        largest = float(np.finfo(np.float32).max)
        low, high = op.attributes.get("min"), op.attributes.get("max")
        return (None if low is None or low <= -largest else low), (None if high is None or high >= largest else high)
    found: list[Any] = []
    for value in (op.input(1), op.input(2)):
        known = None if value is None else value.constant
        found.append(known.reshape(()).item() if known is not None else to.optional(value))
    return found[0], found[1]


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    data, rank = to.tensor(value), rank_of(op, value)
    axis = op.attributes["axis"] % rank if rank else 0
    makers = {"Softmax": nn.Softmax, "LogSoftmax": nn.LogSoftmax}
    if op.version >= 13 or axis == rank - 1:
        if op.kind == "Hardmax":
            return _hardmax(op, to, data, axis)
        return to.module(op, makers[op.kind](dim=axis), data)
    # Before version 13 all axes from `axis` on count as one.
    shape_of(op, value)
    flat = to.function(torch.flatten, data, axis)
    result = _hardmax(op, to, flat, axis) if op.kind == "Hardmax" else to.module(op, makers[op.kind](dim=axis), flat)
    assert value is not None
    return to.method("reshape", result, *to.sizes(value))


def _hardmax(op: Operation, to: Reader, data: fx.Node, axis: int) -> fx.Node:
    where = to.function(torch.argmax, data, dim=axis, keepdim=True)
    return to.function(torch.scatter, to.function(torch.zeros_like, data), axis, where, 1)
