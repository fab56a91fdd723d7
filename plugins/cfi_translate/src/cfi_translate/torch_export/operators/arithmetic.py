"""Operators that work element by element: arithmetic, comparisons, activations."""

# What a function writes is said by its decorator.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import Emitter, Value
from cfi_translate.torch_export.operators.registry import Writer, writes


def _elementwise(kind: str, **attributes: Any) -> Writer:
    """A writer for an operator of one tensor that ONNX has too."""

    def write(emit: Emitter, x: Any) -> Value:
        return emit.op(kind, emit.cast(x, emit.result.dtype), **attributes)

    return write


for _name, _kind in {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "selu": "Selu",
    "mish": "Mish",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sign": "Sign",
    "logical_not": "Not",
    "bitwise_not": "Not",
}.items():
    writes(_name)(_elementwise(_kind))
writes("hardsigmoid")(_elementwise("HardSigmoid", alpha=1 / 6, beta=0.5))


def _promoted(emit: Emitter, *operands: Any, dtype: torch.dtype | None = None) -> list[Any]:
    """The operands in the type that torch computes in."""
    return [emit.cast(one, dtype or emit.result.dtype) for one in operands]


def _arithmetic(kind: str) -> Writer:
    def write(emit: Emitter, first: Any, second: Any, alpha: Any = 1) -> Value:
        first, second = _promoted(emit, first, second)
        if alpha != 1:
            second = emit.op("Mul", second, emit.scalar(alpha, emit.result.dtype))
        if emit.result.dtype == torch.bool:
            raise emit.refuse("it computes with truth values")
        return emit.op(kind, first, second)

    return write


writes("add.Tensor", "add.Scalar")(_arithmetic("Add"))
writes("sub.Tensor", "sub.Scalar")(_arithmetic("Sub"))
writes("mul.Tensor", "mul.Scalar")(_arithmetic("Mul"))
writes("div.Tensor", "div.Scalar")(_arithmetic("Div"))
writes("maximum")(_arithmetic("Max"))
writes("minimum")(_arithmetic("Min"))


@writes("rsub.Scalar", "rsub.Tensor")
def reversed_subtraction(emit: Emitter, first: Any, second: Any, alpha: Any = 1) -> Value:
    return _arithmetic("Sub")(emit, second, first) if alpha == 1 else _refused_alpha(emit)


def _refused_alpha(emit: Emitter) -> Value:
    raise emit.refuse("its factor alpha is not 1")


@writes("div.Tensor_mode", "div.Scalar_mode")
def rounded_division(emit: Emitter, first: Any, second: Any, rounding: str | None = None) -> Value:
    quotient = _arithmetic("Div")(emit, first, second)
    if rounding is None:
        return quotient
    # torch rounds by way of the remainder: 1.0 // 0.1 is 9, where the quotient rounds to 10.
    raise emit.refuse("it rounds the quotient")


@writes("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def power(emit: Emitter, base: Any, exponent: Any) -> Value:
    if not emit.result.dtype.is_floating_point:
        raise emit.refuse("it is a power of integers")
    if exponent == 2 and not isinstance(exponent, torch.Tensor):
        (base,) = _promoted(emit, base)
        return emit.op("Mul", base, base)
    return emit.op("Pow", *_promoted(emit, base, exponent))


@writes("square")
def square(emit: Emitter, x: Any) -> Value:
    return emit.op("Mul", x, x)


@writes("rsqrt")
def reciprocal_root(emit: Emitter, x: Any) -> Value:
    return emit.op("Reciprocal", emit.op("Sqrt", emit.cast(x, emit.result.dtype)))


@writes("log1p")
def log_of_one_more(emit: Emitter, x: Any) -> Value:
    (x,) = _promoted(emit, x)
    return emit.op("Log", emit.op("Add", x, emit.scalar(1, emit.result.dtype)))


def _logarithm(basis: float) -> Writer:
    def write(emit: Emitter, x: Any) -> Value:
        (x,) = _promoted(emit, x)
        return emit.op("Mul", emit.op("Log", x), emit.scalar(1 / math.log(basis), emit.result.dtype))

    return write


writes("log2")(_logarithm(2))
writes("log10")(_logarithm(10))


@writes("expm1")
def exponential_less_one(emit: Emitter, x: Any) -> Value:
    (x,) = _promoted(emit, x)
    half = emit.op("Mul", x, emit.scalar(0.5, emit.result.dtype))
    twice = emit.op("Mul", emit.op("Exp", half), emit.scalar(2, emit.result.dtype))
    return emit.op("Mul", twice, emit.op("Sinh", half))  # the difference from 1 would lose what is small


@writes("trunc")
def whole_part(emit: Emitter, x: Any) -> Value:
    if not x.dtype.is_floating_point:
        return emit.op("Identity", x)
    return emit.op("Mul", emit.op("Sign", x), emit.op("Floor", emit.op("Abs", x)))


@writes("addcmul")
def product_added(emit: Emitter, x: Any, first: Any, second: Any, value: Any) -> Value:
    x, first, second = _promoted(emit, x, first, second)
    product = emit.op("Mul", first, second)
    if value != 1:
        product = emit.op("Mul", product, emit.scalar(value, emit.result.dtype))
    return emit.op("Add", x, product)


@writes("lerp.Scalar", "lerp.Tensor")
def interpolation(emit: Emitter, start: Any, end: Any, weight: Any) -> Value:
    start, end, weight = _promoted(emit, start, end, weight)
    return emit.op("Add", start, emit.op("Mul", emit.op("Sub", end, start), weight))


def _comparison(kind: str, *, negated: bool = False) -> Writer:
    def write(emit: Emitter, first: Any, second: Any) -> Value:
        dtype = _common(first, second)
        if dtype == torch.bool and kind != "Equal":
            raise emit.refuse("it orders truth values")
        compared = emit.op(kind, *_promoted(emit, first, second, dtype=dtype))
        return emit.op("Not", compared) if negated else compared

    return write


def _common(first: Any, second: Any) -> torch.dtype:
    """The type in which torch compares."""
    examples = [
        torch.empty((0,) * min(1, len(one.shape)), dtype=one.dtype) if hasattr(one, "dtype") else one
        for one in (first, second)
    ]
    examples = [1 if isinstance(one, torch.SymInt) else one for one in examples]
    examples = [
        torch.empty((), dtype=one.dtype) if isinstance(one, torch.Tensor) and one.dim() == 0 else one
        for one in examples
    ]
    return torch.result_type(*examples)


for _name, _kind in {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal"}.items():
    writes(f"{_name}.Scalar", f"{_name}.Tensor")(_comparison(_kind))
writes("ne.Scalar", "ne.Tensor")(_comparison("Equal", negated=True))


def _logical(kind: str) -> Writer:
    def write(emit: Emitter, first: Any, second: Any) -> Value:
        if any(getattr(one, "dtype", torch.bool) != torch.bool for one in (first, second)):
            raise emit.refuse("it takes bits of numbers")
        return emit.op(kind, *_promoted(emit, first, second, dtype=torch.bool))

    return write


for _name, _kind in {"and": "And", "or": "Or", "xor": "Xor"}.items():
    writes(f"logical_{_name}", f"bitwise_{_name}.Tensor", f"__{_name}__.Tensor")(_logical(_kind))


@writes("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def choice(emit: Emitter, condition: Any, first: Any, second: Any) -> Value:
    return emit.op("Where", emit.cast(condition, torch.bool), *_promoted(emit, first, second))


@writes("masked_fill.Scalar", "masked_fill.Tensor")
def masked(emit: Emitter, x: Any, mask: Any, value: Any) -> Value:
    return emit.op("Where", mask, *_promoted(emit, value, x))


@writes("isnan")
def is_nan(emit: Emitter, x: Any) -> Value:
    return emit.op("IsNaN", x)


@writes("clamp", "clamp.Tensor", "clip")
def clamped(emit: Emitter, x: Any, low: Any = None, high: Any = None) -> Value:
    if any(len(getattr(one, "shape", ())) for one in (low, high)):
        for kind, bound in (("Max", low), ("Min", high)):
            x = x if bound is None else emit.op(kind, *_promoted(emit, x, bound))
        return x
    bounds = [None if one is None else emit.cast(one, emit.result.dtype) for one in (low, high)]
    return emit.op("Clip", emit.cast(x, emit.result.dtype), *bounds)


@writes("clamp_min")
def clamped_below(emit: Emitter, x: Any, low: Any) -> Value:
    return clamped(emit, x, low, None)


@writes("clamp_max")
def clamped_above(emit: Emitter, x: Any, high: Any) -> Value:
    return clamped(emit, x, None, high)


@writes("hardtanh")
def hard_tanh(emit: Emitter, x: Any, low: Any, high: Any) -> Value:
    return clamped(emit, x, low, high)


@writes("relu6")
def relu6(emit: Emitter, x: Any) -> Value:
    return clamped(emit, x, 0, 6)


@writes("silu")
def silu(emit: Emitter, x: Any) -> Value:
    return emit.op("Mul", x, emit.op("Sigmoid", x))


@writes("gelu")
def gelu(emit: Emitter, x: Any, approximate: str) -> Value:
    return emit.op("Gelu", x, approximate=approximate)


@writes("leaky_relu")
def leaky_relu(emit: Emitter, x: Any, slope: float) -> Value:
    return emit.op("LeakyRelu", x, alpha=float(slope))


@writes("elu")
def elu(emit: Emitter, x: Any, alpha: float, scale: float, input_scale: float) -> Value:
    if scale != 1 or input_scale != 1:
        raise emit.refuse("it is scaled")
    return emit.op("Elu", x, alpha=float(alpha))


@writes("celu")
def celu(emit: Emitter, x: Any, alpha: float) -> Value:
    return emit.op("Celu", x, alpha=float(alpha))


@writes("prelu")
def prelu(emit: Emitter, x: Value, slope: Any) -> Value:
    if not isinstance(slope, torch.Tensor):
        raise emit.refuse("its slope is computed")
    return emit.op("PRelu", x, slope.reshape(-1, *(1,) * (len(x.shape) - 2)) if len(x.shape) > 2 else slope)


@writes("rrelu")
def rrelu(emit: Emitter, x: Any, lower: float, upper: float, training: bool, _generator: Any) -> Value:
    if training:
        raise emit.refuse("its result is random")
    return emit.op("LeakyRelu", x, alpha=(lower + upper) / 2)


@writes("softplus")
def softplus(emit: Emitter, x: Any, beta: float, threshold: float) -> Value:
    scale = emit.scalar(beta, x.dtype)
    scaled = x if beta == 1 else emit.op("Mul", x, scale)
    soft = emit.op("Softplus", scaled)
    soft = soft if beta == 1 else emit.op("Div", soft, scale)
    if threshold >= 20:  # beyond it both agree to the last bit of a float32
        return soft
    return emit.op("Where", emit.op("Greater", scaled, emit.scalar(threshold, x.dtype)), x, soft)


@writes("softsign")
def softsign(emit: Emitter, x: Any) -> Value:
    return emit.op("Softsign", x)


@writes("log_sigmoid")
def log_sigmoid(emit: Emitter, x: Any) -> Value:
    return emit.op("Neg", emit.op("Softplus", emit.op("Neg", x)))


@writes("hardshrink")
def hard_shrink(emit: Emitter, x: Any, threshold: float) -> Value:
    return emit.op("Shrink", x, lambd=float(threshold), bias=0.0)


@writes("softshrink")
def soft_shrink(emit: Emitter, x: Any, threshold: float) -> Value:
    return emit.op("Shrink", x, lambd=float(threshold), bias=float(threshold))


@writes("threshold")
def thresholded(emit: Emitter, x: Any, threshold: float, value: float) -> Value:
    above = emit.op("Greater", x, emit.scalar(threshold, x.dtype))
    return emit.op("Where", above, x, emit.scalar(value, x.dtype))


@writes("glu")
def gated(emit: Emitter, x: Any, axis: int) -> Value:
    half = int(x.shape[axis]) // 2
    value, gate = emit.ops("Split", 2, x, np.array([half, half]), axis=axis)
    return emit.op("Mul", value, emit.op("Sigmoid", gate))


def _softmax(kind: str) -> Callable[..., Value]:
    def write(emit: Emitter, x: Any, axis: int, _dtype: Any = None) -> Value:
        return emit.op(kind, emit.cast(x, emit.result.dtype), axis=axis)

    return write


writes("softmax.int", "_softmax")(_softmax("Softmax"))
writes("log_softmax.int", "_log_softmax")(_softmax("LogSoftmax"))
