"""Arithmetic, comparison and logic, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import accumulate
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import TYPES, KerasBuilder
from cfi_translate.onnx_keras.keras_faults import add, adds_rightly
from cfi_translate.onnx_keras.operators.activation import apply
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import rank_of, require_inference

_Function = Callable[..., Any]

# Functions, and the kinds of numbers (as in numpy) for which they come out right.
_UNARY: Mapping[str, tuple[_Function, str]] = {
    **{name: (getattr(ops, name.lower()), "f") for name in ("Ceil", "Erf", "Floor", "IsNaN", "Log", "Round", "Sqrt")},
    **{name: (getattr(ops, name.lower()), "f") for name in ("Cos", "Cosh", "Reciprocal", "Sin", "Sinh", "Tan")},
    **{f"A{name}": (getattr(ops, f"arc{name}"), "f") for name in ("cos", "cosh", "sin", "sinh", "tan", "tanh")},
    "Abs": (ops.absolute, "fi"),
    "BitwiseNot": (ops.bitwise_not, "iu"),
    "Neg": (ops.negative, "fi"),
    "Not": (ops.logical_not, "b"),
    "Sign": (ops.sign, "fi"),
}
_BINARY: Mapping[str, tuple[_Function, str]] = {
    "And": (ops.logical_and, "b"),
    "BitwiseAnd": (ops.bitwise_and, "iu"),
    "BitwiseOr": (ops.bitwise_or, "iu"),
    "BitwiseXor": (ops.bitwise_xor, "iu"),
    "Equal": (ops.equal, "fiub"),
    "Greater": (ops.greater, "fiu"),
    "GreaterOrEqual": (ops.greater_equal, "fiu"),
    "Less": (ops.less, "fiu"),
    "LessOrEqual": (ops.less_equal, "fiu"),
    "Or": (ops.logical_or, "b"),
    "Sub": (ops.subtract, "fiu"),
    "Xor": (ops.logical_xor, "b"),
}
# Layers for tensors of one rank, and functions for others.
_MERGING: Mapping[str, tuple[_Function, _Function]] = {
    "Add": (layers.Add, add),
    "Mul": (layers.Multiply, ops.multiply),
    "Sum": (layers.Add, add),
}
_EXTREMA: Mapping[str, _Function] = {"Max": ops.maximum, "Min": ops.minimum}


def require_kinds(kinds: str, *values: Value) -> None:
    """Refuses numbers of other kinds (as in numpy) than these."""
    for value in values:
        require(np.dtype(value.dtype).kind in kinds, f"it is not supported for {value.dtype}")


@operator(*_UNARY)
def unary(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    function, kinds = _UNARY[op.kind]
    require_kinds(kinds, data)
    return apply(to, data, function)


@operator(*_BINARY)
def binary(op: Operation, to: KerasBuilder, one: Value, other: Value) -> Tensor:
    function, kinds = _BINARY[op.kind]
    require_kinds(kinds, one, other)
    operands, axes = to.align((one, other), rank_of(op.output))
    return Tensor(function(*operands), axes)


@operator(*_MERGING)
def merge(op: Operation, to: KerasBuilder, *given: Value) -> Tensor:
    require_kinds("fiu", *given)
    layer, function = _MERGING[op.kind]
    operands, axes = to.align(given, rank_of(op.output))
    if len(operands) == 1:
        return Tensor(operands[0], axes)
    ranks = {None if isinstance(one, np.ndarray) else len(one.shape) for one in operands}
    first = {None if isinstance(one, np.ndarray) else one.shape[:1] for one in operands}
    are_alike = ranks == {len(axes)} and len(axes) > 1 and len(first) == 1 and op.output.is_float
    if are_alike and (layer is not layers.Add or _adds_rightly(operands)):
        return Tensor(to.layer(layer, operands), axes)
    return Tensor(reduce(function, operands), axes)


@operator(*_EXTREMA)
def extremum(op: Operation, to: KerasBuilder, *given: Value) -> Tensor:
    require_kinds("fiu", *given)
    operands, axes = to.align(given, rank_of(op.output))
    function = _EXTREMA[op.kind]
    return Tensor(reduce(partial(_extremum, function) if op.output.is_float else function, operands), axes)


def _extremum(function: _Function, a: Any, b: Any) -> Any:
    """Where both are equal, each gets half of the gradient, as in torch."""
    half = np.asarray(0.5, str((b if isinstance(a, np.ndarray) else a).dtype))
    return ops.where(ops.equal(a, b), ops.add(ops.multiply(a, half), ops.multiply(b, half)), function(a, b))


def _adds_rightly(operands: Sequence[Any]) -> bool:
    """Whether Keras adds them, of one rank, one after the other without a fault."""
    shapes = [tuple(one.shape) for one in operands]
    totals = accumulate(shapes, lambda one, other: tuple(b if a == 1 else a for a, b in zip(one, other, strict=True)))
    return all(adds_rightly(total, shape) for total, shape in zip(totals, shapes[1:], strict=False))


@operator("Mean")
def mean(op: Operation, to: KerasBuilder, *given: Value) -> Tensor:
    require_kinds("f", *given)
    operands, axes = to.align(given, rank_of(op.output))
    if len(operands) == 1:
        return Tensor(operands[0], axes)
    return Tensor(ops.divide(reduce(add, operands), np.asarray(len(operands), str(op.output.dtype))), axes)


@operator("Div")
def division(op: Operation, to: KerasBuilder, one: Value, other: Value) -> Tensor:
    require_kinds("fiu", one, other)
    operands, axes = to.align((one, other), rank_of(op.output))
    functions = {"f": ops.divide, "i": _truncated_division, "u": ops.floor_divide}
    return Tensor(functions[np.dtype(op.output.dtype).kind](*operands), axes)


def _truncated_division(a: Any, b: Any) -> Any:
    """Towards zero, where Python rounds down."""
    quotient = ops.floor_divide(a, b)
    zero = np.zeros((), str(quotient.dtype))
    inexact = ops.not_equal(ops.multiply(quotient, b), a)
    opposite = ops.not_equal(ops.less(a, zero), ops.less(b, zero))
    return ops.add(quotient, ops.cast(ops.logical_and(inexact, opposite), str(quotient.dtype)))


@operator("Mod")
def modulus(op: Operation, to: KerasBuilder, one: Value, other: Value) -> Tensor:
    require_kinds("fiu", one, other)
    (a, b), axes = to.align((one, other), rank_of(op.output))
    if not op.attributes["fmod"] or np.dtype(op.output.dtype).kind == "u":
        return Tensor(ops.mod(a, b), axes)
    # Not by `ops.sign` and `ops.absolute`, which have no slope at zero, where this has that of the dividend.
    is_negative = ops.less(a, np.zeros((), str(op.output.dtype)))
    rest = ops.mod(ops.where(is_negative, ops.negative(a), a), ops.absolute(b))
    return Tensor(ops.where(is_negative, ops.negative(rest), rest), axes)


@operator("Pow")
def power(op: Operation, to: KerasBuilder, base: Value, exponent: Value) -> Tensor:
    require(base.is_float, "powers of integers are not supported")
    number = exponent.uniform if exponent.is_constant and exponent.rank == 0 else None
    if number in (2, 0.5):
        return apply(to, base, ops.square if number == 2 else ops.sqrt)
    (first, second), axes = to.align((base, exponent), rank_of(op.output))
    dtype = str(base.dtype)
    if exponent.dtype != base.dtype:
        second = second.astype(dtype) if isinstance(second, np.ndarray) else ops.cast(second, dtype)
    return Tensor(ops.power(first, second), axes)


@operator("Where")
def choice(op: Operation, to: KerasBuilder, condition: Value, one: Value, other: Value) -> Tensor:
    operands, axes = to.align((condition, one, other), rank_of(op.output))
    return Tensor(ops.where(*operands), axes)


@operator("Cast", "CastLike")
def cast(op: Operation, to: KerasBuilder, data: Value, like: Value | None = None) -> Tensor:
    source, target = np.dtype(data.dtype), np.dtype(op.output.dtype)
    require(str(target) in TYPES, f"a cast to {target} is not supported")
    if source == target:
        return to.tensor_as_it_lies(data)
    is_defined = source.kind != "f" or target.kind != "u"
    require(is_defined, "a cast of fractions to numbers without a sign is not supported")
    if target.kind == "b":
        return apply(to, data, lambda x: ops.not_equal(x, np.zeros((), source)))
    return apply(to, data, lambda x: ops.cast(x, str(target)))


@operator("Identity")
def identity(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    return to.tensor_as_it_lies(data)


@operator("Dropout")
def dropout(
    op: Operation, to: KerasBuilder, data: Value, ratio: Value | None = None, training: Value | None = None
) -> tuple[Tensor | None, ...]:
    require_inference(op, ratio=ratio, training=training)
    tensor = to.tensor_as_it_lies(data)
    if len(op.results) == 1 or tensor.order is not None:
        return tensor, None
    return tensor, Tensor(ops.ones_like(tensor.value, dtype="bool"), tensor.axes)


@operator("IsInf")
def is_infinite(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    require_kinds("f", data)
    sides = op.attributes["detect_negative"], op.attributes["detect_positive"]
    require(any(sides), "it looks for nothing")
    return apply(to, data, ops.isinf if all(sides) else ops.isposinf if sides[1] else ops.isneginf)
