"""Products of matrices."""

from __future__ import annotations

import string

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.onnx_torch.convolution import centred
from cfi_translate.onnx_torch.reader import Reader, is_float, operator, refuse, torch_type
from cfi_translate.program import Operation, Value


@operator("Gemm")
def _gemm(op: Operation, to: Reader) -> fx.Node:
    left, right, bias = op.input(0), op.input(1), op.input(2)
    alpha, beta = op.attributes["alpha"], op.attributes["beta"]
    data = to.tensor(left)
    if op.attributes["transA"]:
        data = to.function(torch.transpose, data, 0, 1)
    assert left is not None and right is not None
    if right.is_constant and is_float(right) and _is_row(bias, right, op.attributes["transB"]):
        return _as_linear(op, to, data, right, bias)
    other = to.tensor(right)
    if op.attributes["transB"]:
        other = to.function(torch.transpose, other, 0, 1)
    product = to.function(torch.matmul, data, other)
    if alpha != 1:
        product = to.function(torch.mul, product, alpha if is_float(left) else _whole(op, alpha))
    if bias is None:
        return product
    added = to.tensor(bias)
    if beta != 1:
        added = to.function(torch.mul, added, beta if is_float(left) else _whole(op, beta))
    return to.function(torch.add, product, added)


def _whole(op: Operation, number: float) -> int:
    if number != int(number):
        raise refuse(op, "integers are scaled by a broken number")
    return int(number)


def _is_row(bias: Value | None, weight: Value, transposed: int) -> bool:
    """Whether the bias has one value per output feature, or one for all, or is left out."""
    if bias is None:
        return True
    if not bias.is_constant or bias.shape is None or weight.shape is None:
        return False
    features = weight.shape[0 if transposed else 1]
    return bias.shape in ((), (1,), (1, 1), (features,), (1, features))


def _as_linear(op: Operation, to: Reader, data: fx.Node, weight: Value, bias: Value | None) -> fx.Node:
    alpha, beta = op.attributes.get("alpha", 1.0), op.attributes.get("beta", 1.0)
    transposed = bool(op.attributes.get("transB", 0))

    def as_weight(array: np.ndarray) -> np.ndarray:
        turned = array if transposed else array.T
        return turned if alpha == 1 else (turned * np.asarray(alpha, array.dtype))

    made = to.parameter(weight, ("linear", transposed, alpha), as_weight)
    outputs, inputs = made.shape
    module = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    module.weight = made
    if bias is not None:

        def as_bias(array: np.ndarray) -> np.ndarray:
            scaled = array if beta == 1 else array * np.asarray(beta, array.dtype)
            return np.broadcast_to(scaled.reshape(-1), (outputs,))

        module.bias = to.parameter(bias, ("linear", outputs, beta), as_bias)
    return to.module(op, module, data)


@operator("MatMul")
def _matmul(op: Operation, to: Reader) -> fx.Node:
    left, right = op.input(0), op.input(1)
    assert left is not None and right is not None
    bias = op.input(2)  # put there by the patterns
    if right.is_constant and right.rank == 2 and is_float(right) and (left.rank or 0) >= 1:
        return _as_linear(op, to, to.tensor(left), right, bias)
    if bias is not None:
        raise refuse(op, "it has a bias and no constant weight")
    return to.function(torch.matmul, to.tensor(left), to.tensor(right))


@operator("Einsum")
def _einsum(op: Operation, to: Reader) -> fx.Node:
    equation = op.attributes["equation"].replace(" ", "")
    letters = set(equation) - set(",->.")
    if not letters <= set(string.ascii_letters):
        raise refuse(op, f"the equation {equation!r} has unknown signs")
    return to.function(torch.einsum, equation, *(to.tensor(value) for value in op.inputs))


@operator("MatMulInteger")
def _matmul_integer(op: Operation, to: Reader) -> fx.Node:
    left, right = op.input(0), op.input(1)
    one = centred(op, to, left, op.input(2), -2)
    other = centred(op, to, right, op.input(3), -1)
    return to.method("to", to.function(torch.matmul, one, other), torch.int32)


@operator("QLinearMatMul")
def _qlinear_matmul(op: Operation, to: Reader) -> fx.Node:
    one, one_scale, one_zero, other, other_scale, other_zero, scale, zero = op.inputs
    for value in (one_scale, other_scale, scale, one_zero, other_zero, zero):
        if value is None or value.shape not in ((), (1,)):
            raise refuse(op, "scales and zero points of several values are not supported")
    product = to.function(torch.matmul, centred(op, to, one, one_zero, None), centred(op, to, other, other_zero, None))
    factor = to.function(
        torch.div, to.function(torch.mul, to.tensor(one_scale), to.tensor(other_scale)), to.tensor(scale)
    )
    return quantized(op, to, to.function(torch.mul, product, factor), zero)


def quantized(op: Operation, to: Reader, data: fx.Node, zero: Value | None) -> fx.Node:
    """Rounded to even, moved by a zero point and cut to what the output's type holds."""
    rounded = to.function(torch.round, data)
    if zero is not None:
        rounded = to.function(torch.add, rounded, to.tensor(zero))
    limits = torch.iinfo(torch_type(op.output))
    clamped = to.function(torch.clamp, rounded, limits.min, limits.max)
    return to.method("to", clamped, torch_type(op.output))
