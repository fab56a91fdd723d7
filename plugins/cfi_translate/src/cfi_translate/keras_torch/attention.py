"""MultiHeadAttention: Linear modules for its four projections, matrix products and a Softmax module between them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.keras_torch.calls import Call, constant_array, translates
from cfi_translate.keras_torch.values import Value


@translates("layers.MultiHeadAttention")
def multi_head_attention(call: Call) -> Value | list[Value]:
    """Attention of sequences, with masks; `attention.query` and the like are the projections."""
    layer, builder = call.operation, call.builder
    query, value = call.argument(0, "query"), call.argument(1, "value")
    key = call.argument(2, "key")
    key = value if key is None else key
    call.require(all(isinstance(one, Value) for one in (query, value, key)), "its inputs are no tensors of the model")
    call.require(query.rank == value.rank == key.rank == 3, "its inputs have more axes than samples, steps, features")
    call.require(not getattr(layer, "_use_gate", False), "it has a gate")
    call.require(getattr(layer, "_sliding_window", None) is None, "it has a sliding window")
    scores_wanted = bool(call.kwargs.get("return_attention_scores"))
    unfused = scores_wanted or layer._dropout > 0.0
    mask = _mask(call, query, value, key)
    heads = [
        _projected(call, projection, one)
        for projection, one in (
            (layer._query_dense, query),
            (layer._key_dense, key),
            (layer._value_dense, value),
        )
    ]
    q, k, v = (builder.function(torch.transpose, head, 1, 2) for head in heads)
    q = builder.function(torch.mul, q, float(layer._inverse_sqrt_key_dim))
    scores = builder.function(torch.matmul, q, builder.function(torch.transpose, k, 2, 3))
    if mask is not None:
        hidden = builder.function(torch.logical_not, mask)
        lowest = -1e9 if unfused else 0.7 * float(np.finfo(call.output.dtype).min)
        scores = builder.function(torch.masked_fill, scores, hidden, lowest)
    weights = builder.module(call.child("softmax"), nn.Softmax(-1), scores)
    if mask is not None and unfused:
        weights = builder.function(torch.masked_fill, weights, hidden, 0.0)
    if layer._dropout > 0.0:
        weights = builder.module(call.child("dropout"), nn.Dropout(float(layer._dropout)), weights)
    mixed = builder.function(torch.transpose, builder.function(torch.matmul, weights, v), 1, 2)
    shape = (query.shape[0], query.shape[1], layer.num_heads, layer._value_dim)
    attended = Value(mixed, shape, (0, 1, 2, 3), call.output.dtype)
    projection = layer._output_dense
    result = call.walk.single(projection, (attended,), {}, call.child(projection.name))
    result = call.result(builder.marker(call.path, builder.plain(result).node), mask=query.mask)
    return [result, call.result(weights, position=1)] if scores_wanted else result


def _projected(call: Call, projection: Any, value: Value) -> Any:
    """Samples × steps × heads × features."""
    plain = Value(call.builder.plain(value).node, value.shape, (0, 1, 2), value.dtype)
    return call.builder.plain(call.walk.single(projection, (plain,), {}, call.child(projection.name))).node


def _mask(call: Call, query: Value, value: Value, key: Value) -> Any:
    """What may attend to what: samples × heads (1) × query steps × key steps; None if everything may."""
    builder = call.builder

    def given(name: str, tensor: Value) -> Value | None:
        mask = call.kwargs.get(name)
        call.require(mask is None or isinstance(mask, Value), f"its {name} is a constant")
        return mask if mask is not None else tensor.mask

    parts = []
    rows, columns = query.mask, given("value_mask", value)
    if rows is not None:
        parts.append(builder.function(torch.unsqueeze, builder.plain(rows).node, -1))
    if columns is not None:
        parts.append(builder.function(torch.unsqueeze, builder.plain(columns).node, -2))
    of_key = call.kwargs.get("key_mask")
    if of_key is None and key is not value:
        of_key = key.mask
    if of_key is not None:
        call.require(isinstance(of_key, Value), "its key mask is a constant")
        parts.append(builder.function(torch.unsqueeze, builder.plain(of_key).node, -2))
    if call.kwargs.get("use_causal_mask"):
        triangle = np.tril(np.ones((1, query.shape[1] or 0, key.shape[1] or 0), bool))
        parts.append(builder.constant(f"{call.path}.causal_mask", triangle))
    attention_mask = call.kwargs.get("attention_mask")
    if attention_mask is not None:
        call.require(
            isinstance(attention_mask, Value) and attention_mask.rank in (3, 4), "its attention mask is no tensor"
        )
        cast = call.walk.cast(attention_mask, "bool")
        if cast.rank == 4:
            call.require(not parts, "it has a mask for each head beside others")
            return builder.plain(cast).node
        parts.append(builder.plain(cast).node)
    if not parts:
        return None
    joint = reduce(lambda one, other: builder.function(torch.logical_and, one, other), parts)
    return builder.function(torch.unsqueeze, joint, 1)


@translates("ops.DotProductAttention")
def dot_product_attention(call: Call) -> Value:
    """Matrix products with a Softmax module between them; heads of keys and values may be fewer than of queries."""
    own, builder = call.operation, call.builder
    values = [call.argument(position, name) for position, name in enumerate(("query", "key", "value"))]
    call.require(all(isinstance(one, Value) for one in values), "its inputs are no tensors of the model")
    bias, mask, scale = (call.argument(position, name) for position, name in ((3, "bias"), (4, "mask"), (5, "scale")))
    call.require(bias is None, "it has a bias")
    call.require(own.attn_logits_soft_cap is None, "its logits are capped")
    call.require(mask is None or isinstance(mask, Value), "its mask is a constant")
    query, key = values[:2]
    call.require(None not in (query.shape[2:] + key.shape[2:]), "number or size of its heads is not known")
    number = query.shape[3] ** -0.5 if scale is None else constant_array(scale)
    call.require(number is not None and np.size(number) == 1, "its scale is no number")
    q, k, v = (
        builder.function(torch.transpose, builder.plain(call.walk.cast(one, call.output.dtype)).node, 1, 2)
        for one in values
    )
    if query.shape[2] != key.shape[2]:
        k, v = (builder.function(torch.repeat_interleave, one, query.shape[2] // key.shape[2], 1) for one in (k, v))
    scores = builder.function(torch.matmul, q, builder.function(torch.transpose, k, 2, 3))
    scores = builder.function(torch.mul, scores, float(np.asarray(number).item()))
    lowest = 0.7 * float(np.finfo(call.output.dtype).min)
    if mask is not None:
        hidden = builder.function(torch.logical_not, call.walk.cast(builder.plain(mask), "bool").node)
        scores = builder.function(torch.masked_fill, scores, hidden, lowest)
    if own.is_causal:
        everywhere = builder.function(torch.ones_like, scores, dtype=torch.bool)
        scores = builder.function(torch.masked_fill, scores, builder.function(torch.triu, everywhere, 1), lowest)
    weights = builder.module(call.child("softmax"), nn.Softmax(-1), scores)
    return call.result(builder.function(torch.transpose, builder.function(torch.matmul, weights, v), 1, 2))
