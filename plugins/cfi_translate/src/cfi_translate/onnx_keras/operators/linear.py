"""Matrix products: Dense where the matrix is constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.keras_faults import add
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, identity
from cfi_translate.onnx_keras.weights import call_with
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import borrowed, constant_of, rank_of, shape_of, static

_FLOATS = ("float16", "float32", "float64")
_TYPES = (*_FLOATS, "int32", "int64")


def _dense(
    to: KerasBuilder, data: Value, matrix: Callable[[], np.ndarray], bias: np.ndarray | None, units: int
) -> Tensor:
    """A product of the last axis with a matrix of the shape (inputs, units)."""
    tensor = to.tensor_as_it_lies(data)
    axes, last = tensor.axes, tensor.rank - 1
    if axes[-1] != last:
        axes = (*(axis for axis in axes if axis != last), last)
    value = to.lay(tensor, axes)
    layer = layers.Dense(units, use_bias=bias is not None, dtype=tensor.dtype, name=to.name())
    return Tensor(call_with(layer, value, matrix, bias, order=tensor.order), axes)


@operator("MatMul")
def product(op: Operation, to: KerasBuilder, left: Value, right: Value, bias: Value | None = None) -> Tensor:
    dtype = str(op.output.dtype)
    require(dtype in _TYPES, f"products of {dtype} are not supported")
    if right.is_constant and right.rank == 2 and dtype in _FLOATS and not left.is_constant and rank_of(left) >= 2:
        offset = None if bias is None else constant_of(bias, "bias")
        return _dense(to, left, lambda: borrowed(right, "matrix"), offset, static(shape_of(right))[1])
    require(bias is None, "it has a bias and no constant weight")
    first, second = (one.constant if one.is_constant else to.plain(one) for one in (left, right))
    if left.is_constant and right.is_constant:
        first = to.plain(left)
    return Tensor(ops.matmul(first, second), identity(rank_of(op.output)))


@operator("Gemm")
def gemm(op: Operation, to: KerasBuilder, left: Value, right: Value, bias: Value | None = None) -> Tensor:
    alpha, beta = op.attributes["alpha"], op.attributes["beta"]
    left_turned, right_turned = op.attributes["transA"], op.attributes["transB"]
    dtype, (_, units) = str(op.output.dtype), shape_of(op.output)
    require(dtype in _FLOATS, f"products of {dtype} are not supported")
    offset = None if bias is None else bias.constant

    def weights() -> np.ndarray:
        weight = borrowed(right, "matrix")
        weight = weight.T if right_turned else weight
        return weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)

    is_row = bias is None or (offset is not None and offset.shape in ((), (1,), (1, 1), (units,), (1, units)))
    if right.is_constant and not left_turned and is_row and units is not None:
        if offset is not None:
            offset = np.broadcast_to(offset.reshape(-1), (units,)) * np.asarray(beta, dtype)
        return _dense(to, left, weights, offset, units)
    first, second = (
        to.lay(to.tensor(one).transpose((1, 0)) if turned else to.tensor(one), (0, 1))
        for one, turned in ((left, left_turned), (right, right_turned))
    )
    made = _scale(ops.matmul(first, second), alpha, dtype)
    if bias is not None:
        made = add(made, _scale(to.plain(bias) if offset is None else offset, beta, dtype))
    return Tensor(made, (0, 1))


def _scale(value: Any, factor: float, dtype: str) -> Any:
    return value if factor == 1 else value * np.asarray(factor, dtype)


@operator("Einsum")
def einsum(op: Operation, to: KerasBuilder, *operands: Value) -> Tensor:
    equation = op.attributes["equation"].replace(" ", "")
    require("..." not in equation, "an ellipsis is not supported")
    terms, arrow, result = equation.partition("->")
    if not arrow:
        result = "".join(sorted(one for one in set(terms) - {","} if terms.count(one) == 1))
    letters = terms.split(",")
    plain = str(op.output.dtype) in _TYPES and all(len(set(one)) == len(one) for one in letters)
    require(plain, "a diagonal, or this type, is not supported")
    tensors = [to.tensor(value) for value in operands]
    turned = ["".join(term[axis] for axis in one.axes) for term, one in zip(letters, tensors, strict=True)]
    made = ops.einsum(f"{','.join(turned)}->{result}", *(one.value for one in tensors))
    return Tensor(made, identity(len(result)))
