"""Convolutions and transposed convolutions, in one to three dimensions, grouped or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last, identity
from cfi_translate.onnx_keras.weights import made_with
from cfi_translate.program import Operation

LAST = "channels_last"
_MOST_GROUPS = 64

Pads = tuple[tuple[int, int], ...]

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)


def spatial(operation: Operation, name: str, count: int) -> tuple[int, ...]:
    """An attribute with one number for each spatial axis, 1 where it is left out."""
    given = operation.attributes.get(name)
    return tuple(given) if given else (1,) * count


def pads(
    operation: Operation, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads:
    """Padding before and behind each spatial axis."""
    automatic = operation.attributes.get("auto_pad", "NOTSET")
    count = len(kernel)
    if automatic == "NOTSET":
        given = operation.attributes.get("pads") or (0,) * 2 * count
        return tuple(zip(given[:count], given[count:], strict=True))
    if automatic == "VALID":
        return ((0, 0),) * count
    totals = [same_total(*one) for one in zip(sizes, kernel, strides, dilations, strict=True)]
    if automatic == "SAME_LOWER":
        return tuple((total - total // 2, total // 2) for total in totals)
    return tuple((total // 2, total - total // 2) for total in totals)


def same_total(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How much TensorFlow's "same" pads an axis."""
    return max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def is_same(
    padding: Pads, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> bool:
    """Whether TensorFlow's "same" pads exactly so."""
    totals = [same_total(*one) for one in zip(sizes, kernel, strides, dilations, strict=True)]
    return padding == tuple((total // 2, total - total // 2) for total in totals)


def zero_padded(builder: Builder, value: Any, padding: Pads, name: str) -> Any:
    """Pads the spatial axes of a channels-last tensor with zeros; negative padding cuts off."""
    if any(number < 0 for pair in padding for number in pair):
        parts = [slice(max(-begin, 0), (max(-end, 0) and -max(-end, 0)) or None) for begin, end in padding]
        value = value[(slice(None), *parts, slice(None))]
        padding = tuple((max(begin, 0), max(end, 0)) for begin, end in padding)
    if not any(map(any, padding)):
        return value
    layer = _PADDINGS[len(padding) - 1]
    options = {} if len(padding) == 1 else {"data_format": LAST}
    given = padding if len(padding) > 1 else padding[0]
    return layer(given, dtype=str(value.dtype), name=builder.name(f"{name}.pad"), **options)(value)


def _conv(builder: Builder, operation: Operation) -> Tensor:
    name, value, kernel, bias, sizes = _given(builder, operation)
    count = kernel.ndim - 2
    groups = operation.attributes.get("group", 1)
    filters, per_group = kernel.shape[:2]
    shape = kernel.shape[2:]
    strides, dilations = spatial(operation, "strides", count), spatial(operation, "dilations", count)
    if value.shape[-1] != per_group * groups or filters % groups:
        raise Unsupported("the weights do not fit the channels")
    padding = pads(operation, sizes, shape, strides, dilations)
    mode = "valid"
    if any(map(any, padding)) and is_same(padding, sizes, shape, strides, dilations):
        mode = "same"
    depthwise = per_group == 1 and groups > 1 and count < 3
    # TensorFlow has no convolution with both strides and dilations, and no depthwise one with unequal strides.
    thinned = strides
    unequal = depthwise and len(set(strides)) > 1
    if max(strides) > 1 and (max(dilations) > 1 or unequal):
        strides, mode = (1,) * count, "valid"
    else:
        thinned = (1,) * count
    if mode == "valid":
        value = zero_padded(builder, value, padding, name)
    settings: dict[str, Any] = {
        "kernel_size": shape,
        "strides": strides,
        "padding": mode,
        "dilation_rate": dilations,
        "use_bias": bias is not None,
        "data_format": LAST,
        "dtype": str(value.dtype),
    }
    spatially = tuple(range(2, 2 + count))
    later = max(thinned) > 1
    own_name = f"{name}.all" if later else name
    if depthwise:
        layer = _DEPTHWISE[count - 1](
            depth_multiplier=filters // groups,
            name=builder.name(own_name),
            **settings,
        )
        weight = kernel.transpose(*spatially, 0, 1).reshape(*shape, groups, filters // groups)
        made = made_with(layer, value, lambda: weight, bias, what="depthwise")
    else:
        layer = _CONVOLUTIONS[count - 1](filters, groups=groups, name=builder.name(own_name), **settings)
        made = made_with(layer, value, lambda: kernel.transpose(*spatially, 1, 0), bias)
    if later:
        parts = (slice(None), *(slice(None, None, step) for step in thinned), slice(None))
        made = builder.named(made[parts], name)
    return Tensor(made, channels_last(count + 2))


def _given(builder: Builder, operation: Operation) -> tuple[str, Any, np.ndarray, np.ndarray | None, list[int]]:
    """Name, channels-last tensor, kernel, bias and the tensor's spatial sizes."""
    name = operation.name
    tensor = builder.tensor(operation.input(0))
    if not tensor.is_float:
        raise Unsupported(f"only floating-point tensors are supported, and this one is {tensor.dtype}")
    kernel = builder.array(operation.input(1), "kernel")
    bias = None if operation.input(2) is None else builder.array(operation.input(2), "bias")
    value = builder.image(operation.input(0), name)
    sizes = [size for size in value.shape[1:-1] if size is not None]
    if len(sizes) != kernel.ndim - 2 or value.shape[-1] is None:
        raise Unsupported("its sizes are not known")
    return name, value, kernel, bias, sizes


def _conv_transpose(builder: Builder, operation: Operation) -> Tensor:
    name, value, kernel, bias, sizes = _given(builder, operation)
    count = kernel.ndim - 2
    groups = operation.attributes.get("group", 1)
    channels, per_group = kernel.shape[:2]
    strides, dilations = spatial(operation, "strides", count), spatial(operation, "dilations", count)
    if max(dilations) > 1:  # TensorFlow has none on a CPU
        kernel, dilations = _dilated(kernel, dilations), (1,) * count
    if groups > _MOST_GROUPS:
        raise Unsupported(f"more than {_MOST_GROUPS} groups are not supported")
    target = operation.output.shape
    if target is None or None in target[2:]:
        raise Unsupported("the size of its result is not known")
    shape = kernel.shape[2:]
    whole = [(size - 1) * s + (k - 1) * d + 1 for size, s, k, d in zip(sizes, strides, shape, dilations, strict=True)]
    begins = _begins(operation, whole, [int(one or 0) for one in target[2:]])
    ends = [int(wanted or 0) + b - w for wanted, b, w in zip(target[2:], begins, whole, strict=True)]
    # Behind the last full window, a result has the bias alone, so the bias must come after the padding.
    late = bias is not None and any(number > 0 for number in (*ends, *(-b for b in begins)))
    settings: dict[str, Any] = {
        "kernel_size": shape,
        "strides": strides,
        "padding": "valid",
        "dilation_rate": dilations,
        "use_bias": bias is not None and not late,
        "data_format": LAST,
        "dtype": str(value.dtype),
    }
    is_whole = not any(begins) and not any(ends) and groups == 1 and not late
    own = name if is_whole else f"{name}.whole"
    parts = []
    for group in range(groups):
        span = slice(group * channels // groups, (group + 1) * channels // groups)
        layer = _TRANSPOSED[count - 1](
            per_group, name=builder.name(own if groups == 1 else f"{own}.{group}"), **settings
        )
        weights = partial(kernel[span].transpose, *range(2, 2 + count), 1, 0)
        own_bias = None if bias is None or late else bias[group * per_group : (group + 1) * per_group]
        parts.append(made_with(layer, value[..., span] if groups > 1 else value, weights, own_bias))
    made = parts[0] if groups == 1 else layers.Concatenate(axis=-1, dtype=str(value.dtype))(parts)
    # Keras makes more than the full windows where the stride exceeds the kernel.
    extra = [w - (found or 0) for w, found in zip(whole, made.shape[1:-1], strict=True)]
    padding = tuple((-b, e + x) for b, e, x in zip(begins, ends, extra, strict=True))
    made = zero_padded(builder, made, padding, name)
    if late:
        made = ops.add(made, bias)
    if not is_whole:
        builder.named(made, name)
    return Tensor(made, channels_last(count + 2))


def _dilated(kernel: np.ndarray, dilations: Sequence[int]) -> np.ndarray:
    shape = [(size - 1) * d + 1 for size, d in zip(kernel.shape[2:], dilations, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *shape), kernel.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = kernel
    return wide


def _begins(operation: Operation, whole: Sequence[int], target: Sequence[int]) -> list[int]:
    """How much is cut off at the beginning of each spatial axis."""
    automatic = operation.attributes.get("auto_pad", "NOTSET")
    count = len(whole)
    if automatic == "VALID":
        return [0] * count
    given = operation.attributes.get("pads")
    extra = operation.attributes.get("output_padding") or (0,) * count
    if automatic == "NOTSET" and operation.attributes.get("output_shape") is None:
        return list(given[:count]) if given else [0] * count
    totals = [w + x - t for w, x, t in zip(whole, extra, target, strict=True)]
    if any(total < 0 for total in totals):
        raise Unsupported("an output_shape beyond the full windows is not supported")
    return [total // 2 if automatic == "SAME_UPPER" else total - total // 2 for total in totals]


def _fold(builder: Builder, operation: Operation) -> Tensor:
    if not hasattr(ops, "fold"):
        raise Unsupported("this version of Keras has no fold")
    sizes, kernel = (tuple(builder.array(operation.input(at), "list of sizes").tolist()) for at in (1, 2))
    if len(sizes) != 2:
        raise Unsupported("Keras folds two axes")
    strides, dilations = spatial(operation, "strides", 2), spatial(operation, "dilations", 2)
    (top, bottom), (left, right) = pads(operation, sizes, kernel, strides, dilations)
    if (top, left) != (bottom, right):
        raise Unsupported("Keras folds with the same padding on both sides")
    columns = builder.plain(operation.input(0), operation.name)
    made = ops.fold(columns, sizes, kernel, dilations, (top, left), strides)
    return Tensor(builder.named(made, operation.name), identity(4))


OPERATORS: dict[str, Handler] = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Col2Im": _fold}
