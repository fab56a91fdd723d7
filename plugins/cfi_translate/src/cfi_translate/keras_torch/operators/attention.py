"""MultiHeadAttention: Linear modules for its four projections, matrix products and a Softmax module between them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator, optional, tensor
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import constant_array


@operator("layers.MultiHeadAttention")
def multi_head_attention(
    op: LayerCall,
    to: KerasWalk,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: Any = False,
    use_causal_mask: Any = False,
) -> Laid | list[Laid]:
    """Attention of sequences, with masks; `attention.query` and the like are the projections."""
    layer = op.operation
    query, value, key = tensor(query, "query"), tensor(value, "value"), tensor(value if key is None else key, "key")
    require(query.rank == value.rank == key.rank == 3, "its inputs have more axes than samples, steps, features")
    require(not getattr(layer, "_use_gate", False), "it has a gate")
    require(getattr(layer, "_sliding_window", None) is None, "it has a sliding window")
    require(query_mask is None, "it is given a mask of its queries")
    masks = [
        _unsqueeze(to, query.mask, -1),
        _unsqueeze(to, value.mask if value_mask is None else tensor(value_mask, "value mask"), -2),
        _unsqueeze(to, key.mask if key_mask is None and key is not value else optional(key_mask, "key mask"), -2),
    ]
    if use_causal_mask:
        triangle = np.tril(np.ones((1, query.shape[1] or 0, key.shape[1] or 0), bool))
        masks.append(to.buffer(f"{op.path}.causal_mask", triangle))
    mask = _join(to, [one for one in masks if one is not None], optional(attention_mask, "attention mask"))
    projections = ((layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value))
    q, k, v = (to.function(torch.transpose, _project(op, to, *one), 1, 2) for one in projections)
    q = to.function(torch.mul, q, float(layer._inverse_sqrt_key_dim))
    scores = to.function(torch.matmul, q, to.function(torch.transpose, k, 2, 3))
    weights = _weights(op, to, scores, mask, bool(return_attention_scores))
    mixed = to.function(torch.transpose, to.function(torch.matmul, weights, v), 1, 2)
    shape = (query.shape[0], query.shape[1], layer.num_heads, layer._value_dim)
    attended = Laid(mixed, shape, (0, 1, 2, 3), op.output.dtype)
    result = to.layer(layer._output_dense, op.child(layer._output_dense.name), attended)
    result = op.result(to.marker(op, to.plain(result).node), mask=query.mask)
    return [result, op.result(weights, position=1)] if return_attention_scores else result


def _project(op: LayerCall, to: KerasWalk, projection: Any, x: Laid) -> Any:
    """Samples × steps × heads × features."""
    plain = Laid(to.plain(x).node, x.shape, (0, 1, 2), x.dtype)
    return to.plain(to.layer(projection, op.child(projection.name), plain)).node


def _weights(op: LayerCall, to: KerasWalk, scores: Any, mask: Any, scores_wanted: bool) -> Any:
    """How much of each value goes into each result; Keras masks otherwise where it cannot use its fused kernel."""
    dropout = float(op.operation._dropout)
    unfused = scores_wanted or dropout > 0
    if mask is not None:
        hidden = to.function(torch.logical_not, mask)
        lowest = -1e9 if unfused else 0.7 * float(np.finfo(op.output.dtype).min)
        scores = to.function(torch.masked_fill, scores, hidden, lowest)
    weights = to.module(op, nn.Softmax(-1), scores, suffix=".softmax")
    if mask is not None and unfused:
        weights = to.function(torch.masked_fill, weights, hidden, 0.0)
    return to.module(op, nn.Dropout(dropout), weights, suffix=".dropout") if dropout > 0 else weights


def _unsqueeze(to: KerasWalk, mask: Laid | None, axis: int) -> Any:
    """A mask of steps as one of query steps × key steps."""
    return None if mask is None else to.function(torch.unsqueeze, to.plain(mask).node, axis)


def _join(to: KerasWalk, parts: list[Any], attention_mask: Laid | None) -> Any:
    """What may attend to what: samples × heads (1) × query steps × key steps; None if everything may."""
    if attention_mask is not None:
        require(attention_mask.rank in (3, 4), "its attention mask has other axes than query steps, key steps")
        cast = to.plain(to.cast(attention_mask, "bool"))
        if cast.rank == 4:
            require(not parts, "it has a mask for each head beside others")
            return cast.node
        parts = [*parts, cast.node]
    if not parts:
        return None
    joint = reduce(lambda one, other: to.function(torch.logical_and, one, other), parts)
    return to.function(torch.unsqueeze, joint, 1)


@operator("ops.DotProductAttention")
def dot_product_attention(
    op: LayerCall,
    to: KerasWalk,
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Laid:
    """Matrix products with a Softmax module between them; heads of keys and values may be fewer than of queries."""
    own = op.operation
    query, key, value = tensor(query, "query"), tensor(key, "key"), tensor(value, "value")
    require(bias is None, "it has a bias")
    require(own.attn_logits_soft_cap is None, "its logits are capped")
    mask = optional(mask, "mask")
    require(None not in (query.shape[2:] + key.shape[2:]), "number or size of its heads is not known")
    number = query.shape[3] ** -0.5 if scale is None else constant_array(scale)
    require(number is not None and np.size(number) == 1, "its scale is no number")
    heads = [to.plain(to.cast(one, op.output.dtype)).node for one in (query, key, value)]
    q, k, v = (to.function(torch.transpose, one, 1, 2) for one in heads)
    if query.shape[2] != key.shape[2]:
        k, v = (to.function(torch.repeat_interleave, one, query.shape[2] // key.shape[2], 1) for one in (k, v))
    scores = to.function(torch.matmul, q, to.function(torch.transpose, k, 2, 3))
    scores = to.function(torch.mul, scores, float(np.asarray(number).item()))
    lowest = 0.7 * float(np.finfo(op.output.dtype).min)
    if mask is not None:
        hidden = to.function(torch.logical_not, to.cast(to.plain(mask), "bool").node)
        scores = to.function(torch.masked_fill, scores, hidden, lowest)
    if own.is_causal:
        everywhere = to.function(torch.ones_like, scores, dtype=torch.bool)
        scores = to.function(torch.masked_fill, scores, to.function(torch.triu, everywhere, 1), lowest)
    weights = to.module(op, nn.Softmax(-1), scores, suffix=".softmax")
    return op.result(to.function(torch.transpose, to.function(torch.matmul, weights, v), 1, 2))
