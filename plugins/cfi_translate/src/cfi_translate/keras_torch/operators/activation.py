"""Activations: one torch module for each call."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator, optional
from cfi_translate.keras_torch.laid import Laid, axes_of, channels_first
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import make, tensor_of

# By the name of the function in keras.activations, with its own defaults.
_ELEMENTWISE: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "silu": nn.SiLU,
    "hard_silu": nn.Hardswish,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "log_sigmoid": nn.LogSigmoid,
    "tanh_shrink": nn.Tanhshrink,
    "hard_tanh": nn.Hardtanh,
    "hard_shrink": nn.Hardshrink,
    "soft_shrink": nn.Softshrink,
}
_ALONG_AN_AXIS: dict[str, Callable[[int], nn.Module]] = {"softmax": nn.Softmax, "log_softmax": nn.LogSoftmax}


def activate(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """What a layer's own activation makes of its result."""
    return _apply(op, to, op.operation.activation, x, "_activation")


def _apply(op: LayerCall, to: KerasWalk, activation: Any, x: Laid, suffix: str) -> Laid:
    """An activation, given as Keras has it in a layer's `activation`, as a new module."""
    if activation is None or activation is keras.activations.linear:
        return x
    name = getattr(activation, "__name__", "")
    if activation is getattr(keras.activations, name, None):  # keras.ops.gelu has other defaults
        if name in _ELEMENTWISE:
            return x.like(to.module(op, _ELEMENTWISE[name](), x.node, suffix=suffix))
        if name in _ALONG_AN_AXIS:
            return _softmax_along(op, to, _ALONG_AN_AXIS[name], -1, x, suffix)
        if name == "exponential":
            return x.like(to.function(torch.exp, x.node))
    if isinstance(activation, keras.Layer):
        return to.layer(activation, f"{op.path}{suffix}", x)
    require(callable(activation), f"its activation {activation!r} is no function")
    return to.activation(activation, f"{op.path}{suffix}", x, op.operation)


def _softmax_along(
    op: LayerCall, to: KerasWalk, kind: Callable[[int], nn.Module], axis: Any, x: Laid, suffix: str = ""
) -> Laid:
    """A softmax along one axis of Keras's."""
    x = to.unscramble(x)
    return x.like(to.module(op, kind(x.at(_single(axis, x))), x.node, suffix=suffix))


def _single(axis: Any, x: Laid) -> int:
    axes = axes_of(axis, x.rank)
    require(len(axes) == 1, "it goes over several axes at once")
    return axes[0]


@operator("layers.Activation")
def activation_layer(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """The activation under the layer's own name."""
    result = _apply(op, to, op.operation.activation, inputs, "")
    return result if result is not inputs else inputs.like(to.marker(op, inputs.node))


def _rectifier(own: Any) -> nn.Module:
    """The module for Keras's general ReLU."""
    slope, cap, threshold = float(own.negative_slope or 0), own.max_value, float(own.threshold or 0)
    if threshold == 0 and slope == 0:
        return nn.ReLU() if cap is None else nn.ReLU6() if cap == 6 else nn.Hardtanh(0.0, float(cap))
    if threshold == 0 and cap is None:
        return nn.LeakyReLU(slope)
    require(slope == 0 and cap is None and threshold > 0, "torch has no ReLU module with these settings together")
    return nn.Threshold(threshold, 0.0)


# Layers and operations with settings of their own.
_WITH_SETTINGS: dict[tuple[str, ...], Callable[[Any], nn.Module]] = {
    ("layers.ReLU", "activations.ReLU"): _rectifier,
    ("layers.LeakyReLU", "ops.LeakyRelu"): lambda own: nn.LeakyReLU(float(own.negative_slope)),
    ("layers.ELU", "ops.Elu"): lambda own: nn.ELU(float(own.alpha)),
    ("ops.Celu",): lambda own: nn.CELU(float(own.alpha)),
    ("ops.Gelu",): lambda own: nn.GELU("tanh" if own.approximate else "none"),
    ("ops.HardShrink",): lambda own: nn.Hardshrink(float(own.threshold)),
    ("ops.SoftShrink",): lambda own: nn.Softshrink(float(own.threshold)),
}


def _with_settings(module: Callable[[Any], nn.Module], op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    return x.like(to.module(op, module(op.operation), x.node))


def _plain(module: Callable[[], nn.Module], op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    return x.like(to.module(op, module(), x.node))


for _names, _module in _WITH_SETTINGS.items():
    operator(*_names)(partial(_with_settings, _module))
for _name, _make in _ELEMENTWISE.items():
    _operation = "ops." + "".join(part.capitalize() for part in _name.split("_"))
    if _operation not in operator:
        operator(_operation)(partial(_plain, _make))
operator("activations.Mish")(partial(_plain, nn.Mish))


@operator("layers.PReLU")
def prelu(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """PReLU, if there is one slope for each channel, or one for all."""
    alpha = op.operation.alpha
    slopes = math.prod(alpha.shape)
    require(slopes in (1, alpha.shape[-1]), "it has slopes that are not shared by all positions of a channel")
    x = to.lay(inputs, channels_first(inputs.rank))

    def weights() -> nn.Module:
        return make(nn.PReLU, slopes, tensors={"weight": tensor_of(alpha, slopes)})

    return x.like(to.call_shared(op, weights, x.node))


@operator("layers.Softmax", "ops.Softmax")
def softmax(op: LayerCall, to: KerasWalk, x: Laid, mask: Any = None) -> Laid:
    """Softmax along an axis, or over what a mask leaves."""
    mask = optional(mask, "mask")
    if mask is None:
        return _softmax_along(op, to, nn.Softmax, op.operation.axis, x)
    x, axis = to.plain(x), _single(op.operation.axis, x)
    require(mask.rank <= x.rank and mask.dtype == "bool", "its mask does not fit")
    hidden = to.function(torch.logical_not, to.plain(mask).node)
    node = to.function(torch.masked_fill, x.node, hidden, -1e9)
    node = to.module(op, nn.Softmax(axis), node)
    return op.result(to.function(torch.masked_fill, node, hidden, 0.0))


@operator("ops.LogSoftmax")
def log_softmax(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Logarithm of the softmax along an axis."""
    return _softmax_along(op, to, nn.LogSoftmax, op.operation.axis, x)
