"""Activations: Keras's standard ones by name, so that toolsets can exchange them on the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported
from cfi_translate.program import Operation


def _activated(builder: Builder, operation: Operation, name: str) -> Tensor:
    tensor = builder.scrambled(operation.input(0))
    _only_floats(tensor)
    layer = layers.Activation(name, dtype=tensor.dtype, name=builder.name(operation.name))
    return Tensor(layer(tensor.value), tensor.axes, tensor.order)


def _only_floats(tensor: Tensor) -> None:
    if not tensor.is_float:
        raise Unsupported(f"only floating-point tensors are supported, and this one is {tensor.dtype}")


def _by_name(name: str) -> Handler:
    return lambda builder, operation: _activated(builder, operation, name)


def layered(builder: Builder, operation: Operation, make: Callable[..., Any]) -> Tensor:
    """Applies a layer that works element by element.

    Args:
        builder: What is being built.
        operation: The operation.
        make: Makes the layer from keyword arguments `name` and `dtype`.
    """
    tensor = builder.scrambled(operation.input(0))
    _only_floats(tensor)
    layer = make(name=builder.name(operation.name), dtype=tensor.dtype)
    return Tensor(layer(tensor.value), tensor.axes, tensor.order)


def applied(builder: Builder, operation: Operation, function: Callable[[Any], Any]) -> Tensor:
    """Applies a `keras.ops` function that works element by element."""
    tensor = builder.scrambled(operation.input(0))
    return Tensor(builder.named(function(tensor.value), operation.name), tensor.axes, tensor.order)


def _elu(builder: Builder, operation: Operation) -> Tensor:
    alpha = operation.attributes.get("alpha", 1.0)
    if alpha == 1:
        return _activated(builder, operation, "elu")
    return layered(builder, operation, lambda **options: layers.ELU(alpha=alpha, **options))


def _celu(builder: Builder, operation: Operation) -> Tensor:
    alpha = operation.attributes.get("alpha", 1.0)
    if alpha == 1:
        return _activated(builder, operation, "celu")
    return applied(builder, operation, lambda x: ops.celu(x, alpha=alpha))


def _leaky_relu(builder: Builder, operation: Operation) -> Tensor:
    slope = operation.attributes.get("alpha", 0.01)
    if slope < 0:
        raise Unsupported("a slope below 0 has no layer")
    return layered(builder, operation, lambda **options: layers.LeakyReLU(negative_slope=slope, **options))


def _thresholded_relu(builder: Builder, operation: Operation) -> Tensor:
    threshold = operation.attributes.get("alpha", 1.0)
    if threshold < 0:
        raise Unsupported("a threshold below 0 has no layer")
    return layered(builder, operation, lambda **options: layers.ReLU(threshold=threshold, **options))


def _selu(builder: Builder, operation: Operation) -> Tensor:
    alpha, gamma = operation.attributes.get("alpha", 1.67326324), operation.attributes.get("gamma", 1.05070102)
    if np.isclose(alpha, 1.67326324, rtol=1e-6) and np.isclose(gamma, 1.05070102, rtol=1e-6):
        return _activated(builder, operation, "selu")
    return applied(builder, operation, lambda x: ops.multiply(ops.elu(x, alpha=alpha), _like(gamma, x)))


def _like(number: float, tensor: Any) -> np.ndarray:
    return np.asarray(number, str(tensor.dtype))


def _hard_sigmoid(builder: Builder, operation: Operation) -> Tensor:
    alpha, beta = operation.attributes.get("alpha", 0.2), operation.attributes.get("beta", 0.5)
    if np.isclose(alpha, 1 / 6, rtol=1e-6) and beta == 0.5:
        return _activated(builder, operation, "hard_sigmoid")
    return applied(
        builder, operation, lambda x: ops.clip(ops.add(ops.multiply(x, _like(alpha, x)), _like(beta, x)), 0.0, 1.0)
    )


def _gelu(builder: Builder, operation: Operation) -> Tensor:
    if operation.attributes.get("approximate", "none") == "none":
        return _activated(builder, operation, "gelu")
    return applied(builder, operation, lambda x: ops.gelu(x, approximate=True))


def _swish(builder: Builder, operation: Operation) -> Tensor:
    alpha = operation.attributes.get("alpha", 1.0)
    if alpha == 1:
        return _activated(builder, operation, "silu")
    return applied(builder, operation, lambda x: ops.multiply(x, ops.sigmoid(ops.multiply(x, _like(alpha, x)))))


def _prelu(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    _only_floats(tensor)
    slope = builder.array(operation.input(1), "slope")
    rank = tensor.rank
    if slope.ndim > rank or rank < 2:
        raise Unsupported("a slope of more axes than the tensor, or a tensor of one axis, has no layer")
    turned = slope.reshape((1,) * (rank - slope.ndim) + slope.shape).transpose(tensor.axes)
    if turned.shape[0] != 1:
        raise Unsupported("a slope for each sample has no layer")
    shared = [axis for axis in range(1, rank) if turned.shape[axis] == 1]
    layer = layers.PReLU("zeros", shared_axes=shared or None, dtype=tensor.dtype, name=builder.name(operation.name))
    made = layer(tensor.value)
    layer.set_weights([turned[0]])
    return Tensor(made, tensor.axes)


def _clip(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.scrambled(operation.input(0))
    bounds = []
    for position, name in ((1, "min"), (2, "max")):
        value = operation.input(position)
        given = operation.attributes.get(name) if value is None else builder.array(value, "bound")
        bounds.append(None if given is None else np.asarray(given, tensor.dtype).reshape(()))
    low, high = bounds
    if tensor.is_float and low == 0:
        if high is None:
            return _activated(builder, operation, "relu")
        if high == 6:
            return _activated(builder, operation, "relu6")
    if tensor.is_float and low == -1 and high == 1:
        return _activated(builder, operation, "hard_tanh")

    def clip(x: Any) -> Any:
        x = x if low is None else ops.maximum(x, low)
        return x if high is None else ops.minimum(x, high)

    if low is None and high is None:
        return tensor
    return applied(builder, operation, clip)


def _softmax_axes(builder: Builder, operation: Operation) -> tuple[Tensor, list[int]]:
    tensor = builder.tensor(operation.input(0))
    _only_floats(tensor)
    joint = operation.version < 13  # over all axes from the given one
    axis = operation.attributes.get("axis", 1 if joint else -1)
    first = axis % tensor.rank
    axes = [first, *(one for one in range(first + 1, tensor.rank) if joint and tensor.sizes[one] != 1)]
    return tensor, sorted(tensor.positions(axes))


def _softmax(builder: Builder, operation: Operation) -> Tensor:
    tensor, axes = _softmax_axes(builder, operation)
    options = {"dtype": tensor.dtype, "name": builder.name(operation.name)}
    if axes == [tensor.rank - 1] and tensor.rank > 1:
        # Not a Softmax layer: toolsets find the softmax in the attribute `activation`.
        return Tensor(layers.Activation("softmax", **options)(tensor.value), tensor.axes)
    layer = layers.Softmax(axis=axes[0] if len(axes) == 1 else tuple(axes), **options)
    return Tensor(layer(tensor.value), tensor.axes)


def _log_softmax(builder: Builder, operation: Operation) -> Tensor:
    tensor, axes = _softmax_axes(builder, operation)
    if axes == [tensor.rank - 1] and tensor.rank > 1:
        return _activated(builder, operation, "log_softmax")
    total = ops.logsumexp(tensor.value, axis=tuple(axes), keepdims=True)
    return Tensor(builder.named(ops.subtract(tensor.value, total), operation.name), tensor.axes)


def _hardmax(builder: Builder, operation: Operation) -> Tensor:
    tensor, axes = _softmax_axes(builder, operation)
    if len(axes) != 1:
        raise Unsupported("a maximum over several axes is not supported")
    size = tensor.value.shape[axes[0]]
    if size is None:
        raise Unsupported("a maximum over the samples is not supported")
    largest = ops.argmax(tensor.value, axis=axes[0])
    made = ops.one_hot(largest, size, axis=-1, dtype=tensor.dtype)
    return Tensor(
        builder.named(ops.moveaxis(made, -1, axes[0]), operation.name),
        tensor.axes,
    )


OPERATORS: dict[str, Handler] = {
    "Celu": _celu,
    "Clip": _clip,
    "Elu": _elu,
    "Exp": _by_name("exponential"),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _by_name("hard_silu"),
    "Hardmax": _hardmax,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "Mish": _by_name("mish"),
    "PRelu": _prelu,
    "Relu": _by_name("relu"),
    "Selu": _selu,
    "Sigmoid": _by_name("sigmoid"),
    "Softmax": _softmax,
    "Softplus": _by_name("softplus"),
    "Softsign": _by_name("softsign"),
    "Swish": _swish,
    "Tanh": _by_name("tanh"),
    "ThresholdedRelu": _thresholded_relu,
}
