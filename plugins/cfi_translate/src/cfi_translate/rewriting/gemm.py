"""The product of samples in rows with a constant matrix, with or without a bias, becomes Gemm."""

from __future__ import annotations

from cfi_translate.program import Operation
from cfi_translate.rewriting.editor import ProgramEditor, operation


def product_to_gemm(product: Operation, editor: ProgramEditor) -> None:
    """MatMul of two axes by a constant matrix of floating point numbers."""
    if product.kind != "MatMul":
        return
    data, weight = product.inputs[:2]
    if data is None or data.rank != 2 or weight is None or weight.rank != 2:
        return
    if weight.is_constant and weight.is_float:
        editor.replace(product, operation("Gemm", product, product.inputs))
