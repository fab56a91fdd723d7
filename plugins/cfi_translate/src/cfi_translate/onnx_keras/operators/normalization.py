"""Normalisation with known statistics, or over the axes of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last, identity
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, shape_of, static


def _call(to: KerasBuilder, make: Any, value: Any, weights: Sequence[np.ndarray], **settings: Any) -> Any:
    made = to.layer(make, value, **settings)
    made._keras_history.operation.set_weights(weights)
    return made


@operator("BatchNormalization")
def batch_normalization(op: Operation, to: KerasBuilder, data: Value, *statistics: Value) -> Tensor:
    tensor = to.floats(data)
    plain = not op.attributes.get("training_mode") and op.attributes.get("spatial", 1) and tensor.rank > 1
    require(plain, "only normalisation of channels with given statistics is supported")
    require(tensor.axes[0] == 0, "the samples must stand first")
    weights = [constant_of(one, "statistic") for one in statistics]
    require(all(one.shape == (tensor.sizes[1],) for one in weights), "the statistics do not fit the channels")
    axis, settings = tensor.position(1) - tensor.rank, {name: op.attributes[name] for name in ("epsilon", "momentum")}
    return Tensor(_call(to, layers.BatchNormalization, tensor.value, weights, axis=axis, **settings), tensor.axes)


@operator("LayerNormalization")
def layer_normalization(
    op: Operation, to: KerasBuilder, data: Value, scale: Value, shift: Value | None = None
) -> list[Tensor]:
    tensor = to.floats(data)
    is_narrow = tensor.dtype != "float64" or op.attributes["stash_type"] != 1
    require(is_narrow, "double precision that is computed in single precision is not supported")
    normalized = tuple(range(op.attributes["axis"] % tensor.rank, tensor.rank))
    if list(tensor.positions(normalized)) != sorted(tensor.positions(normalized)):
        tensor = Tensor(to.plain(data), identity(tensor.rank))
    shape = static([tensor.sizes[axis] for axis in normalized])
    weights = [constant_of(one, "weight") for one in (scale, shift) if one is not None]
    places = [place - tensor.rank for place in tensor.positions(normalized)]
    made = _call(
        to,
        layers.LayerNormalization,
        tensor.value,
        [np.broadcast_to(one, shape) for one in weights],
        axis=places if len(places) > 1 else places[0],
        epsilon=op.attributes["epsilon"],
        center=shift is not None,
    )
    results = [Tensor(made, tensor.axes)]
    if any(one in to.users or one in to.program.outputs for one in op.results[1:]):
        mean, variance = (function(tensor.value, axis=tuple(places), keepdims=True) for function in (ops.mean, ops.var))
        inverse = ops.rsqrt(ops.add(variance, np.asarray(op.attributes["epsilon"], tensor.dtype)))
        results += [Tensor(mean, tensor.axes), Tensor(inverse, tensor.axes)]
    return results


@operator("GroupNormalization", "InstanceNormalization")
def group_normalization(op: Operation, to: KerasBuilder, data: Value, scale: Value, shift: Value) -> Tensor:
    weights, (channels,) = [constant_of(one, "weight") for one in (scale, shift)], static(shape_of(data)[1:2])
    groups = op.attributes.get("num_groups", channels)
    if op.kind == "GroupNormalization" and op.version < 21:  # one for each group
        weights = [np.repeat(one, channels // groups) for one in weights]
    value = to.image(data)
    fits = None not in value.shape[1:] and all(one.shape == value.shape[-1:] for one in weights) and groups
    require(fits, "its weights do not fit the channels")
    settings = {"groups": groups, "axis": -1, "epsilon": op.attributes["epsilon"]}
    made = _call(to, layers.GroupNormalization, value, weights, **settings)
    return Tensor(made, channels_last(len(value.shape)))


@operator("LRN")
def local_response_normalization(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    tensor, size = to.floats(data), op.attributes["size"]
    alpha, beta, bias = (np.asarray(op.attributes[name], tensor.dtype) for name in ("alpha", "beta", "bias"))
    place, (channels,) = tensor.position(1), static(tensor.sizes[1:2])
    around = [(0, 0)] * tensor.rank
    around[place] = ((size - 1) // 2, size - 1 - (size - 1) // 2)
    padded = ops.pad(ops.square(tensor.value), around)
    parts = [
        padded[tuple(slice(at, at + channels) if one == place else slice(None) for one in range(tensor.rank))]
        for at in range(size)
    ]
    total = ops.multiply(reduce(ops.add, parts), alpha / np.asarray(size, tensor.dtype))
    return Tensor(ops.divide(tensor.value, ops.power(ops.add(total, bias), beta)), tensor.axes)
