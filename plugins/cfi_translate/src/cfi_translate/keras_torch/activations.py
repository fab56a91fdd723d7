"""Activations: one torch module for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cfi_translate.keras_torch.builder import make, tensor_of
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value

Make = Callable[[], nn.Module]

# By the name of the function in keras.activations, with its own defaults.
ELEMENTWISE: dict[str, Make] = {
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
ALONG_AN_AXIS: dict[str, Callable[[int], nn.Module]] = {"softmax": nn.Softmax, "log_softmax": nn.LogSoftmax}


def activated(call: Call, value: Value) -> Value:
    """What a layer's own activation makes of its result."""
    return apply(call, call.operation.activation, value, f"{call.path}_activation")


def apply(call: Call, activation: Any, value: Value, path: str, own: bool = False) -> Value:
    """An activation, given as Keras has it in a layer's `activation`, as a new module.

    Args:
        call: The call that it is part of.
        activation: Function, layer or None.
        value: What it is applied to.
        path: Name of the new module.
        own: Whether that is the name of the Keras layer.
    """
    import keras

    if activation is None or activation is keras.activations.linear:
        return value
    name = getattr(activation, "__name__", "")
    if activation is getattr(keras.activations, name, None):  # keras.ops.gelu has other defaults
        if name in ELEMENTWISE:
            return elementwise(call, ELEMENTWISE[name](), value, path, own)
        if name in ALONG_AN_AXIS:
            return along_axis(call, ALONG_AN_AXIS[name], -1, value, path, own)
        if name == "exponential":
            return value.like(call.builder.function(torch.exp, value.node))
    if isinstance(activation, keras.Layer):
        return call.walk.single(activation, (value,), {}, path)
    if not callable(activation):
        raise call.refusal(f"its activation {activation!r} is no function")
    return call.walk.traced_function(call, activation, value, path)


def elementwise(call: Call, module: nn.Module, value: Value, path: str, own: bool = False) -> Value:
    """A module that treats each element alike, whatever the layout."""
    return value.like(call.builder.module(path, module, value.node, own=own))


def along_axis(
    call: Call, kind: Callable[[int], nn.Module], axis: Any, value: Value, path: str, own: bool = False
) -> Value:
    """A softmax along one axis of Keras's."""
    if isinstance(axis, list | tuple):
        call.require(len(axis) == 1, "it goes over several axes at once")
        axis = axis[0]
    call.require(axis is not None, "it goes over all axes, that of the samples included")
    if value.flattened is not None:
        value = call.builder.plain(value)
    return value.like(call.builder.module(path, kind(value.at(axis)), value.node, own=own))


@translates("layers.Activation")
def activation_layer(call: Call) -> Value:
    """The activation under the layer's own name."""
    value = apply(call, call.operation.activation, call.input, call.path, own=True)
    return value if value is not call.input else value.like(call.builder.marker(call.path, value.node))


@translates("layers.ReLU")
def relu_layer(call: Call) -> Value:
    """ReLU with a cap, a slope or a threshold."""
    layer = call.operation
    cap, slope, threshold = layer.max_value, float(layer.negative_slope or 0), float(layer.threshold or 0)
    return elementwise(call, rectifier(call, slope, cap, threshold), call.input, call.path, own=True)


def rectifier(call: Call, slope: float, cap: float | None, threshold: float) -> nn.Module:
    """The module for Keras's general ReLU."""
    if threshold == 0 and slope == 0:
        return nn.ReLU() if cap is None else nn.ReLU6() if cap == 6 else nn.Hardtanh(0.0, float(cap))
    if threshold == 0 and cap is None:
        return nn.LeakyReLU(slope)
    call.require(slope == 0 and cap is None and threshold > 0, "torch has no ReLU module with these settings together")
    return nn.Threshold(threshold, 0.0)


@translates("layers.LeakyReLU")
def leaky_relu_layer(call: Call) -> Value:
    """LeakyReLU."""
    return elementwise(call, nn.LeakyReLU(float(call.operation.negative_slope)), call.input, call.path, own=True)


@translates("layers.ELU")
def elu_layer(call: Call) -> Value:
    """ELU."""
    return elementwise(call, nn.ELU(float(call.operation.alpha)), call.input, call.path, own=True)


@translates("layers.PReLU")
def prelu_layer(call: Call) -> Value:
    """PReLU, if there is one slope for each channel, or one for all."""
    layer, value = call.operation, call.input
    shape = tuple(layer.alpha.shape)
    slopes = 1
    for size in shape:
        slopes *= size
    call.require(slopes in (1, shape[-1]), "it has slopes that are not shared by all positions of a channel")
    value = call.builder.channels_first(value)

    def weights() -> nn.Module:
        return make(nn.PReLU, slopes, tensors={"weight": tensor_of(layer.alpha, slopes)})

    return value.like(call.builder.call(call.builder.shared(layer, call.path, weights), value.node))


@translates("layers.Softmax")
def softmax_layer(call: Call) -> Value:
    """Softmax along an axis, or over what a mask leaves."""
    value, mask = call.input, call.argument(1, "mask")
    if not isinstance(mask, Value):
        return along_axis(call, nn.Softmax, call.operation.axis, value, call.path, own=True)
    axis = call.operation.axis
    call.require(isinstance(axis, int) or len(axis) == 1, "it goes over several axes at once")
    axis = axis if isinstance(axis, int) else axis[0]
    builder, value = call.builder, call.builder.plain(value)
    call.require(mask.rank <= value.rank and mask.dtype == "bool", "its mask does not fit")
    hidden = builder.function(torch.logical_not, builder.plain(mask).node)
    node = builder.function(torch.masked_fill, value.node, hidden, -1e9)
    node = builder.module(call.path, nn.Softmax(axis % value.rank), node, own=True)
    return call.result(builder.function(torch.masked_fill, node, hidden, 0.0))


def _named(name: str) -> None:
    """Operations of keras.ops with the meaning of an activation, under the operation's own name."""
    class_name = "".join(part.capitalize() for part in name.split("_"))

    @translates(f"ops.{class_name}")
    def operation(call: Call) -> Value:
        return elementwise(call, _with_settings(call, name), call.input, call.path)


def _with_settings(call: Call, name: str) -> nn.Module:
    own = call.operation
    if name == "gelu":
        return nn.GELU("tanh" if own.approximate else "none")
    if name == "leaky_relu":
        return nn.LeakyReLU(float(own.negative_slope))
    if name in ("elu", "celu"):
        return (nn.ELU if name == "elu" else nn.CELU)(float(own.alpha))
    if name in ("hard_shrink", "soft_shrink"):
        return (nn.Hardshrink if name == "hard_shrink" else nn.Softshrink)(float(own.threshold))
    return ELEMENTWISE[name]()


for _name in ELEMENTWISE:
    _named(_name)


@translates("activations.Mish")
def mish_operation(call: Call) -> Value:
    """Mish."""
    return elementwise(call, nn.Mish(), call.input, call.path)


@translates("activations.ReLU")
def relu_operation(call: Call) -> Value:
    """ReLU with a cap, a slope or a threshold."""
    own = call.operation
    module = rectifier(call, float(own.negative_slope or 0), own.max_value, float(own.threshold or 0))
    return elementwise(call, module, call.input, call.path)


@translates("ops.Softmax")
def softmax_operation(call: Call) -> Value:
    """Softmax along an axis."""
    return along_axis(call, nn.Softmax, call.operation.axis, call.input, call.path)


@translates("ops.LogSoftmax")
def log_softmax_operation(call: Call) -> Value:
    """Logarithm of the softmax along an axis."""
    return along_axis(call, nn.LogSoftmax, call.operation.axis, call.input, call.path)
