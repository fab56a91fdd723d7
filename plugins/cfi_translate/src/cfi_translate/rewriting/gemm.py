"""The product of samples in rows with a constant matrix, with or without a bias, becomes Gemm."""

from __future__ import annotations

from cfi_translate.program import Operation, constant
from cfi_translate.rewriting.bias import added_row
from cfi_translate.rewriting.editor import ProgramEditor, operation


def product_to_gemm(product: Operation, editor: ProgramEditor) -> None:
    """MatMul of two axes by a constant matrix of floating point numbers, and the row that is added to it."""
    if product.kind != "MatMul":
        return
    data, weight = product.inputs[:2]
    if data is None or data.rank != 2 or weight is None or weight.rank != 2:
        return
    if not weight.is_constant or not weight.is_float:
        return
    found = added_row(product, editor)
    if found is None:
        editor.replace(product, operation("Gemm", product, product.inputs))
    else:
        last, row = found
        editor.replace(last, operation("Gemm", last, (data, weight, constant(f"{last.name}.bias", row))))
