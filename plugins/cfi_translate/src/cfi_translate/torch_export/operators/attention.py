"""Attention."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.onnx_graph import Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator


@operator("scaled_dot_product_attention")
def attention(
    op: TorchOp,
    to: OnnxGraph,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool = False,
) -> OnnxValue:
    """MatMul, Mul, Add, Softmax, MatMul: the way in which readers of ONNX know attention."""
    require(not dropout, "its result is random")
    require(not grouped, "several queries share a key")
    axes = list(range(len(key.shape)))
    axes[-2:] = axes[:-3:-1]
    scores = to.node("MatMul", query, to.node("Transpose", key, perm=axes))
    factor = 1 / sqrt(query.shape[-1]) if scale is None else scale
    scores = to.node("Mul", scores, to.scalar(factor, op.dtype))
    if causal:
        sizes = query.shape[-2], key.shape[-2]
        fixed = mask is None and not any(isinstance(one, torch.SymInt) for one in sizes)
        require(fixed, "it is causal and masked, or causal among samples")
        mask = torch.ones(sizes, dtype=torch.bool).tril()
    allowed = None
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool:
        require(mask.any(-1).all(), "its mask leaves a query without any key")
        mask = torch.zeros(mask.shape, dtype=op.dtype).masked_fill(~mask.cpu(), float("-inf"))
    elif mask is not None and mask.dtype == torch.bool:
        # Where a sample's mask leaves no key, torch gives zeros: no infinities, and the weights are masked again.
        allowed, mask = mask, None
        scores = to.node("Where", allowed, scores, to.scalar(torch.finfo(op.dtype).min, op.dtype))
    if mask is not None and not (isinstance(mask, Filled) and mask.number == 0):
        scores = to.node("Add", scores, to.cast(mask, op.dtype))
    weights = to.node("Softmax", scores, axis=-1)
    if allowed is not None:
        weights = to.node("Where", allowed, weights, to.scalar(0, op.dtype))
    return to.node("MatMul", weights, value)
