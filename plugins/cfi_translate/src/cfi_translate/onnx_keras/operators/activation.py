"""Activations: Keras's standard ones by name, so that toolsets can exchange them on the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import Refusal, require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import clip_bounds, constant_of, is_standard, softmax_axes

_BY_NAME = {
    "Exp": "exponential",
    "HardSwish": "hard_silu",
    "Mish": "mish",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}


@operator(*_BY_NAME)
def by_name(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    return _activate(to, data, _BY_NAME[op.kind])


def _activate(to: KerasBuilder, data: Value, name: str) -> Tensor:
    return _apply_layer(to, data, layers.Activation, name)


def _apply_layer(to: KerasBuilder, data: Value, make: Callable[..., Any], *settings: Any, **options: Any) -> Tensor:
    """Applies a layer that works element by element."""
    require(data.is_float, f"only floating-point tensors are supported, and this one is {data.dtype}")
    tensor = to.tensor_as_it_lies(data)
    return Tensor(to.layer(make, tensor.value, *settings, **options), tensor.axes, tensor.order)


def apply(to: KerasBuilder, data: Value, function: Callable[[Any], Any]) -> Tensor:
    """Applies a `keras.ops` function that works element by element."""
    tensor = to.tensor_as_it_lies(data)
    return Tensor(function(tensor.value), tensor.axes, tensor.order)


def _scale(tensor: Any, factor: float) -> Any:
    return ops.multiply(tensor, np.asarray(factor, str(tensor.dtype)))


@operator("Elu")
def elu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    alpha = op.attributes["alpha"]
    return _activate(to, data, "elu") if alpha == 1 else _apply_layer(to, data, layers.ELU, alpha=alpha)


@operator("Celu")
def celu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    alpha = op.attributes["alpha"]
    return _activate(to, data, "celu") if alpha == 1 else apply(to, data, lambda x: ops.celu(x, alpha=alpha))


@operator("LeakyRelu")
def leaky_relu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    require(op.attributes["alpha"] >= 0, "a slope below 0 has no layer")
    return _apply_layer(to, data, layers.LeakyReLU, negative_slope=op.attributes["alpha"])


@operator("ThresholdedRelu")
def thresholded_relu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    require(op.attributes["alpha"] >= 0, "a threshold below 0 has no layer")
    return _apply_layer(to, data, layers.ReLU, threshold=op.attributes["alpha"])


@operator("Selu")
def selu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    if is_standard(op):
        return _activate(to, data, "selu")
    alpha, gamma = op.attributes["alpha"], op.attributes["gamma"]
    return apply(to, data, lambda x: _scale(ops.elu(x, alpha=alpha), gamma))


@operator("HardSigmoid")
def hard_sigmoid(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    if is_standard(op):
        return _activate(to, data, "hard_sigmoid")
    alpha, shift = op.attributes["alpha"], np.asarray(op.attributes["beta"], str(data.dtype))
    return apply(to, data, lambda x: ops.clip(ops.add(_scale(x, alpha), shift), 0.0, 1.0))


@operator("Gelu")
def gelu(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    if op.attributes["approximate"] == "none":
        return _activate(to, data, "gelu")
    return apply(to, data, lambda x: ops.gelu(x, approximate=True))


@operator("Swish")
def swish(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    alpha = op.attributes["alpha"]
    if alpha == 1:
        return _activate(to, data, "silu")
    return apply(to, data, lambda x: ops.multiply(x, ops.sigmoid(_scale(x, alpha))))


@operator("PRelu")
def prelu(op: Operation, to: KerasBuilder, data: Value, slope: Value) -> Tensor:
    tensor, slopes = to.floats(data), constant_of(slope, "slope")
    rank = tensor.rank
    possible = slopes.ndim <= rank and rank >= 2
    require(possible, "a slope of more axes than the tensor, or a tensor of one axis, has no layer")
    turned = slopes.reshape((1,) * (rank - slopes.ndim) + slopes.shape).transpose(tensor.axes)
    require(turned.shape[0] == 1, "a slope for each sample has no layer")
    shared = [axis for axis in range(1, rank) if turned.shape[axis] == 1]
    made = to.layer(layers.PReLU, tensor.value, "zeros", shared_axes=shared or None)
    made._keras_history.operation.set_weights([turned[0]])
    return Tensor(made, tensor.axes)


@operator("Clip")
def clip(op: Operation, to: KerasBuilder, data: Value, low: Value | None = None, high: Value | None = None) -> Tensor:
    bounds = clip_bounds(op, low, high)
    if any(isinstance(bound, Value) for bound in bounds):
        raise Refusal("only constant bounds are supported")
    name = {(0, None): "relu", (0, 6): "relu6"}.get(bounds)
    if data.is_float and name is not None:
        return _activate(to, data, name)
    tensor = to.tensor_as_it_lies(data)
    for bound, limit in zip(bounds, (ops.maximum, ops.minimum), strict=True):
        if bound is not None:
            # At the bound the gradient goes to the first operand: there torch's clamp has none.
            tensor = Tensor(limit(np.asarray(bound, tensor.dtype), tensor.value), tensor.axes, tensor.order)
    return tensor


def _along(op: Operation, to: KerasBuilder, data: Value) -> tuple[Tensor, list[int]]:
    """The tensor, and where the axes are over which a softmax is taken; axes of size 1 do not count."""
    tensor = to.floats(data)
    first, *others = softmax_axes(op, data)
    return tensor, sorted(tensor.positions([first, *(axis for axis in others if tensor.sizes[axis] != 1)]))


@operator("Softmax", "LogSoftmax")
def softmax(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    tensor, axes = _along(op, to, data)
    if axes == [tensor.rank - 1] and tensor.rank > 1:
        # Not a Softmax layer: toolsets find the softmax in the attribute `activation`.
        name = "softmax" if op.kind == "Softmax" else "log_softmax"
        return Tensor(to.layer(layers.Activation, tensor.value, name), tensor.axes)
    if op.kind == "LogSoftmax":
        total = ops.logsumexp(tensor.value, axis=tuple(axes), keepdims=True)
        return Tensor(ops.subtract(tensor.value, total), tensor.axes)
    axis = axes[0] if len(axes) == 1 else tuple(axes)
    return Tensor(to.layer(layers.Softmax, tensor.value, axis=axis), tensor.axes)


@operator("Hardmax")
def hardmax(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    tensor, (axis, *others) = _along(op, to, data)
    require(not others, "a maximum over several axes is not supported")
    size = tensor.value.shape[axis]
    require(size is not None, "a maximum over the samples is not supported")
    made = ops.one_hot(ops.argmax(tensor.value, axis=axis), size, axis=-1, dtype=tensor.dtype)
    return Tensor(ops.moveaxis(made, -1, axis), tensor.axes)
