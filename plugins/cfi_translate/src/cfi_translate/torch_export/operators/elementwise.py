"""Operators that work element by element: arithmetic, comparisons, logic, types."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator

_UNARY = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor log neg reciprocal round sign sin sinh sqrt tan"
)
_ARITHMETIC = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
_COMPARISONS = {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal"}
_LOGIC = {"and": "And", "or": "Or", "xor": "Xor"}


def unary(kind: str, **attributes: Any) -> Converter:
    """The function of an operator of one tensor that ONNX has too."""
    return lambda op, to, x: to.node(kind, to.cast(x, op.dtype), **attributes)


def promote(op: TorchOp, to: OnnxGraph, *operands: Any) -> list[Any]:
    """The operands in the type in which torch computes the result."""
    return [to.cast(one, op.dtype) for one in operands]


def _arithmetic(kind: str) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, first: Any, second: Any, alpha: Any = 1) -> OnnxValue:
        require(op.dtype != torch.bool, "it computes with truth values")
        first, second = promote(op, to, first, second)
        return to.node(kind, first, to.scale(second, alpha, op.dtype))

    return convert


def _comparison(kind: str, *, negated: bool = False) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, first: Any, second: Any) -> OnnxValue:
        dtype = torch.result_type(_example(first), _example(second))
        require(dtype != torch.bool or kind == "Equal", "it orders truth values")
        compared = to.node(kind, to.cast(first, dtype), to.cast(second, dtype))
        return to.node("Not", compared) if negated else compared

    return convert


def _example(operand: Any) -> Any:
    """Something of the same type; torch tells numbers, tensors without axes and tensors with axes apart."""
    if isinstance(operand, torch.SymInt):
        return 1
    return torch.empty((0,) * min(1, len(operand.shape)), dtype=operand.dtype) if hasattr(operand, "dtype") else operand


def _logic(kind: str) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, first: Any, second: Any) -> OnnxValue:
        truths = all(getattr(one, "dtype", torch.bool) == torch.bool for one in (first, second))
        require(truths, "it takes bits of numbers")
        return to.node(kind, to.cast(first, torch.bool), to.cast(second, torch.bool))

    return convert


for _name in _UNARY.split():
    operator(_name)(unary(_name.capitalize()))
operator("logical_not", "bitwise_not")(unary("Not"))
for _name, _kind in _ARITHMETIC.items():
    operator(f"{_name}.Tensor", f"{_name}.Scalar")(_arithmetic(_kind))
operator("maximum")(_arithmetic("Max"))
operator("minimum")(_arithmetic("Min"))
for _name, _kind in _COMPARISONS.items():
    operator(f"{_name}.Tensor", f"{_name}.Scalar")(_comparison(_kind))
operator("ne.Tensor", "ne.Scalar")(_comparison("Equal", negated=True))
for _name, _kind in _LOGIC.items():
    operator(f"logical_{_name}", f"bitwise_{_name}.Tensor", f"__{_name}__.Tensor")(_logic(_kind))


@operator("div.Tensor_mode", "div.Scalar_mode")
def round_quotient(op: TorchOp, to: OnnxGraph, first: Any, second: Any, rounding: str | None) -> OnnxValue:
    # torch rounds by way of the remainder: 1.0 // 0.1 is 9, where the quotient rounds to 10.
    require(rounding is None, "it rounds the quotient")
    return to.node("Div", *promote(op, to, first, second))


@operator("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(op: TorchOp, to: OnnxGraph, first: Any, second: Any) -> OnnxValue:
    first, second = promote(op, to, first, second)
    if not op.dtype.is_floating_point:
        return to.node("Mod", first, second)
    # ONNX gives fractions the sign of the dividend, torch that of the divisor.
    rest = to.node("Mod", first, second, fmod=1)
    signs = to.node("Mul", to.node("Sign", rest), to.node("Sign", second))
    opposite = to.node("Less", signs, to.scalar(0, op.dtype))
    return to.node("Where", opposite, to.node("Add", rest, second), rest)


@operator("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def power(op: TorchOp, to: OnnxGraph, base: Any, exponent: Any) -> OnnxValue:
    require(op.dtype.is_floating_point, "it is a power of integers")
    if exponent == 2 and not isinstance(exponent, torch.Tensor):
        (base,) = promote(op, to, base)
        return to.node("Mul", base, base)
    return to.node("Pow", *promote(op, to, base, exponent))


@operator("rsqrt")
def reciprocal_root(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    return to.node("Reciprocal", to.node("Sqrt", to.cast(x, op.dtype)))


@operator("log1p")
def log_of_one_more(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    return to.node("Log", to.node("Add", to.cast(x, op.dtype), to.scalar(1, op.dtype)))


def _logarithm(base: float) -> Converter:
    return lambda op, to, x: to.scale(to.node("Log", to.cast(x, op.dtype)), 1 / math.log(base), op.dtype)


operator("log2")(_logarithm(2))
operator("log10")(_logarithm(10))


@operator("expm1")
def exponential_less_one(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    half = to.scale(to.cast(x, op.dtype), 0.5, op.dtype)
    twice = to.scale(to.node("Exp", half), 2, op.dtype)
    return to.node("Mul", twice, to.node("Sinh", half))  # the difference from 1 would lose what is small


@operator("trunc")
def whole_part(op: TorchOp, to: OnnxGraph, x: Any) -> Any:
    if not x.dtype.is_floating_point:
        return x
    return to.node("Mul", to.node("Sign", x), to.node("Floor", to.node("Abs", x)))


@operator("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def choose(op: TorchOp, to: OnnxGraph, condition: Any, first: Any, second: Any) -> OnnxValue:
    return to.node("Where", to.cast(condition, torch.bool), *promote(op, to, first, second))


@operator("isnan")
def is_nan(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    return to.node("IsNaN", x)


@operator("clamp", "clamp.Tensor", "clamp_min", "clamp_min.Tensor", "hardtanh")
def clamp(op: TorchOp, to: OnnxGraph, x: Any, low: Any, high: Any = None) -> Any:
    x, *bounds = (None if one is None else to.cast(one, op.dtype) for one in (x, low, high))
    if not any(len(getattr(one, "shape", ())) for one in bounds):
        if op.name.startswith("aten::hardtanh") or not _has_slope_at_bounds():
            return to.node("Clip", x, *bounds)
        for kind, bound in zip(("Less", "Greater"), bounds, strict=True):
            x = x if bound is None else to.node("Where", to.node(kind, x, bound), bound, x)
        return x
    for kind, bound in zip(("Max", "Min"), bounds, strict=True):
        x = x if bound is None else to.node(kind, x, bound)
    return x


@cache
def _has_slope_at_bounds() -> bool:
    """Whether torch's clamp hands the gradient on at its bound, which depends on torch's version."""
    x = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(torch.clamp(x, min=0.0), x)
    return bool(slope)


@operator("to.dtype", "to.dtype_layout", "to.device", "to.other", "_to_copy", "type_as")
def convert_type(op: TorchOp, to: OnnxGraph, x: Any, *_: Any) -> Any:
    return to.cast(x, op.dtype)


@operator("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh", "positive", "resolve_conj")
def identity(op: TorchOp, to: OnnxGraph, x: Any, *_: Any) -> Any:
    return x


@operator("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(op: TorchOp, to: OnnxGraph, x: Any, probability: float, training: bool) -> Any:
    require(not training, "its result is random")
    return x
