"""Resizing: Keras's layer where it computes the same, else products with the constant matrix of each axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.resizing import ResizedAxis, is_plain, outside, resized_axes, resizing_matrix
from cfi_translate.semantics.values import rank_of

_LETTERS = "abcdefgh"
_LAYER_MODES = {"nearest": ("nearest", "asymmetric"), "linear": ("bilinear", "half_pixel")}


@operator("Resize", "Upsample")
def resizing(op: Operation, to: KerasBuilder, data: Value, *given: Value | None) -> Tensor:
    tensor, resized, rank = to.tensor(data), resized_axes(op, data, *given), rank_of(data)
    native = _layer(to, tensor, resized)
    if native is not None:
        return Tensor(native, tensor.axes)
    value, term = tensor.value, _LETTERS[:rank]
    for axis, one in resized.items():
        place, matrix = tensor.position(axis), resizing_matrix(one)
        if one.how.picks:
            value = ops.take(value, matrix.argmax(axis=1).astype(np.int32), axis=place)
            continue
        require(tensor.is_float, f"interpolating {tensor.dtype} is not supported")
        equation = f"{term},z{term[place]}->{term.replace(term[place], 'z')}"
        value = ops.einsum(equation, value, matrix.astype(tensor.dtype))
    for axis, one in resized.items():
        if (beyond := outside(one)).any():
            where = beyond.reshape([-1 if place == tensor.position(axis) else 1 for place in range(rank)])
            value = ops.where(where, np.asarray(one.how.outside, tensor.dtype), value)
    return Tensor(value, tensor.axes)


def _layer(to: KerasBuilder, tensor: Tensor, resized: Mapping[int, ResizedAxis]) -> Any:
    """The result of the native layer, if it computes the same."""
    if not resized or tensor.axes != channels_last(4) or not tensor.is_float or not set(resized) <= {2, 3}:
        return None
    mode, coordinates = _LAYER_MODES.get(next(iter(resized.values())).how.mode, ("", ""))
    factors = [resized[axis].new / resized[axis].old if axis in resized else 1 for axis in (2, 3)]
    if not mode or any(factor % 1 for factor in factors):
        return None
    if mode == "bilinear" and tensor.dtype == "float64":
        return None  # TensorFlow interpolates in single precision
    if not all(is_plain(one, one.how.mode, coordinates) for one in resized.values()):
        return None
    size = tuple(int(factor) for factor in factors)
    return to.layer(layers.UpSampling2D, tensor.value, size, data_format="channels_last", interpolation=mode)
