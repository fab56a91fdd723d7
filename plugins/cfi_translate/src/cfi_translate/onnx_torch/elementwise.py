"""Operators that work element by element: arithmetic, comparisons, logic, casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import fx

from cfi_translate.onnx_torch.reader import DTYPES, HANDLERS, Reader, is_float, operator, refuse, torch_type
from cfi_translate.program import Operation

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.det,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
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


def _unary(op: Operation, to: Reader) -> fx.Node:
    return to.function(_UNARY[op.kind], to.tensor(op.input(0)))


def _binary(op: Operation, to: Reader) -> fx.Node:
    one, other = operands(op, to, numbers=op.kind not in _NO_SCALARS)
    return to.function(_BINARY[op.kind], one, other)


HANDLERS.update(dict.fromkeys(_UNARY, _unary))
HANDLERS.update(dict.fromkeys(_BINARY, _binary))


def operands(op: Operation, to: Reader, *, numbers: bool = True) -> tuple[Any, Any]:
    """Both operands, broadcast as the version of the operator says; at most the second is a number."""
    one, other = op.input(0), op.input(1)
    if op.version < 7 and "broadcast" in op.attributes:
        return to.tensor(one), _aligned(op, to)
    second = to.operand(other, (one,)) if numbers else to.tensor(other)
    if isinstance(second, fx.Node):
        first = to.operand(one, (other,)) if numbers and op.kind in ("Add", "Mul") else to.tensor(one)
        # torch's functions want a tensor first.
        return (first, second) if isinstance(first, fx.Node) else (second, first)
    return to.tensor(one), second


def _aligned(op: Operation, to: Reader) -> fx.Node:
    """The second operand of old operators, whose axes begin at `axis` of the first."""
    one, other = op.input(0), op.input(1)
    node = to.tensor(other)
    if not op.attributes.get("broadcast") or "axis" not in op.attributes:
        return node
    if one is None or other is None or one.rank is None or other.rank is None:
        raise refuse(op, "the number of axes of its inputs is not known")
    behind = one.rank - op.attributes["axis"] % one.rank - other.rank
    return to.method("reshape", node, *to.sizes(other), *(1,) * behind) if behind else node


@operator("Div")
def _div(op: Operation, to: Reader) -> fx.Node:
    one, other = operands(op, to)
    return to.function(torch.div, one, other, **({} if is_float(op.output) else {"rounding_mode": "trunc"}))


@operator("Mod")
def _mod(op: Operation, to: Reader) -> fx.Node:
    if op.attributes.get("fmod"):
        return to.function(torch.fmod, *operands(op, to))
    if is_float(op.output):
        raise refuse(op, "the modulus of floating point numbers needs fmod=1")
    return to.function(torch.remainder, *operands(op, to))


@operator("Pow")
def _pow(op: Operation, to: Reader) -> fx.Node:
    base, exponent = op.input(0), op.input(1)
    one, other = operands(op, to)
    if is_float(base):
        result = to.function(torch.pow, one, other)
        same = base is not None and exponent is not None and base.dtype == exponent.dtype
        return result if same or not is_float(exponent) else to.method("to", result, torch_type(op.output))
    if is_float(exponent):
        result = to.function(torch.pow, to.method("to", one, torch.float64), other)
        return to.method("to", result, torch_type(op.output))
    if base is None or exponent is None or base.dtype != exponent.dtype:
        return to.method("to", to.function(torch.pow, one, other), torch_type(op.output))
    return to.function(torch.pow, one, other)


@operator("BitShift")
def _bit_shift(op: Operation, to: Reader) -> fx.Node:
    one, other = to.tensor(op.input(0)), to.tensor(op.input(1))
    if op.attributes["direction"] == "LEFT":
        return to.function(torch.bitwise_left_shift, one, other)
    if op.output.dtype == np.uint64:
        raise refuse(op, "torch does not shift unsigned integers of 64 bits to the right")
    return to.function(torch.bitwise_right_shift, one, other)


@operator("BitCast")
def _bit_cast(op: Operation, to: Reader) -> fx.Node:
    source = op.input(0)
    if source is None or source.dtype is None or op.output.dtype is None:
        raise refuse(op, "its types are not known")
    if source.dtype.itemsize != op.output.dtype.itemsize or "b" in (source.dtype.kind, op.output.dtype.kind):
        raise refuse(op, "the types differ in size, or one is bool")
    return to.method("view", to.tensor(source), torch_type(op.output))


@operator("Cast", "CastLike")
def _cast(op: Operation, to: Reader) -> fx.Node:
    source = op.input(0)
    if source is None or source.dtype not in DTYPES:
        raise refuse(op, "the type that it converts from is not supported")
    if source.dtype == op.output.dtype:
        return to.tensor(source)
    if is_float(source) and op.output.dtype is not None and op.output.dtype.kind == "u":
        # From negative numbers, the direct way is undefined.
        return to.method("to", to.method("to", to.tensor(source), torch.int64), torch_type(op.output))
    return to.method("to", to.tensor(source), torch_type(op.output))


@operator("Identity")
def _identity(op: Operation, to: Reader) -> fx.Node:
    return to.tensor(op.input(0))


@operator("Dropout")
def _dropout(op: Operation, to: Reader) -> tuple[fx.Node | None, ...]:
    training = op.input(2)
    if training is not None and training.uniform is None:
        raise refuse(op, "whether it is in training mode is computed while the model runs")
    if training is not None and bool(training.uniform):
        ratio = op.input(1)
        if ratio is None or ratio.uniform != 0:
            raise refuse(op, "it is in training mode; export the model in inference mode")
    data = to.tensor(op.input(0))
    if op.kind == "Dropout" and op.version < 7 and not op.attributes.get("is_test"):
        raise refuse(op, "it is in training mode; export the model in inference mode")
    mask = None
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        mask = to.function(torch.ones_like, data, dtype=torch_type(op.outputs[1]))
    return data, mask


@operator("Max", "Min", "Sum", "Mean")
def _variadic(op: Operation, to: Reader) -> fx.Node:
    function = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add, "Mean": torch.add}[op.kind]
    nodes = [to.tensor(value) for value in op.inputs]
    total = reduce(lambda one, other: to.function(function, one, other), nodes)
    return to.function(torch.div, total, len(nodes)) if op.kind == "Mean" and len(nodes) > 1 else total


@operator("Where")
def _where(op: Operation, to: Reader) -> fx.Node:
    return to.function(torch.where, *(to.tensor(value) for value in op.inputs))


@operator("IsInf")
def _is_inf(op: Operation, to: Reader) -> fx.Node:
    data = to.tensor(op.input(0))
    positive, negative = op.attributes.get("detect_positive", 1), op.attributes.get("detect_negative", 1)
    if positive and negative:
        return to.function(torch.isinf, data)
    if not positive and not negative:
        return to.function(torch.zeros_like, data, dtype=torch.bool)
    return to.function(torch.isposinf if positive else torch.isneginf, data)
