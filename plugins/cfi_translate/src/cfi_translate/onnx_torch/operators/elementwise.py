"""Operators that work element by element: arithmetic, comparisons, logic, casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import fx

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import DTYPES, TorchBuilder, torch_type
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import rank_of, require_inference
from cfi_translate.torch_modules import of_torch

_UNARY: dict[str, Callable[..., Any]] = {
    **of_torch("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Det", "Erf", "Exp"),
    **of_torch("Floor", "IsNaN", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan"),
    "BitwiseNot": torch.bitwise_not,
    "Not": torch.logical_not,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
_NO_SCALARS = {"And", "Or", "Xor"}


@operator(*_UNARY)
def unary(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.function(_UNARY[op.kind], data)


@operator(*_BINARY)
def binary(op: Operation, to: TorchBuilder, one: Value, other: Value) -> fx.Node:
    return to.function(_BINARY[op.kind], *_broadcast(op, to, one, other))


def _broadcast(op: Operation, to: TorchBuilder, one: Value, other: Value) -> tuple[Any, Any]:
    """Both operands, broadcast as the version of the operator says; at most the second is a number."""
    if op.version < 7 and "broadcast" in op.attributes:
        return one, _align(op, to, one, other)
    second = other if op.kind in _NO_SCALARS else to.operand(other, one)
    if not isinstance(second, fx.Node | Value):
        return one, second
    first = to.operand(one, other) if op.kind in ("Add", "Mul") else one
    # torch's functions want a tensor first.
    return (first, second) if isinstance(first, fx.Node | Value) else (second, first)


def _align(op: Operation, to: TorchBuilder, one: Value, other: Value) -> Any:
    """The second operand of old operators, whose axes begin at `axis` of the first."""
    if not op.attributes["broadcast"] or "axis" not in op.attributes:
        return other
    behind = rank_of(one) - op.attributes["axis"] % rank_of(one) - rank_of(other)
    return to.reshape(other, *to.sizes(other), *(1,) * behind) if behind else other


@operator("Div")
def division(op: Operation, to: TorchBuilder, one: Value, other: Value) -> fx.Node:
    options = {} if op.output.is_float else {"rounding_mode": "trunc"}
    return to.function(torch.div, *_broadcast(op, to, one, other), **options)


@operator("Mod")
def modulus(op: Operation, to: TorchBuilder, one: Value, other: Value) -> fx.Node:
    is_float = bool(op.attributes["fmod"])
    require(is_float or not op.output.is_float, "the modulus of floating point numbers needs fmod=1")
    return to.function(torch.fmod if is_float else torch.remainder, *_broadcast(op, to, one, other))


@operator("Pow")
def power(op: Operation, to: TorchBuilder, base: Value, exponent: Value) -> fx.Node:
    one, other = _broadcast(op, to, base, exponent)
    if exponent.is_float and not base.is_float:
        one = to.cast(one, torch.float64)
    result = to.function(torch.pow, one, other)
    is_same = base.dtype == exponent.dtype or (base.is_float and not exponent.is_float)
    return result if is_same else to.cast(result, torch_type(op.output))


@operator("BitShift")
def shift(op: Operation, to: TorchBuilder, one: Value, other: Value) -> fx.Node:
    if op.attributes["direction"] == "LEFT":
        return to.function(torch.bitwise_left_shift, one, other)
    require(op.output.dtype != np.uint64, "torch does not shift unsigned integers of 64 bits to the right")
    return to.function(torch.bitwise_right_shift, one, other)


@operator("BitCast")
def reinterpretation(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    one, other = np.dtype(data.dtype), np.dtype(op.output.dtype)
    alike = one.itemsize == other.itemsize and "b" not in (one.kind, other.kind)
    require(alike, "the types differ in size, or one is bool")
    return to.method("view", data, torch_type(op.output))


@operator("Cast", "CastLike")
def cast(op: Operation, to: TorchBuilder, data: Value, like: Value | None = None) -> fx.Node:
    require(data.dtype in DTYPES, "the type that it converts from is not supported")
    if data.dtype == op.output.dtype:
        return to.tensor(data)
    # From negative numbers with a fraction to unsigned ones, the direct way is undefined.
    source = to.cast(data, torch.int64) if data.is_float and np.dtype(op.output.dtype).kind == "u" else data
    return to.cast(source, torch_type(op.output))


@operator("Identity")
def identity(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.tensor(data)


@operator("Dropout")
def dropout(
    op: Operation, to: TorchBuilder, data: Value, ratio: Value | None = None, training: Value | None = None
) -> tuple[fx.Node | None, ...]:
    require_inference(op, ratio=ratio, training=training)
    if len(op.results) == 1:
        return to.tensor(data), None
    return to.tensor(data), to.function(torch.ones_like, data, dtype=torch_type(op.results[1]))


@operator("Max", "Min", "Sum", "Mean")
def variadic(op: Operation, to: TorchBuilder, *operands: Value) -> fx.Node:
    function = {"Max": torch.maximum, "Min": torch.minimum}.get(op.kind, torch.add)
    total = reduce(lambda one, other: to.function(function, one, other), map(to.tensor, operands))
    return to.function(torch.div, total, len(operands)) if op.kind == "Mean" and len(operands) > 1 else total


@operator("Where")
def choice(op: Operation, to: TorchBuilder, condition: Value, one: Value, other: Value) -> fx.Node:
    return to.function(torch.where, condition, one, other)


@operator("IsInf")
def is_infinite(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    positive, negative = op.attributes["detect_positive"], op.attributes["detect_negative"]
    if positive and negative:
        return to.function(torch.isinf, data)
    if not positive and not negative:
        return to.function(torch.zeros_like, data, dtype=torch.bool)
    return to.function(torch.isposinf if positive else torch.isneginf, data)
