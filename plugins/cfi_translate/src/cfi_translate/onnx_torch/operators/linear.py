"""Products of matrices."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, are_constant
from cfi_translate.onnx_torch.operators.convolution import subtract_zero
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value


@operator("Gemm")
def gemm(op: Operation, to: TorchBuilder, left: Value, right: Value, bias: Value | None = None) -> fx.Node:
    alpha, beta = op.attributes["alpha"], op.attributes["beta"]
    data: Any = to.function(torch.transpose, left, 0, 1) if op.attributes["transA"] else left
    if right.is_constant and right.is_float and _is_row(bias, right, op.attributes["transB"]):
        return _as_linear(op, to, data, right, bias, alpha, beta)
    other: Any = to.function(torch.transpose, right, 0, 1) if op.attributes["transB"] else right
    product = _scale(to, to.function(torch.matmul, data, other), left, alpha)
    return product if bias is None else to.function(torch.add, product, _scale(to, bias, left, beta))


def _scale(to: TorchBuilder, data: Any, like: Value, factor: float) -> Any:
    if factor == 1:
        return data
    require(like.is_float or factor == int(factor), "integers are scaled by a broken number")
    return to.function(torch.mul, data, factor if like.is_float else int(factor))


def _is_row(bias: Value | None, weight: Value, transposed: int) -> bool:
    """Whether the bias has one value per output feature, or one for all, or is left out."""
    features = (weight.shape or (None, None))[0 if transposed else 1]
    rows = ((), (1,), (1, 1), (features,), (1, features))
    return bias is None or (bias.is_constant and bias.shape in rows)


def _as_linear(
    op: Operation, to: TorchBuilder, data: Any, weight: Value, bias: Value | None, alpha: float, beta: float
) -> fx.Node:
    transposed = bool(op.attributes.get("transB", 0))

    def as_weight(array: np.ndarray) -> np.ndarray:
        turned = array if transposed else array.T
        return turned if alpha == 1 else (turned * np.asarray(alpha, array.dtype))

    def as_bias(array: np.ndarray) -> np.ndarray:
        scaled = array if beta == 1 else array * np.asarray(beta, array.dtype)
        return np.broadcast_to(scaled.reshape(-1), (outputs,))

    made = to.parameter(weight, ("linear", transposed, alpha), as_weight)
    outputs, inputs = made.shape
    module = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    module.weight = made
    if bias is not None:
        module.bias = to.parameter(bias, ("linear", outputs, beta), as_bias)
    return to.module(op, module, data)


@operator("MatMul")
def product(op: Operation, to: TorchBuilder, left: Value, right: Value, bias: Value | None = None) -> fx.Node:
    if right.is_constant and right.rank == 2 and right.is_float and left.rank and are_constant(bias):
        return _as_linear(op, to, left, right, bias, 1.0, 1.0)
    require(bias is None, "it has a bias and no constant weight")
    return to.function(torch.matmul, left, right)


@operator("Einsum")
def einsum(op: Operation, to: TorchBuilder, *operands: Value) -> fx.Node:
    equation = op.attributes["equation"].replace(" ", "")
    letters = set(equation) - set(",->.")
    require(letters <= set(string.ascii_letters), f"the equation {equation!r} has unknown signs")
    return to.function(torch.einsum, equation, *operands)


@operator("MatMulInteger")
def integer_product(
    op: Operation,
    to: TorchBuilder,
    left: Value,
    right: Value,
    left_zero: Value | None = None,
    right_zero: Value | None = None,
) -> fx.Node:
    one, other = subtract_zero(to, left, left_zero, -2), subtract_zero(to, right, right_zero, -1)
    return to.cast(to.function(torch.matmul, one, other), torch.int32)
