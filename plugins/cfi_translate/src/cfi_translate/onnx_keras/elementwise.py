"""Arithmetic, comparison and logic, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.activations import applied
from cfi_translate.onnx_keras.building import TYPES, Builder, Built, Handler
from cfi_translate.onnx_keras.keras_faults import add, adds_rightly
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported
from cfi_translate.program import Operation, Value

_Function = Callable[..., Any]


def _unary(function: _Function, kinds: str = "f") -> Handler:
    """Handler of an operation on one tensor of a type of these kinds (as in numpy)."""

    def build(builder: Builder, operation: Operation) -> Tensor:
        dtype = np.dtype(builder.scrambled(operation.input(0)).dtype)
        if dtype.kind not in kinds:
            raise Unsupported(f"it is not supported for {dtype}")
        return applied(builder, operation, function)

    return build


def _operands(builder: Builder, operation: Operation) -> tuple[list[Any], tuple[int, ...]]:
    if operation.output.shape is None or None in operation.inputs:
        raise Unsupported("the shape of its result is not known")
    values = [value for value in operation.inputs if value is not None]
    return builder.common(values, len(operation.output.shape), operation.name)


def _binary(function: _Function, kinds: str = "fiu") -> Handler:
    """Handler of an operation on two tensors of types of these kinds."""

    def build(builder: Builder, operation: Operation) -> Tensor:
        _check_types(operation, kinds)
        operands, axes = _operands(builder, operation)
        return Tensor(builder.named(function(*operands), operation.name), axes)

    return build


def _check_types(operation: Operation, kinds: str) -> None:
    for value in operation.inputs:
        if value is not None and (value.dtype is None or value.dtype.kind not in kinds):
            raise Unsupported(f"it is not supported for {value.dtype}")


def _merging(layer: str, function: _Function, kinds: str = "fiu") -> Handler:
    """Handler of an operation on any number of tensors: Keras's layer for tensors of one rank, else a function."""

    def build(builder: Builder, operation: Operation) -> Tensor:
        _check_types(operation, kinds)
        operands, axes = _operands(builder, operation)
        if len(operands) == 1:
            return Tensor(operands[0], axes)
        ranks = {None if isinstance(one, np.ndarray) else len(one.shape) for one in operands}
        first = {None if isinstance(one, np.ndarray) else one.shape[:1] for one in operands}
        is_float = operation.output.dtype is not None and operation.output.dtype.kind == "f"
        alike = None not in ranks and ranks == {len(axes)} and len(axes) > 1 and len(first) == 1
        if alike and is_float and (layer != "Add" or _adds_rightly(operands)):
            make = getattr(layers, layer)
            made = make(dtype=str(operation.output.dtype), name=builder.name(operation.name))(operands)
        else:
            made = builder.named(reduce(function, operands), operation.name)
        return Tensor(made, axes)

    return build


def _adds_rightly(operands: Sequence[Any]) -> bool:
    shapes = [tuple(one.shape) for one in operands]
    totals = list(accumulate(shapes, _broadcast))
    return all(adds_rightly(total, shape) for total, shape in zip(totals, shapes[1:], strict=False))


def _broadcast(first: Sequence[int | None], second: Sequence[int | None]) -> tuple[int | None, ...]:
    """The shape of two tensors of the same rank together."""
    return tuple(b if a == 1 else a for a, b in zip(first, second, strict=True))


def _mean(builder: Builder, operation: Operation) -> Tensor:
    _check_types(operation, "f")
    operands, axes = _operands(builder, operation)
    if len(operands) == 1:
        return Tensor(operands[0], axes)
    count = np.asarray(len(operands), str(operation.output.dtype))
    return Tensor(builder.named(ops.divide(reduce(add, operands), count), operation.name), axes)


def _divided(builder: Builder, operation: Operation) -> Tensor:
    _check_types(operation, "fiu")
    operands, axes = _operands(builder, operation)
    dtype = operation.output.dtype
    function: _Function = ops.divide if dtype is not None and dtype.kind == "f" else ops.floor_divide
    if dtype is not None and dtype.kind == "i":
        function = _truncated_division
    return Tensor(builder.named(function(*operands), operation.name), axes)


def _truncated_division(a: Any, b: Any) -> Any:
    """Towards zero, where Python rounds down."""
    quotient = ops.floor_divide(a, b)
    dtype = str(quotient.dtype)
    inexact = ops.not_equal(ops.multiply(quotient, b), a)
    opposite = ops.not_equal(ops.less(a, _zero(dtype)), ops.less(b, _zero(dtype)))
    return ops.add(quotient, ops.cast(ops.logical_and(inexact, opposite), dtype))


def _zero(dtype: str) -> np.ndarray:
    return np.zeros((), dtype)


def _mod(builder: Builder, operation: Operation) -> Tensor:
    _check_types(operation, "fiu")
    operands, axes = _operands(builder, operation)
    dtype = operation.output.dtype
    if not operation.attributes.get("fmod", 0) or (dtype is not None and dtype.kind == "u"):
        made = ops.mod(*operands)
    else:
        a, b = operands
        made = ops.multiply(ops.sign(a), ops.mod(ops.absolute(a), ops.absolute(b)))
    return Tensor(builder.named(made, operation.name), axes)


def _power(builder: Builder, operation: Operation) -> Tensor:
    base, exponent = operation.inputs[0], operation.inputs[1]
    if base is None or exponent is None or base.dtype is None or base.dtype.kind != "f":
        raise Unsupported("powers of integers are not supported")
    number = exponent.uniform if exponent.is_constant and exponent.rank == 0 else None
    if number in (2, 0.5):
        return applied(builder, operation, ops.square if number == 2 else ops.sqrt)
    (first, second), axes = _operands(builder, operation)
    dtype = str(base.dtype)
    if exponent.dtype != base.dtype:
        second = second.astype(dtype) if isinstance(second, np.ndarray) else ops.cast(second, dtype)
    return Tensor(builder.named(ops.power(first, second), operation.name), axes)


def _where(builder: Builder, operation: Operation) -> Tensor:
    operands, axes = _operands(builder, operation)
    return Tensor(builder.named(ops.where(*operands), operation.name), axes)


def _cast(builder: Builder, operation: Operation) -> Tensor:
    source, target = operation.inputs[0], operation.output.dtype
    if source is None or source.dtype is None or str(target) not in TYPES or target is None:
        raise Unsupported(f"a cast to {target} is not supported")
    tensor = builder.scrambled(source)
    if source.dtype == target:
        return tensor
    if source.dtype.kind == "f" and target.kind == "u":
        raise Unsupported("a cast of fractions to numbers without a sign is not supported")
    if target.kind == "b":
        return applied(builder, operation, lambda x: ops.not_equal(x, np.zeros((), str(source.dtype))))
    return applied(builder, operation, lambda x: ops.cast(x, str(target)))


def _same(builder: Builder, operation: Operation) -> Tensor:
    return builder.scrambled(operation.input(0))


def _dropout(builder: Builder, operation: Operation) -> list[Tensor | None]:
    training = operation.input(2)
    if (training is not None and training.uniform is None) or (training is not None and bool(training.uniform)):
        ratio: Value | None = operation.input(1)
        if ratio is None or ratio.uniform != 0:
            raise Unsupported("it drops at random")
    tensor = builder.scrambled(operation.input(0))
    mask = operation.outputs[1] if len(operation.outputs) > 1 else None
    if mask is None or tensor.order is not None:
        return [tensor, None]
    return [tensor, Tensor(ops.ones_like(tensor.value, dtype="bool"), tensor.axes)]


def _infinite(builder: Builder, operation: Operation) -> Built:
    negative, positive = (operation.attributes.get(f"detect_{one}", 1) for one in ("negative", "positive"))
    if negative and positive:
        return _unary(ops.isinf)(builder, operation)
    if not negative and not positive:
        raise Unsupported("it looks for nothing")
    return _unary(ops.isposinf if positive else ops.isneginf)(builder, operation)


OPERATORS: Mapping[str, Handler] = {
    "Abs": _unary(ops.absolute, "fi"),
    "Acos": _unary(ops.arccos),
    "Acosh": _unary(ops.arccosh),
    "Add": _merging("Add", add),
    "And": _binary(ops.logical_and, "b"),
    "Asin": _unary(ops.arcsin),
    "Asinh": _unary(ops.arcsinh),
    "Atan": _unary(ops.arctan),
    "Atanh": _unary(ops.arctanh),
    "BitwiseAnd": _binary(ops.bitwise_and, "iu"),
    "BitwiseNot": _unary(ops.bitwise_not, "iu"),
    "BitwiseOr": _binary(ops.bitwise_or, "iu"),
    "BitwiseXor": _binary(ops.bitwise_xor, "iu"),
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _unary(ops.ceil),
    "Cos": _unary(ops.cos),
    "Cosh": _unary(ops.cosh),
    "Div": _divided,
    "Dropout": _dropout,
    "Equal": _binary(ops.equal, "fiub"),
    "Erf": _unary(ops.erf),
    "Floor": _unary(ops.floor),
    "Greater": _binary(ops.greater),
    "GreaterOrEqual": _binary(ops.greater_equal),
    "Identity": _same,
    "IsInf": _infinite,
    "IsNaN": _unary(ops.isnan),
    "Less": _binary(ops.less),
    "LessOrEqual": _binary(ops.less_equal),
    "Log": _unary(ops.log),
    "Max": _merging("Maximum", ops.maximum),
    "Mean": _mean,
    "Min": _merging("Minimum", ops.minimum),
    "Mod": _mod,
    "Mul": _merging("Multiply", ops.multiply),
    "Neg": _unary(ops.negative, "fi"),
    "Not": _unary(ops.logical_not, "b"),
    "Or": _binary(ops.logical_or, "b"),
    "Pow": _power,
    "Reciprocal": _unary(ops.reciprocal),
    "Round": _unary(ops.round),
    "Sign": _unary(ops.sign, "fi"),
    "Sin": _unary(ops.sin),
    "Sinh": _unary(ops.sinh),
    "Sqrt": _unary(ops.sqrt),
    "Sub": _binary(ops.subtract),
    "Sum": _merging("Add", add),
    "Tan": _unary(ops.tan),
    "Where": _where,
    "Xor": _binary(ops.logical_xor, "b"),
}
