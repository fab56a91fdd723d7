"""Pooling, with the padding and the partial windows that ONNX says."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.operators.convolution import LAST, pad_with_zeros
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import static
from cfi_translate.semantics.windows import Window, pooling_windows, spatial_sizes

_AVERAGES = (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
_MAXIMA = (layers.MaxPooling1D, layers.MaxPooling2D)
_GLOBAL = {
    "GlobalAveragePool": (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    "GlobalMaxPool": (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
}


def _windows(op: Operation, to: KerasBuilder, data: Value) -> tuple[Any, Window, Window, bool]:
    """The channels-last tensor, the windows, and whether Keras's "same" pads as the second (and leaves padding out)."""
    value, (area, whole) = to.image(data), pooling_windows(op, data)
    require(not area.is_dilated, "Keras has no pooling with dilations")
    return value, area, whole, whole.is_padded and whole == whole.pad_alike(static(spatial_sizes(data)))


@operator("MaxPool")
def maximum(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    value, area, whole, is_same = _windows(op, to, data)
    if whole.is_padded and not is_same:
        lowest = float("-inf")
        value = ops.pad(value, ((0, 0), *whole.pairs, (0, 0)), mode="constant", constant_values=lowest)
        to.give_name(value, ".pad")
    mode = "same" if is_same else "valid"
    if area.rank == 3:
        return Tensor(_maximum_of_volumes(to, value, area, mode), channels_last(5))
    pool = to.layer(_MAXIMA[area.rank - 1], value, area.kernel, area.strides, padding=mode, data_format=LAST)
    return Tensor(pool, channels_last(area.rank + 2))


def _maximum_of_volumes(to: KerasBuilder, volumes: Any, area: Window, mode: str) -> Any:
    """Pools each plane, and then over the planes.

    TensorFlow's gradient of pooling over three axes goes to every one of equal values. That over two goes to the first,
    as in torch, and the first row of the first plane is the first of all.
    """
    pool = partial(to.layer, layers.MaxPooling2D, padding=mode, data_format=LAST)
    _, depth, height, width, channels = volumes.shape
    planes = to.give_name(ops.reshape(volumes, (-1, height, width, channels)), ".planes")
    planes = pool(planes, area.kernel[1:], area.strides[1:], suffix=".plane")
    _, rows, columns, _ = planes.shape
    lines = to.give_name(ops.reshape(planes, (-1, depth, rows * columns, channels)), ".lines")
    lines = pool(lines, (area.kernel[0], 1), (area.strides[0], 1), suffix=".depth")
    return to.layer(layers.Reshape, lines, (lines.shape[1], rows, columns, channels))


@operator("AveragePool")
def average(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    value, area, whole, is_same = _windows(op, to, data)
    counted = bool(op.attributes.get("count_include_pad"))
    mode, share = "same", np.ones(())
    if not is_same or counted:
        value, mode = pad_with_zeros(to, value, whole.pairs), "valid"
        counts = whole.counts(static(spatial_sizes(data)), area.end if counted else None)
        share = (np.prod(area.kernel) / counts)[None, ..., None]
    is_partial = bool(np.any(share != 1))
    suffix = ".padded" if is_partial else ""
    make = _AVERAGES[area.rank - 1]
    made = to.layer(make, value, area.kernel, area.strides, padding=mode, data_format=LAST, suffix=suffix)
    made = ops.multiply(made, share.astype(str(value.dtype))) if is_partial else made
    return Tensor(made, channels_last(area.rank + 2))


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pooling(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    value, keepdims = to.image(data), bool(op.attributes.get("keepdims", 1))
    rank = len(value.shape)
    made = to.layer(_GLOBAL[op.kind][rank - 3], value, data_format=LAST, keepdims=keepdims)
    return Tensor(made, channels_last(rank) if keepdims else (0, 1))
