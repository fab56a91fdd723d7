"""Normalisation layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cfi_translate.keras_torch.builder import make, tensor_of
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value

BATCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@translates("layers.BatchNormalization")
def batch_normalization(call: Call) -> Value:
    """A BatchNorm module with the layer's moving statistics."""
    layer, value = call.operation, call.input
    call.require(value.rank in BATCH, f"torch has no batch normalisation of {value.rank} axes")
    axis = layer.axis % value.rank
    call.require(axis > 0, "it normalises along the axis of the samples")
    others = tuple(one for one in range(1, value.rank) if one != axis)
    value = call.builder.to(value, (0, axis, *others))
    size = int(value.shape[axis] or 0)

    def weights() -> nn.Module:
        mean = tensor_of(layer.moving_mean)
        return make(
            BATCH[value.rank],
            size,
            eps=layer.epsilon,
            momentum=1 - layer.momentum,
            affine=layer.scale or layer.center,
            tensors={
                "weight": _or_filled(layer.gamma if layer.scale else None, mean, 1.0, layer.center),
                "bias": _or_filled(layer.beta if layer.center else None, mean, 0.0, layer.scale),
                "running_mean": mean,
                "running_var": tensor_of(layer.moving_variance),
                "num_batches_tracked": torch.tensor(0),
            },
        )

    return value.like(call.builder.call(call.builder.shared(layer, call.path, weights), value.node))


def _or_filled(variable: object, like: torch.Tensor, filling: float, wanted: bool) -> torch.Tensor | None:
    if variable is not None:
        return tensor_of(variable)
    return torch.full_like(like, filling) if wanted else None


@translates("layers.LayerNormalization")
def layer_normalization(call: Call) -> Value:
    """A LayerNorm module over the last axes."""
    layer, value = call.operation, call.input
    given = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    axes = sorted(axis % value.rank for axis in given)
    call.require(not layer.rms_scaling, "it scales by the root mean square in Keras's own way")
    call.require(axes == list(range(value.rank - len(axes), value.rank)) and 0 not in axes, "its axes are not the last")
    value = call.builder.last(value) if len(axes) == 1 else call.builder.plain(value)
    shape = tuple(int(value.shape[axis] or 0) for axis in axes)

    def weights() -> nn.Module:
        kind = np.dtype(layer.variable_dtype)
        like = torch.from_numpy(np.empty(shape, kind))
        return make(
            nn.LayerNorm,
            shape,
            eps=layer.epsilon,
            elementwise_affine=layer.scale or layer.center,
            bias=layer.center,
            tensors={
                "weight": _or_filled(layer.gamma if layer.scale else None, like, 1.0, layer.center),
                "bias": tensor_of(layer.beta) if layer.center else None,
            },
        )

    return value.like(call.builder.call(call.builder.shared(layer, call.path, weights), value.node))


@translates("layers.RMSNormalization")
def rms_normalization(call: Call) -> Value:
    """An RMSNorm module over the last axis."""
    layer = call.operation
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    call.require([axis % call.input.rank for axis in axes] == [call.input.rank - 1], "its axis is not the last")
    value = call.builder.last(call.input)

    def weights() -> nn.Module:
        return make(nn.RMSNorm, layer.scale.shape[0], eps=layer.epsilon, tensors={"weight": tensor_of(layer.scale)})

    return value.like(call.builder.call(call.builder.shared(layer, call.path, weights), value.node))


@translates("layers.GroupNormalization")
def group_normalization(call: Call) -> Value:
    """A GroupNorm module."""
    layer, value = call.operation, call.input
    axis = layer.axis % value.rank
    call.require(axis > 0, "it normalises along the axis of the samples")
    others = tuple(one for one in range(1, value.rank) if one != axis)
    value = call.builder.to(value, (0, axis, *others))
    size = int(value.shape[axis] or 0)

    def weights() -> nn.Module:
        like = torch.from_numpy(np.empty(size, np.dtype(layer.variable_dtype)))
        return make(
            nn.GroupNorm,
            layer.groups,
            size,
            eps=layer.epsilon,
            affine=layer.scale or layer.center,
            tensors={
                "weight": _or_filled(layer.gamma if layer.scale else None, like, 1.0, layer.center),
                "bias": _or_filled(layer.beta if layer.center else None, like, 0.0, layer.scale),
            },
        )

    return value.like(call.builder.call(call.builder.shared(layer, call.path, weights), value.node))


@translates("layers.Normalization")
def normalization(call: Call) -> Value:
    """Subtracts a constant mean and divides by a constant deviation."""
    import keras

    layer, value = call.operation, call.input
    call.require(layer.mean is not None, "it has not been adapted")
    epsilon = keras.config.epsilon()
    mean = np.asarray(layer.mean, value.dtype if "float" in value.dtype else layer.compute_dtype)
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance, mean.dtype)), np.asarray(epsilon, mean.dtype))
    builder, path = call.builder, call.path
    value = call.walk.floating(value, layer.compute_dtype)
    mean_node = call.walk.constant(f"{path}.mean", mean, value)
    deviation_node = call.walk.constant(f"{path}.deviation", deviation, value)
    if layer.invert:
        node = builder.function(torch.add, mean_node, builder.function(torch.mul, value.node, deviation_node))
    else:
        node = builder.function(torch.div, builder.function(torch.sub, value.node, mean_node), deviation_node)
    return call.result(builder.marker(path, node), value.axes)


@translates("layers.Rescaling")
def rescaling(call: Call) -> Value:
    """Multiplies by a constant and adds another."""
    layer = call.operation
    value = call.walk.floating(call.input, layer.compute_dtype)
    builder, path = call.builder, call.path
    scale = call.walk.constant(f"{path}.scale", np.asarray(layer.scale, layer.compute_dtype), value)
    offset = call.walk.constant(f"{path}.offset", np.asarray(layer.offset, layer.compute_dtype), value)
    node = builder.function(torch.add, builder.function(torch.mul, value.node, scale), offset)
    return call.result(builder.marker(path, node), value.axes)
