"""Normalization."""

from __future__ import annotations

from typing import Any

import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.normalization_modules import BATCH_NORM
from cfi_translate.torch_export.onnx_graph import UNREAD, OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator


@operator(BATCH_NORM)
def by_statistics(
    op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float
) -> OnnxValue:
    """Batch normalization by learnt statistics."""
    weight, bias = _fill_in(x, weight, bias, tuple(mean.shape))
    return to.node("BatchNormalization", x, weight, bias, mean, variance, epsilon=eps)


@operator("batch_norm")
def batch_normalization(
    op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *settings: Any
) -> OnnxValue:
    training, _momentum, eps, _fast = settings
    learnt = not training and mean is not None and variance is not None
    require(learnt, "it normalizes by the statistics of its batch, not by learnt ones")
    return by_statistics(op, to, x, weight, bias, mean, variance, eps)


@operator("_native_batch_norm_legit_no_training")
def batch_normalization_in_inference(
    op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, _: Any, eps: float
) -> list[Any]:
    return [by_statistics(op, to, x, weight, bias, mean, variance, eps), UNREAD, UNREAD]


@operator("layer_norm")
def layer_normalization(
    op: TorchOp, to: OnnxGraph, x: Any, shape: Any, weight: Any, bias: Any, eps: float, *_: Any
) -> OnnxValue:
    weight = _fill_in(x, weight, None, tuple(shape))[0]
    return to.node("LayerNormalization", x, weight, bias, axis=-len(shape), epsilon=eps)


@operator("group_norm")
def group_normalization(
    op: TorchOp, to: OnnxGraph, x: Any, groups: int, weight: Any, bias: Any, eps: float, *_: Any
) -> OnnxValue:
    weight, bias = _fill_in(x, weight, bias, (x.shape[1],))
    return to.node("GroupNormalization", x, weight, bias, num_groups=groups, epsilon=eps)


@operator("instance_norm")
def instance_normalization(
    op: TorchOp, to: OnnxGraph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *settings: Any
) -> OnnxValue:
    use_input, _momentum, eps, _fast = settings
    if not use_input:
        return by_statistics(op, to, x, weight, bias, mean, variance, eps)
    weight, bias = _fill_in(x, weight, bias, (x.shape[1],))
    return to.node("InstanceNormalization", x, weight, bias, epsilon=eps)


def _fill_in(x: OnnxValue, weight: Any, bias: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Weight and bias, where they are left out as constants."""
    weight = torch.ones(shape, dtype=x.dtype) if weight is None else weight
    return weight, torch.zeros(shape, dtype=x.dtype) if bias is None else bias
