"""Convolutions and transposed convolutions, in one to three dimensions, grouped or not; and the padding of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last, identity
from cfi_translate.onnx_keras.weights import call_with
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, shape_of, static
from cfi_translate.semantics.windows import spatial_sizes, transposed_window, window_of

LAST = "channels_last"
_MOST_GROUPS = 64

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)


def pad_with_zeros(to: KerasBuilder, value: Any, padding: Sequence[tuple[int, int]], suffix: str = ".pad") -> Any:
    """Pads the spatial axes of a channels-last tensor with zeros; negative padding cuts off."""
    if any(number < 0 for pair in padding for number in pair):
        parts = [slice(max(-begin, 0), end if end < 0 else None) for begin, end in padding]
        value = value[(slice(None), *parts, slice(None))]
        padding = tuple((max(begin, 0), max(end, 0)) for begin, end in padding)
    if not any(map(any, padding)):
        return value
    options = {} if len(padding) == 1 else {"data_format": LAST}
    given = tuple(padding) if len(padding) > 1 else padding[0]
    return to.layer(_PADDINGS[len(padding) - 1], value, given, suffix=suffix, **options)


@operator("Conv")
def convolution(op: Operation, to: KerasBuilder, data: Value, weight: Value, bias: Value | None = None) -> Tensor:
    value, kernel = to.image(data), constant_of(weight, "kernel")
    offset = None if bias is None else constant_of(bias, "bias")
    sizes, groups = static(spatial_sizes(data)), op.attributes["group"]
    area = window_of(op, kernel.shape[2:], sizes)
    filters, per_group = kernel.shape[:2]
    fits = value.shape[-1] == per_group * groups and filters % groups == 0
    require(fits, "the weights do not fit the channels")
    is_depthwise = per_group == 1 and groups > 1 and area.rank < 3
    mode = "same" if area.is_padded and area == area.pad_alike(sizes) else "valid"
    # TensorFlow has no convolution with both strides and dilations, and no depthwise one with unequal strides.
    thinned = max(area.strides) > 1 and (max(area.dilations) > 1 or (is_depthwise and len(set(area.strides)) > 1))
    strides = (1,) * area.rank if thinned else area.strides
    mode = "valid" if thinned else mode
    if mode == "valid":
        value = pad_with_zeros(to, value, area.pairs)
    settings: dict[str, Any] = {
        "kernel_size": area.kernel,
        "strides": strides,
        "padding": mode,
        "dilation_rate": area.dilations,
        "use_bias": offset is not None,
        "data_format": LAST,
        "dtype": str(value.dtype),
        "name": to.name(".all" if thinned else ""),
    }
    spatially = tuple(range(2, 2 + area.rank))
    if is_depthwise:
        layer = _DEPTHWISE[area.rank - 1](depth_multiplier=filters // groups, **settings)
        turned = kernel.transpose(*spatially, 0, 1).reshape(*area.kernel, groups, filters // groups)
        made = call_with(layer, value, lambda: turned, offset, what="depthwise")
    else:
        layer = _CONVOLUTIONS[area.rank - 1](filters, groups=groups, **settings)
        made = call_with(layer, value, lambda: kernel.transpose(*spatially, 1, 0), offset)
    if thinned:
        made = made[(slice(None), *(slice(None, None, step) for step in area.strides), slice(None))]
    return Tensor(made, channels_last(area.rank + 2))


@operator("ConvTranspose")
def transposed_convolution(
    op: Operation, to: KerasBuilder, data: Value, weight: Value, bias: Value | None = None
) -> Tensor:
    value, kernel = to.image(data), constant_of(weight, "kernel")
    offset = None if bias is None else constant_of(bias, "bias")
    sizes, groups = static(spatial_sizes(data)), op.attributes["group"]
    area, _ = transposed_window(op, kernel.shape[2:], sizes)
    if area.is_dilated:  # TensorFlow has none on a CPU
        kernel = _dilate(kernel, area.dilations)
        area = replace(area, kernel=kernel.shape[2:], dilations=(1,) * area.rank)
    require(groups <= _MOST_GROUPS, f"more than {_MOST_GROUPS} groups are not supported")
    target = static(shape_of(op.output)[2:])
    whole = [(size - 1) * s + k for size, s, k in zip(sizes, area.strides, area.kernel, strict=True)]
    ends = [wanted + begin - w for wanted, begin, w in zip(target, area.begin, whole, strict=True)]
    # Behind the last full window, a result has the bias alone, so the bias must come after the padding.
    late = offset is not None and any(number > 0 for number in (*ends, *(-b for b in area.begin)))
    is_whole = not any(area.begin) and not any(ends) and groups == 1 and not late
    settings: dict[str, Any] = {
        "kernel_size": area.kernel,
        "strides": area.strides,
        "padding": "valid",
        "use_bias": offset is not None and not late,
        "data_format": LAST,
        "dtype": str(value.dtype),
    }
    channels, per_group = kernel.shape[0] // groups, kernel.shape[1]
    parts = []
    for group in range(groups):
        span = slice(group * channels, (group + 1) * channels)
        name = to.name("" if is_whole else ".whole" if groups == 1 else f".whole.{group}")
        layer = _TRANSPOSED[area.rank - 1](per_group, name=name, **settings)
        weights = partial(kernel[span].transpose, *range(2, 2 + area.rank), 1, 0)
        own_bias = None if offset is None or late else offset[group * per_group : (group + 1) * per_group]
        parts.append(call_with(layer, value[..., span] if groups > 1 else value, weights, own_bias))
    made = parts[0] if groups == 1 else to.layer(layers.Concatenate, parts, axis=-1, suffix=".joined")
    # Keras makes more than the full windows where the stride exceeds the kernel.
    extra = [w - (found or 0) for w, found in zip(whole, made.shape[1:-1], strict=True)]
    padding = tuple((-b, e + x) for b, e, x in zip(area.begin, ends, extra, strict=True))
    made = pad_with_zeros(to, made, padding)
    return Tensor(ops.add(made, offset) if late else made, channels_last(area.rank + 2))


def _dilate(kernel: np.ndarray, dilations: Sequence[int]) -> np.ndarray:
    shape = [(size - 1) * d + 1 for size, d in zip(kernel.shape[2:], dilations, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *shape), kernel.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = kernel
    return wide


@operator("Col2Im")
def columns_to_image(op: Operation, to: KerasBuilder, data: Value, image: Value, block: Value) -> Tensor:
    require(hasattr(ops, "fold"), "this version of Keras has no fold")
    sizes, kernel = (tuple(constant_of(one, "list of sizes").tolist()) for one in (image, block))
    require(len(sizes) == 2, "Keras folds two axes")
    area = window_of(op, kernel, sizes)
    require(area.is_symmetric, "Keras folds with the same padding on both sides")
    made = ops.fold(to.plain(data), sizes, kernel, area.dilations, area.begin, area.strides)
    return Tensor(made, identity(4))
