"""A constant that is added to a product or a convolution becomes its bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cfi_translate.program import Operation, constant
from cfi_translate.rewriting.editor import ProgramEditor
from cfi_translate.rewriting.matching import array_beside, per_channel


def bias_into_product(product: Operation, editor: ProgramEditor) -> None:
    """`x · W + b`, where `W` is a constant matrix and `b` has a number for each of its columns."""
    found = None if len(product.inputs) > 2 else added_row(product, editor)
    if found is not None:
        _replace(product, *found, editor)


def added_row(product: Operation, editor: ProgramEditor) -> tuple[Operation, np.ndarray] | None:
    """What adds a number for each column to a product with a constant matrix, and these numbers."""
    weight = product.inputs[1] if product.kind == "MatMul" else None
    if weight is None or not weight.is_constant or not weight.is_float or weight.rank != 2:
        return None
    follower = editor.only_user(product.output, "Add")
    if follower is None or product.output.rank is None or product.output.rank != follower.output.rank:
        return None
    features = tuple(size for size in (weight.shape or ())[1:] if size is not None)
    row = array_beside(follower, product.output, features)
    return None if row is None else (follower, row)


def bias_into_convolution(convolution: Operation, editor: ProgramEditor) -> None:
    """A number for each channel behind a (transposed) convolution with constant weights and no bias."""
    if convolution.kind not in ("Conv", "ConvTranspose") or convolution.input(2) is not None:
        return
    weight, follower = convolution.inputs[1], editor.only_user(convolution.output, "Add", "Sub")
    found = per_channel(follower, "Add", "Sub")
    if weight is None or not weight.is_constant or follower is None or found is None:
        return
    if found[0] is convolution.output:
        _replace(convolution, follower, found[1], editor)


def _replace(made: Operation, follower: Operation, bias: np.ndarray, editor: ProgramEditor) -> None:
    inputs = (*made.inputs[:2], constant(f"{follower.name}.bias", bias))
    joined = replace(
        made, name=follower.name, inputs=inputs, outputs=follower.outputs, ends_module=follower.ends_module
    )
    editor.replace(follower, joined)
