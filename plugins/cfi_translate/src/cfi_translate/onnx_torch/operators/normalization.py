"""Normalisations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, are_constant, tensor
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of, require_inference, shape_of, static
from cfi_translate.torch_modules import BATCH_NORMALIZATIONS

_INSTANCE: dict[int, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@operator("BatchNormalization")
def batch_normalization(
    op: Operation, to: TorchBuilder, data: Value, scale: Value, shift: Value, mean: Value, variance: Value
) -> fx.Node:
    require_inference(op)
    require(len(op.results) == 1 and op.attributes.get("is_test", 1), "it is in training mode")
    require(op.attributes.get("spatial", 1), "it normalises each place by itself")
    rank, epsilon = rank_of(data), op.attributes["epsilon"]
    if not are_constant(scale, shift, mean, variance) or rank not in BATCH_NORMALIZATIONS:
        return to.function(functional.batch_norm, data, mean, variance, scale, shift, False, 0.0, epsilon)
    module = BATCH_NORMALIZATIONS[rank](static(shape_of(scale))[0], eps=epsilon, device="meta")
    module.running_mean, module.running_var = (tensor(constant_of(one, "statistic")) for one in (mean, variance))
    module.num_batches_tracked = torch.tensor(0)
    return to.module(op, to.give_weights(module, scale, shift), data)


@operator("InstanceNormalization")
def instance_normalization(op: Operation, to: TorchBuilder, data: Value, scale: Value, shift: Value) -> fx.Node:
    rank, epsilon = rank_of(data), op.attributes["epsilon"]
    require(any(size != 1 for size in shape_of(data)[2:]), "torch does not normalise one value by itself")
    if not are_constant(scale, shift) or rank not in _INSTANCE:
        return to.function(functional.instance_norm, data, None, None, scale, shift, True, 0.0, epsilon)
    module = _INSTANCE[rank](static(shape_of(scale))[0], eps=epsilon, affine=True, device="meta")
    return to.module(op, to.give_weights(module, scale, shift), data)


@operator("GroupNormalization")
def group_normalization(op: Operation, to: TorchBuilder, data: Value, scale: Value, shift: Value) -> fx.Node:
    groups, epsilon = op.attributes["num_groups"], op.attributes["epsilon"]
    channels = static(shape_of(data)[1:2])[0]
    # Before version 21 there is one scale for each group.
    repeats = channels // static(shape_of(scale))[0]
    if are_constant(scale, shift):
        module = nn.GroupNorm(groups, channels, eps=epsilon, device="meta")
        module.weight, module.bias = (
            to.parameter(one, ("repeated", repeats), lambda array: np.repeat(array, repeats)) for one in (scale, shift)
        )
        return to.module(op, module, data)
    weights: list[Any] = [scale, shift]
    if repeats > 1:
        weights = [to.function(torch.repeat_interleave, one, repeats) for one in weights]
    return to.function(functional.group_norm, data, groups, *weights, epsilon)


@operator("LayerNormalization")
def layer_normalization(
    op: Operation, to: TorchBuilder, data: Value, scale: Value, shift: Value | None = None
) -> fx.Node | tuple[fx.Node, ...]:
    axis, epsilon = op.attributes["axis"] % rank_of(data), op.attributes["epsilon"]
    normalized = shape_of(data)[axis:]
    is_plain = None not in normalized and all(one is None or one.shape == normalized for one in (scale, shift))
    if is_plain and len(op.results) == 1:
        return _native_layer_normalization(op, to, data, scale, shift, static(normalized))
    axes = tuple(range(axis, rank_of(data)))
    mean = to.function(torch.mean, data, dim=axes, keepdim=True)
    centred = to.function(torch.sub, data, mean)
    variance = to.function(torch.mean, to.function(torch.mul, centred, centred), dim=axes, keepdim=True)
    inverse = to.function(torch.rsqrt, to.function(torch.add, variance, epsilon))
    if is_plain:
        return _native_layer_normalization(op, to, data, scale, shift, static(normalized)), mean, inverse
    result = to.function(torch.mul, to.function(torch.mul, centred, inverse), scale)
    return result if shift is None else to.function(torch.add, result, shift), mean, inverse


def _native_layer_normalization(
    op: Operation, to: TorchBuilder, data: Value, scale: Value, shift: Value | None, sizes: tuple[int, ...]
) -> fx.Node:
    epsilon = op.attributes["epsilon"]
    if not are_constant(scale, shift):
        return to.function(functional.layer_norm, data, sizes, scale, shift, epsilon)
    module = nn.LayerNorm(sizes, eps=epsilon, bias=shift is not None, device="meta")
    return to.module(op, to.give_weights(module, scale, shift), data)


@operator("RMSNormalization")
def rms_normalization(op: Operation, to: TorchBuilder, data: Value, scale: Value) -> fx.Node:
    axis, epsilon = op.attributes["axis"] % rank_of(data), op.attributes["epsilon"]
    normalized = shape_of(data)[axis:]
    if None in normalized or scale.shape != normalized:
        axes = tuple(range(axis, rank_of(data)))
        square = to.function(torch.mean, to.function(torch.mul, data, data), dim=axes, keepdim=True)
        inverse = to.function(torch.rsqrt, to.function(torch.add, square, epsilon))
        return to.function(torch.mul, to.function(torch.mul, data, inverse), scale)
    if not scale.is_constant:
        return to.function(functional.rms_norm, data, static(normalized), scale, epsilon)
    module = nn.RMSNorm(static(normalized), eps=epsilon, device="meta")
    return to.module(op, to.give_weights(module, scale, None), data)


@operator("LRN")
def local_response_normalization(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    size = op.attributes["size"]
    require(size % 2, "torch looks at other neighbours where their number is even")
    settings = (op.attributes[name] for name in ("alpha", "beta", "bias"))
    return to.module(op, nn.LocalResponseNorm(size, *settings), data)


@operator("LpNormalization")
def norm_normalization(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    # So small that it only keeps zeros from being divided by zero.
    smallest = math.ldexp(1.0, -24 if op.output.dtype == np.float16 else -126)
    power, axis = op.attributes["p"], op.attributes["axis"]
    return to.function(functional.normalize, data, p=power, dim=axis, eps=smallest)
