"""Products of matrices, and attention."""

# What a function writes is said by its decorator.

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import Emitter, Filled, Value
from cfi_translate.torch_export.operators.registry import writes


@writes("matmul", "mm", "bmm", "mv", "dot")
def product(emit: Emitter, first: Any, second: Any) -> Value:
    return emit.op("MatMul", first, second)


@writes("baddbmm")
def product_added(emit: Emitter, x: Any, first: Any, second: Any, beta: float, alpha: float) -> Value:
    result = emit.op("MatMul", first, second)
    if alpha != 1:
        result = emit.op("Mul", result, emit.scalar(alpha, emit.result.dtype))
    if beta != 1:
        x = emit.op("Mul", x, emit.scalar(beta, emit.result.dtype))
    return emit.op("Add", x, result)


@writes("einsum")
def sum_of_products(emit: Emitter, equation: str, tensors: Sequence[Any], _path: Any = None) -> Value:
    return emit.op("Einsum", *tensors, equation=equation)


@writes("scaled_dot_product_attention")
def attention(
    emit: Emitter,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool = False,
) -> Value:
    """MatMul, Mul, Add, Softmax, MatMul: the way in which readers of ONNX know attention."""
    if dropout:
        raise emit.refuse("its result is random")
    if grouped:
        raise emit.refuse("several queries share a key")
    dtype = emit.result.dtype
    axes = list(range(len(key.shape)))
    axes[-2:] = axes[:-3:-1]
    scores = emit.op("MatMul", query, emit.op("Transpose", key, perm=axes))
    scores = emit.op("Mul", scores, emit.scalar(1 / sqrt(query.shape[-1]) if scale is None else scale, dtype))
    if causal:
        sizes = query.shape[-2], key.shape[-2]
        if mask is not None or any(isinstance(one, torch.SymInt) for one in sizes):
            raise emit.refuse("it is causal and masked, or causal among samples")
        mask = torch.ones([int(one) for one in sizes], dtype=torch.bool).tril()
    allowed = None
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool:
        if not mask.any(-1).all():
            raise emit.refuse("its mask leaves a query without any key")
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask.cpu(), float("-inf"))
    elif mask is not None and mask.dtype == torch.bool:
        # Where a sample's mask leaves no key, torch gives zeros: no infinities, and the weights are masked again.
        allowed = mask
        scores = emit.op("Where", mask, scores, emit.scalar(torch.finfo(dtype).min, dtype))
        mask = None
    if mask is not None and not (isinstance(mask, Filled) and mask.number == 0):
        scores = emit.op("Add", scores, emit.cast(mask, dtype))
    weights = emit.op("Softmax", scores, axis=-1)
    if allowed is not None:
        weights = emit.op("Where", allowed, weights, emit.scalar(0, dtype))
    return emit.op("MatMul", weights, value)


@writes("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def fused(emit: Emitter, *_: Any) -> Value:
    raise emit.refuse("it is torch's fused attention")


@writes("outer")
def outer(emit: Emitter, first: Any, second: Any) -> Value:
    return emit.op("Mul", emit.op("Unsqueeze", first, np.array([1])), emit.op("Unsqueeze", second, np.array([0])))
