"""Matrix products: Dense where the matrix is constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.keras_faults import add
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, identity
from cfi_translate.onnx_keras.weights import made_with
from cfi_translate.program import Operation, Value

_FLOATS = ("float16", "float32", "float64")
_TYPES = (*_FLOATS, "int32", "int64")


def _dense(
    builder: Builder,
    operation: Operation,
    source: Value | None,
    matrix: Callable[[], np.ndarray],
    bias: np.ndarray | None,
    units: int,
) -> Tensor:
    """A product of the last axis with a matrix of the shape (inputs, units)."""
    tensor = builder.scrambled(source)
    axes = tensor.axes
    if axes[-1] != tensor.rank - 1:
        axes = (*(axis for axis in axes if axis != tensor.rank - 1), tensor.rank - 1)
    value = builder.laid(tensor, axes, operation.name)
    layer = layers.Dense(
        units,
        use_bias=bias is not None,
        dtype=tensor.dtype,
        name=builder.name(operation.name),
    )
    return Tensor(made_with(layer, value, matrix, bias, order=tensor.order), axes)


def _size(value: Value, axis: int) -> int:
    size = None if value.shape is None else value.shape[axis]
    if size is None:
        raise Unsupported("the size of its matrix is not known")
    return size


def _unpacked(value: Value) -> np.ndarray:
    array = value.constant
    assert array is not None
    return array


def _matmul(builder: Builder, operation: Operation) -> Tensor:
    left, right, bias = operation.inputs[0], operation.inputs[1], operation.input(2)
    if left is None or right is None or operation.output.shape is None:
        raise Unsupported("its operands are not known")
    if str(operation.output.dtype) not in _TYPES:
        raise Unsupported(f"products of {operation.output.dtype} are not supported")
    is_float = str(operation.output.dtype) in _FLOATS
    if right.is_constant and right.rank == 2 and is_float and not left.is_constant and (left.rank or 0) >= 2:
        offset = None if bias is None else bias.constant
        return _dense(builder, operation, left, lambda: _unpacked(right), offset, _size(right, 1))
    rank = len(operation.output.shape)

    def operand(value: Value) -> Any:
        found = builder.operand(value)
        return found if isinstance(found, np.ndarray) else builder.laid(found, identity(found.rank), operation.name)

    first, second = operand(left), operand(right)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        first = builder.plain(left, operation.name)
    return Tensor(builder.named(ops.matmul(first, second), operation.name), identity(rank))


def _gemm(builder: Builder, operation: Operation) -> Tensor:
    alpha, beta = operation.attributes.get("alpha", 1.0), operation.attributes.get("beta", 1.0)
    left, right, addend = operation.inputs[0], operation.inputs[1], operation.input(2)
    if left is None or right is None or left.rank != 2 or operation.output.shape is None:
        raise Unsupported("its operands are not known")
    dtype = str(operation.output.dtype)
    if dtype not in _FLOATS:
        raise Unsupported(f"products of {dtype} are not supported")
    units = operation.output.shape[1]
    constant = None if addend is None else addend.constant
    is_bias = constant is not None and (constant.ndim == 0 or constant.shape[-1] in (1, units))
    is_bias = is_bias and constant is not None and constant.size in (1, units) and constant.shape[:-1] in ((), (1,))
    if right.is_constant and not operation.attributes.get("transA", 0) and (addend is None or is_bias):
        bias = None

        def weights() -> np.ndarray:
            weight = _unpacked(right)
            weight = weight.T if operation.attributes.get("transB", 0) else weight
            return weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)

        if constant is not None and units is not None:
            bias = np.broadcast_to(constant.reshape(-1), (units,)) * np.asarray(beta, constant.dtype)
        return _dense(
            builder, operation, left, weights, bias, _size(right, 0 if operation.attributes.get("transB", 0) else 1)
        )

    def matrix(value: Value, turned: Any) -> Any:
        tensor = builder.tensor(value)
        tensor = tensor.transposed((1, 0)) if turned else tensor
        return builder.laid(tensor, (0, 1), operation.name)

    made = ops.matmul(
        matrix(left, operation.attributes.get("transA", 0)), matrix(right, operation.attributes.get("transB", 0))
    )
    if alpha != 1:
        made = ops.multiply(made, np.asarray(alpha, dtype))
    if addend is not None:
        third = constant if constant is not None else builder.plain(addend, operation.name)
        if beta != 1:
            third = (
                ops.multiply(third, np.asarray(beta, dtype)) if constant is None else third * np.asarray(beta, dtype)
            )
        made = add(made, third)
    return Tensor(builder.named(made, operation.name), (0, 1))


def _einsum(builder: Builder, operation: Operation) -> Tensor:
    equation = operation.attributes["equation"].replace(" ", "")
    if "..." in equation or not operation.inputs:
        raise Unsupported("an ellipsis is not supported")
    terms, _, result = equation.partition("->")
    letters = terms.split(",")
    if "->" not in equation:
        result = "".join(sorted(one for one in set(terms) - {","} if terms.count(one) == 1))
    if str(operation.output.dtype) not in _TYPES or any(len(set(one)) < len(one) for one in letters):
        raise Unsupported("a diagonal, or this type, is not supported")
    turned, values = [], []
    for term, value in zip(letters, operation.inputs, strict=True):
        tensor = builder.tensor(value)
        turned.append("".join(term[axis] for axis in tensor.axes))
        values.append(tensor.value)
    made = ops.einsum(f"{','.join(turned)}->{result}", *values)
    return Tensor(builder.named(made, operation.name), identity(len(result)))


OPERATORS: dict[str, Handler] = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
