"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator
from cfi_translate.keras_torch.laid import Laid, axes_of, plain_axes
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import make, tensor_of
from cfi_translate.torch_modules import BATCH_NORMALIZATIONS


def _channels_second(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """The tensor with the axis that is normalised as its second."""
    axis = op.operation.axis % x.rank
    require(axis > 0, "it normalises along the axis of the samples")
    return to.lay(x, (0, axis, *(one for one in range(1, x.rank) if one != axis)))


def _affine(layer: Any, shape: tuple[int, ...]) -> dict[str, torch.Tensor | None]:
    """Weight and bias; torch has both or none, so that one that the layer lacks is filled in."""
    kind = getattr(torch, layer.variable_dtype)
    either = layer.scale or layer.center
    return {
        "weight": tensor_of(layer.gamma) if layer.scale else torch.ones(shape, dtype=kind) if either else None,
        "bias": tensor_of(layer.beta) if layer.center else torch.zeros(shape, dtype=kind) if either else None,
    }


@operator("layers.BatchNormalization")
def batch_normalization(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Any = None) -> Laid:
    """A BatchNorm module with the layer's moving statistics; the mask matters in training only."""
    layer = op.operation
    require(inputs.rank in BATCH_NORMALIZATIONS, f"torch has no batch normalisation of {inputs.rank} axes")
    x = _channels_second(op, to, inputs)

    def weights() -> nn.Module:
        statistics = {
            "running_mean": tensor_of(layer.moving_mean),
            "running_var": tensor_of(layer.moving_variance),
            "num_batches_tracked": torch.tensor(0),
        }
        return make(
            BATCH_NORMALIZATIONS[x.rank],
            x.channels,
            eps=layer.epsilon,
            momentum=1 - layer.momentum,
            affine=layer.scale or layer.center,
            tensors=_affine(layer, (x.channels,)) | statistics,
        )

    return x.like(to.call_shared(op, weights, x.node))


@operator("layers.GroupNormalization")
def group_normalization(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A GroupNorm module."""
    layer, x = op.operation, _channels_second(op, to, inputs)

    def weights() -> nn.Module:
        return make(
            nn.GroupNorm,
            layer.groups,
            x.channels,
            eps=layer.epsilon,
            affine=layer.scale or layer.center,
            tensors=_affine(layer, (x.channels,)),
        )

    return x.like(to.call_shared(op, weights, x.node))


def _last_axes(op: LayerCall, to: KerasWalk, x: Laid) -> tuple[Laid, tuple[int, ...]]:
    """The tensor with the axes that are normalised as its last, and their sizes."""
    axes = axes_of(op.operation.axis, x.rank)
    require(axes == plain_axes(x.rank)[-len(axes) :] and 0 not in axes, "its axes are not the last")
    return to.last(x) if len(axes) == 1 else to.plain(x), tuple(int(x.shape[axis] or 0) for axis in axes)


@operator("layers.LayerNormalization")
def layer_normalization(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A LayerNorm module over the last axes."""
    layer = op.operation
    require(not layer.rms_scaling, "it scales by the root mean square in Keras's own way")
    x, shape = _last_axes(op, to, inputs)

    def weights() -> nn.Module:
        tensors = _affine(layer, shape)
        return make(
            nn.LayerNorm,
            shape,
            eps=layer.epsilon,
            elementwise_affine=layer.scale or layer.center,
            bias=layer.center,
            tensors=tensors if layer.center else {"weight": tensors["weight"]},
        )

    return x.like(to.call_shared(op, weights, x.node))


@operator("layers.RMSNormalization")
def rms_normalization(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """An RMSNorm module over the last axes."""
    layer = op.operation
    x, shape = _last_axes(op, to, inputs)

    def weights() -> nn.Module:
        return make(nn.RMSNorm, shape, eps=layer.epsilon, tensors={"weight": tensor_of(layer.scale)})

    return x.like(to.call_shared(op, weights, x.node))


@operator("layers.Normalization")
def normalization(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Subtracts a constant mean and divides by a constant deviation."""
    layer = op.operation
    require(layer.mean is not None, "it has not been adapted")
    mean = np.asarray(layer.mean, inputs.dtype if "float" in inputs.dtype else layer.compute_dtype)
    least = np.asarray(keras.config.epsilon(), mean.dtype)
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance, mean.dtype)), least)
    x = to.cast(to.unscramble(inputs), layer.compute_dtype)
    mean_node = to.operand(f"{op.path}.mean", mean, x)
    deviation_node = to.operand(f"{op.path}.deviation", deviation, x)
    if layer.invert:
        node = to.function(torch.add, mean_node, to.function(torch.mul, x.node, deviation_node))
    else:
        node = to.function(torch.div, to.function(torch.sub, x.node, mean_node), deviation_node)
    return op.result(to.marker(op, node), x.axes)


@operator("layers.Rescaling")
def rescaling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Multiplies by a constant and adds another."""
    layer = op.operation
    x = to.cast(to.unscramble(inputs), layer.compute_dtype)
    scale, offset = (
        to.operand(f"{op.path}.{name}", np.asarray(getattr(layer, name), layer.compute_dtype), x)
        for name in ("scale", "offset")
    )
    node = to.function(torch.add, to.function(torch.mul, x.node, scale), offset)
    return op.result(to.marker(op, node), x.axes)
