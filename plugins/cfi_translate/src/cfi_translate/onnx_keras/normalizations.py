"""Normalisation with known statistics, or over the axes of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last, identity
from cfi_translate.program import Operation


def _float(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    if not tensor.is_float:
        raise Unsupported(f"only floating-point tensors are supported, and this one is {tensor.dtype}")
    return tensor


def _batch_normalization(builder: Builder, operation: Operation) -> Tensor:
    tensor = _float(builder, operation)
    if operation.attributes.get("training_mode", 0) or tensor.rank < 2 or operation.attributes.get("spatial", 1) != 1:
        raise Unsupported("only normalisation of channels with given statistics is supported")
    if tensor.axes[0] != 0:
        raise Unsupported("the samples must stand first")
    weights = [builder.array(operation.input(one), "statistic") for one in range(1, 5)]
    if any(one.shape != (tensor.sizes[1],) for one in weights):
        raise Unsupported("the statistics do not fit the channels")
    layer = layers.BatchNormalization(
        axis=tensor.position(1) - tensor.rank,
        epsilon=operation.attributes.get("epsilon", 1e-5),
        momentum=operation.attributes.get("momentum", 0.9),
        dtype=tensor.dtype,
        name=builder.name(operation.name),
    )
    made = layer(tensor.value)
    layer.set_weights(weights)
    return Tensor(made, tensor.axes)


def _layer_normalization(builder: Builder, operation: Operation) -> Sequence[Tensor | None]:
    tensor = _float(builder, operation)
    rank = tensor.rank
    first = operation.attributes.get("axis", -1) % rank
    normalized = tuple(range(first, rank))
    places = tensor.positions(normalized)
    if list(places) != sorted(places) or (tensor.dtype == "float64" and operation.attributes.get("stash_type", 1) == 1):
        if tensor.dtype == "float64":
            raise Unsupported("double precision that is computed in single precision is not supported")
        tensor = Tensor(builder.laid(tensor, identity(rank), operation.name), identity(rank))
        places = normalized
    shape = [size for axis in normalized if (size := tensor.sizes[axis]) is not None]
    if len(shape) < len(normalized):
        raise Unsupported("the samples would be normalised together")
    scale = np.broadcast_to(builder.array(operation.input(1), "scale"), shape)
    bias = None
    if operation.input(2) is not None:
        bias = np.broadcast_to(builder.array(operation.input(2), "bias"), shape)
    layer = layers.LayerNormalization(
        axis=[place - rank for place in places] if len(places) > 1 else places[0] - rank,
        epsilon=operation.attributes.get("epsilon", 1e-5),
        center=bias is not None,
        dtype=tensor.dtype,
        name=builder.name(operation.name),
    )
    made = Tensor(layer(tensor.value), tensor.axes)
    layer.set_weights([scale] if bias is None else [scale, bias])
    return [made, *_statistics(builder, operation, tensor, places)]


def _statistics(builder: Builder, operation: Operation, tensor: Tensor, places: Sequence[int]) -> list[Tensor | None]:
    """Mean and inverse standard deviation, where they are asked for."""
    asked = [(one is not None and one in builder.users) or one in builder.program.outputs for one in operation.outputs]
    if not any(asked[1:]):
        return [None, None]
    axes: Any = tuple(places)
    mean = ops.mean(tensor.value, axis=axes, keepdims=True)
    variance = ops.var(tensor.value, axis=axes, keepdims=True)
    epsilon = np.asarray(operation.attributes.get("epsilon", 1e-5), tensor.dtype)
    return [Tensor(mean, tensor.axes), Tensor(ops.rsqrt(ops.add(variance, epsilon)), tensor.axes)]


def _group_normalization(builder: Builder, operation: Operation) -> Tensor:
    groups = operation.attributes["num_groups"]
    scale, bias = (builder.array(operation.input(one), "weight") for one in (1, 2))
    channels = _float(builder, operation).sizes[1]
    if channels is None or scale.shape != bias.shape:
        raise Unsupported("its weights do not fit the channels")
    if scale.shape == (groups,) and operation.version < 21:
        scale, bias = (np.repeat(one, channels // groups) for one in (scale, bias))
    return _grouped(builder, operation, groups, scale, bias)


def _instance_normalization(builder: Builder, operation: Operation) -> Tensor:
    scale, bias = (builder.array(operation.input(one), "weight") for one in (1, 2))
    return _grouped(builder, operation, _float(builder, operation).sizes[1] or 0, scale, bias)


def _grouped(builder: Builder, operation: Operation, groups: int, scale: np.ndarray, bias: np.ndarray) -> Tensor:
    value = builder.image(operation.input(0), operation.name)
    channels = value.shape[-1]
    if None in value.shape[1:] or scale.shape != (channels,) or bias.shape != (channels,) or not groups:
        raise Unsupported("its weights do not fit the channels")
    layer = layers.GroupNormalization(
        groups=groups,
        axis=-1,
        epsilon=operation.attributes.get("epsilon", 1e-5),
        dtype=str(value.dtype),
        name=builder.name(operation.name),
    )
    made = layer(value)
    layer.set_weights([scale, bias])
    return Tensor(made, channels_last(len(value.shape)))


def _lrn(builder: Builder, operation: Operation) -> Tensor:
    tensor = _float(builder, operation)
    size = operation.attributes["size"]
    alpha, beta, bias = (
        np.asarray(operation.attributes.get(name, default), tensor.dtype)
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    place, channels = tensor.position(1), tensor.sizes[1]
    if channels is None:
        raise Unsupported("the number of channels is not known")
    around = [(0, 0)] * tensor.rank
    around[place] = ((size - 1) // 2, size - 1 - (size - 1) // 2)
    padded = ops.pad(ops.square(tensor.value), around)
    parts = [
        padded[tuple(slice(at, at + channels) if one == place else slice(None) for one in range(tensor.rank))]
        for at in range(size)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = ops.add(total, part)
    scale = ops.power(ops.add(ops.multiply(total, alpha / np.asarray(size, tensor.dtype)), bias), beta)
    return Tensor(builder.named(ops.divide(tensor.value, scale), operation.name), tensor.axes)


OPERATORS: dict[str, Handler] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LayerNormalization": _layer_normalization,
}
