"""Multi-head attention, written so that its projections stay whole.

torch packs the three projections into one weight, puts the samples second and unpacks by stacking and selecting. The
twin that is captured computes the same from plain projections, samples first.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def simplify(model: nn.Module) -> None:
    """Gives each `nn.MultiheadAttention` of a twin, where it is torch's own, the plain computation."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and "forward" not in vars(module):
            module.forward = types.MethodType(_forward, module)


def _forward(
    module: nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    unusual = module.bias_k is not None or module.add_zero_attn or query.dim() != 3
    masked = key_padding_mask is not None or (attn_mask is not None and attn_mask.dim() != 2)
    if unusual or masked or module.training:
        return nn.MultiheadAttention.forward(
            module, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    projected = (
        functional.linear(_samples_first(module, given), weight, bias)
        for given, (weight, bias) in zip((query, key, value), _projections(module), strict=True)
    )
    q, k, v = (one.unflatten(2, (module.num_heads, module.head_dim)).transpose(1, 2) for one in projected)
    mask = None
    if attn_mask is not None:
        mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
    weights = None
    if need_weights:
        scores = torch.matmul(q * (q.shape[-1] ** -0.5), k.transpose(-2, -1))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        weights = torch.softmax(scores, -1)
        mixed = torch.matmul(weights, v)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        mixed = functional.scaled_dot_product_attention(q, k, v, mask)
    mixed = mixed.transpose(1, 2).flatten(2)
    if module.out_proj._forward_hooks or module.out_proj._forward_pre_hooks:
        # torch reads the weights of this module without calling it, so that its hooks do not run.
        out = functional.linear(mixed, module.out_proj.weight, module.out_proj.bias)
    else:
        out = module.out_proj(mixed)
    return _samples_first(module, out), weights


def _samples_first(module: nn.MultiheadAttention, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if module.batch_first else tensor.transpose(0, 1)


def _projections(module: nn.MultiheadAttention) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    weights: Any = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.chunk(3)
    biases: Any = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return list(zip(weights, biases, strict=True))
