"""Normalisations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.onnx_torch.reader import Reader, fixed, operator, rank_of, refuse, shape_of, tensor
from cfi_translate.program import Operation, Value

_BATCH: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@operator("BatchNormalization")
def _batch_normalization(op: Operation, to: Reader) -> fx.Node:
    value, scale, shift, mean, variance = op.inputs
    rank = rank_of(op, value)
    if op.attributes.get("training_mode") or any(one is not None for one in op.outputs[1:]):
        raise refuse(op, "it is in training mode; export the model in inference mode")
    if op.version < 7 and not op.attributes.get("is_test"):
        raise refuse(op, "it is in training mode; export the model in inference mode")
    if not op.attributes.get("spatial", 1) or not op.attributes.get("is_test", 1):
        raise refuse(op, "it normalises each place by itself, or is in training mode")
    epsilon, data = op.attributes["epsilon"], to.tensor(value)
    given = [one for one in (scale, shift, mean, variance) if one is not None]
    if all(one.is_constant for one in given) and rank in _BATCH:
        assert scale is not None and shift is not None and mean is not None and variance is not None
        module = _BATCH[rank](fixed(op, shape_of(op, scale))[0], eps=epsilon, device="meta")
        module.weight, module.bias = to.parameter(scale), to.parameter(shift)
        module.running_mean, module.running_var = (_statistic(one) for one in (mean, variance))
        module.num_batches_tracked = torch.tensor(0)
        return to.module(op, module, data)
    rest = [to.tensor(one) for one in (mean, variance, scale, shift)]
    return to.function(functional.batch_norm, data, *rest, False, 0.0, epsilon)


def _statistic(value: Value) -> torch.Tensor:
    constant = value.constant
    assert constant is not None
    return tensor(constant)


@operator("InstanceNormalization")
def _instance_normalization(op: Operation, to: Reader) -> fx.Node:
    value, scale, shift = op.inputs
    rank, data = rank_of(op, value), to.tensor(value)
    assert scale is not None and shift is not None
    if all(size == 1 for size in shape_of(op, value)[2:]):
        raise refuse(op, "torch does not normalise one value by itself")
    if scale.is_constant and shift.is_constant and rank in _INSTANCE:
        channels = fixed(op, shape_of(op, scale))[0]
        module = _INSTANCE[rank](channels, eps=op.attributes["epsilon"], affine=True, device="meta")
        module.weight, module.bias = to.parameter(scale), to.parameter(shift)
        return to.module(op, module, data)
    rest = None, None, to.tensor(scale), to.tensor(shift)
    return to.function(functional.instance_norm, data, *rest, True, 0.0, op.attributes["epsilon"])


@operator("GroupNormalization")
def _group_normalization(op: Operation, to: Reader) -> fx.Node:
    value, scale, shift = op.inputs
    data, groups = to.tensor(value), op.attributes["num_groups"]
    channels = fixed(op, shape_of(op, value)[1:2])[0]
    assert scale is not None and shift is not None
    repeats = channels // fixed(op, shape_of(op, scale))[0]
    epsilon = op.attributes["epsilon"]
    if scale.is_constant and shift.is_constant:
        module = nn.GroupNorm(groups, channels, eps=epsilon, device="meta")
        # Before version 21 there is one scale for each group.
        module.weight, module.bias = (
            to.parameter(one, ("repeated", repeats), lambda array: np.repeat(array, repeats)) for one in (scale, shift)
        )
        return to.module(op, module, data)
    nodes = [to.tensor(one) for one in (scale, shift)]
    if repeats > 1:
        nodes = [to.function(torch.repeat_interleave, one, repeats) for one in nodes]
    return to.function(functional.group_norm, data, groups, *nodes, epsilon)


@operator("LayerNormalization")
def _layer_normalization(op: Operation, to: Reader) -> Any:
    value, scale, shift = op.input(0), op.input(1), op.input(2)
    rank, data = rank_of(op, value), to.tensor(value)
    axis = op.attributes["axis"] % rank
    epsilon = op.attributes["epsilon"]
    assert value is not None and value.shape is not None and scale is not None
    normalized = value.shape[axis:]
    plain = None not in normalized and all(one is None or one.shape == normalized for one in (scale, shift))
    result = None
    if plain:
        sizes = fixed(op, normalized)
        if scale.is_constant and (shift is None or shift.is_constant):
            module = nn.LayerNorm(sizes, eps=epsilon, bias=shift is not None, device="meta")
            module.weight = to.parameter(scale)
            if shift is not None:
                module.bias = to.parameter(shift)
            result = to.module(op, module, data)
        else:
            result = to.function(functional.layer_norm, data, sizes, to.tensor(scale), to.optional(shift), epsilon)
    extra = [one for one in op.outputs[1:] if one is not None]
    if result is not None and not extra:
        return result
    axes = tuple(range(axis, rank))
    mean = to.function(torch.mean, data, dim=axes, keepdim=True)
    centred = to.function(torch.sub, data, mean)
    variance = to.function(torch.mean, to.function(torch.mul, centred, centred), dim=axes, keepdim=True)
    inverse = to.function(torch.rsqrt, to.function(torch.add, variance, epsilon))
    if result is None:
        result = to.function(torch.mul, to.function(torch.mul, centred, inverse), to.tensor(scale))
        if shift is not None:
            result = to.function(torch.add, result, to.tensor(shift))
    return result, mean, inverse


@operator("RMSNormalization")
def _rms_normalization(op: Operation, to: Reader) -> fx.Node:
    value, scale = op.input(0), op.input(1)
    rank, data = rank_of(op, value), to.tensor(value)
    axis = op.attributes["axis"] % rank
    epsilon = op.attributes["epsilon"]
    assert value is not None and value.shape is not None and scale is not None
    normalized = value.shape[axis:]
    if None in normalized or scale.shape != normalized:
        axes = tuple(range(axis, rank))
        square = to.function(torch.mean, to.function(torch.mul, data, data), dim=axes, keepdim=True)
        inverse = to.function(torch.rsqrt, to.function(torch.add, square, epsilon))
        return to.function(torch.mul, to.function(torch.mul, data, inverse), to.tensor(scale))
    sizes = fixed(op, normalized)
    if scale.is_constant:
        module = nn.RMSNorm(sizes, eps=epsilon, device="meta")
        module.weight = to.parameter(scale)
        return to.module(op, module, data)
    return to.function(functional.rms_norm, data, sizes, to.tensor(scale), epsilon)


@operator("LRN")
def _local_response(op: Operation, to: Reader) -> fx.Node:
    size = op.attributes["size"]
    if size % 2 == 0:
        raise refuse(op, "torch looks at other neighbours where their number is even")
    rank_of(op, op.input(0))
    module = nn.LocalResponseNorm(size, op.attributes["alpha"], op.attributes["beta"], op.attributes["bias"])
    return to.module(op, module, to.tensor(op.input(0)))


@operator("LpNormalization")
def _lp_normalization(op: Operation, to: Reader) -> fx.Node:
    # So small that it only keeps zeros from being divided by zero.
    smallest = math.ldexp(1.0, -24 if op.output.dtype == np.float16 else -126)
    power = op.attributes.get("p", 2)
    return to.function(
        functional.normalize, to.tensor(op.input(0)), p=power, dim=op.attributes.get("axis", -1), eps=smallest
    )
