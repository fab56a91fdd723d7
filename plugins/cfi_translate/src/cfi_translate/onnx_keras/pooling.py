"""Pooling, with the padding and the partial windows that ONNX says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.convolutions import LAST, Pads, is_same, pads, spatial, zero_padded
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last
from cfi_translate.program import Operation

_AVERAGES = (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
_MAXIMA = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
_GLOBAL_AVERAGES = (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
_GLOBAL_MAXIMA = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)


def _image(builder: Builder, operation: Operation) -> tuple[Any, list[int]]:
    """The channels-last tensor and its spatial sizes."""
    tensor = builder.tensor(operation.input(0))
    if not tensor.is_float:
        raise Unsupported(f"only floating-point tensors are supported, and this one is {tensor.dtype}")
    value = builder.image(operation.input(0), operation.name)
    if None in value.shape[1:]:
        raise Unsupported("its sizes are not known")
    return value, list(value.shape[1:-1])


def _windows(
    operation: Operation, sizes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], Pads, tuple[int, ...]]:
    """Kernel, strides, padding, and by how much the last windows reach beyond the padding."""
    kernel = tuple(operation.attributes["kernel_shape"])
    if len(kernel) != len(sizes):
        raise Unsupported("the kernel does not fit the axes")
    strides = spatial(operation, "strides", len(kernel))
    if max(spatial(operation, "dilations", len(kernel))) > 1:
        raise Unsupported("Keras has no pooling with dilations")
    padding = pads(operation, sizes, kernel, strides, (1,) * len(kernel))
    target = operation.output.shape
    if target is None:
        raise Unsupported("the size of its result is not known")
    beyond = []
    for size, k, s, (begin, end), count in zip(sizes, kernel, strides, padding, target[2:], strict=True):
        reach = ((count or 0) - 1) * s + k - (size + begin + end)
        if count is None or reach >= s:
            raise Unsupported("its windows are not known")
        if reach > 0 and (count - 1) * s >= begin + size:
            # ONNX infers so before version 22 of the operators, and its runtime leaves that window out.
            raise Unsupported("its last window begins in the padding behind")
        beyond.append(max(reach, 0))
    return kernel, strides, padding, tuple(beyond)


def _max_pool(builder: Builder, operation: Operation) -> Tensor:
    name = operation.name
    value, sizes = _image(builder, operation)
    kernel, strides, padding, beyond = _windows(operation, sizes)
    whole = tuple((begin, end + more) for (begin, end), more in zip(padding, beyond, strict=True))
    mode = "valid"
    if any(map(any, whole)):
        if is_same(whole, sizes, kernel, strides, (1,) * len(kernel)):
            mode = "same"  # which leaves the padding out
        else:
            lowest = float("-inf")
            value = ops.pad(value, ((0, 0), *whole, (0, 0)), mode="constant", constant_values=lowest)
            builder.named(value, f"{name}.pad")
    layer = _MAXIMA[len(kernel) - 1](
        kernel, strides, padding=mode, data_format=LAST, dtype=str(value.dtype), name=builder.name(name)
    )
    return Tensor(layer(value), channels_last(len(kernel) + 2))


def _average_pool(builder: Builder, operation: Operation) -> Tensor:
    name = operation.name
    value, sizes = _image(builder, operation)
    kernel, strides, padding, beyond = _windows(operation, sizes)
    whole = tuple((begin, end + more) for (begin, end), more in zip(padding, beyond, strict=True))
    counted = bool(operation.attributes.get("count_include_pad", 0))
    ones = (1,) * len(kernel)
    mode, factor = "valid", None
    if any(map(any, whole)):
        if not counted and is_same(whole, sizes, kernel, strides, ones):
            mode = "same"  # which leaves the padding out
        else:
            value = zero_padded(builder, value, whole, name)
            factor = _share(sizes, kernel, strides, padding, beyond, counted=counted)
    partial = factor is not None and bool(np.any(factor != 1))
    layer = _AVERAGES[len(kernel) - 1](
        kernel,
        strides,
        padding=mode,
        data_format=LAST,
        dtype=str(value.dtype),
        name=builder.name(f"{name}.padded" if partial else name),
    )
    made = layer(value)
    if partial and factor is not None:
        made = builder.named(ops.multiply(made, factor.astype(str(value.dtype))), name)
    return Tensor(made, channels_last(len(kernel) + 2))


def _share(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Pads,
    beyond: Sequence[int],
    *,
    counted: bool,
) -> np.ndarray:
    """Elements of a whole window over those that count, for each window; channels-last for one sample."""
    share = np.ones(())
    for size, k, s, (begin, end), more in zip(sizes, kernel, strides, padding, beyond, strict=True):
        counts = np.zeros(begin + size + end + more)
        counts[begin : begin + size] = 1
        if counted:
            counts[: begin + size + end] = 1
        starts = range(0, len(counts) - k + 1, s)
        share = np.multiply.outer(share, np.array([k / max(counts[at : at + k].sum(), 1) for at in starts]))
    return share[None, ..., None]


def global_pooled(builder: Builder, tensor: Tensor, name: str, *, average: bool, keepdims: bool) -> Tensor:
    """Pools all spatial axes of a tensor whose channels are last."""
    kinds = _GLOBAL_AVERAGES if average else _GLOBAL_MAXIMA
    layer = kinds[tensor.rank - 3](data_format=LAST, keepdims=keepdims, dtype=tensor.dtype, name=builder.name(name))
    return Tensor(layer(tensor.value), tensor.axes if keepdims else (0, 1))


def _global(average: bool) -> Handler:
    def pooled(builder: Builder, operation: Operation) -> Tensor:
        value, sizes = _image(builder, operation)
        tensor = Tensor(value, channels_last(len(sizes) + 2))
        keepdims = bool(operation.attributes.get("keepdims", 1))
        return global_pooled(builder, tensor, operation.name, average=average, keepdims=keepdims)

    return pooled


OPERATORS: dict[str, Handler] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(average=True),
    "GlobalMaxPool": _global(average=False),
    "MaxPool": _max_pool,
}
