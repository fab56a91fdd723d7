"""Products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator


@operator("linear")
def linear(op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any) -> OnnxValue:
    require(len(weight.shape) == 2, "its weight is no matrix")
    if len(x.shape) == 2:
        return to.node("Gemm", x, weight, bias, transB=1)
    constant = isinstance(weight, torch.Tensor)
    product = to.node("MatMul", x, weight.t().contiguous() if constant else to.node("Transpose", weight, perm=[1, 0]))
    return product if bias is None else to.node("Add", product, bias)


@operator("addmm")
def scaled_product(
    op: TorchOp, to: OnnxGraph, bias: Any, first: Any, second: Any, beta: float, alpha: float
) -> OnnxValue:
    return to.node("Gemm", first, second, bias, beta=float(beta), alpha=float(alpha))


@operator("matmul", "mm", "bmm", "mv", "dot")
def product(op: TorchOp, to: OnnxGraph, first: Any, second: Any) -> OnnxValue:
    return to.node("MatMul", first, second)


@operator("einsum")
def sum_of_products(op: TorchOp, to: OnnxGraph, equation: str, tensors: Sequence[Any], path: Any = None) -> OnnxValue:
    return to.node("Einsum", *tensors, equation=equation)
