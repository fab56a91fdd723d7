"""Pooling, fixed and adaptive."""

# What a function writes is said by its decorator.

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import UNREAD, Emitter, Value
from cfi_translate.torch_export.operators.registry import writes


@writes("max_pool1d", "max_pool2d", "max_pool3d")
def max_pooling(
    emit: Emitter, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, _ceil_mode: bool
) -> Value:
    kernel, stride, padding, dilation = _settings(emit, x, kernel, stride, padding, dilation)
    extra = _extra(emit, x, kernel, stride, padding, dilation)
    pads = [*padding, *(one + more for one, more in zip(padding, extra, strict=True))]
    if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
        # Only a dilated window reaches so far, and ONNX Runtime does not let it.
        axes = len(kernel)
        lowest = emit.scalar(float("-inf"), x.dtype)
        x = Value(emit.op("Pad", x, np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]]), lowest).name, x.like)
        pads = [0] * 2 * axes
    return emit.op("MaxPool", x, kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation)


@writes("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d_with_indices")
def max_pooling_with_indices(emit: Emitter, x: Value, *settings: Any) -> list[Any]:
    return [max_pooling(emit, x, *settings), UNREAD]


@writes("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pooling(
    emit: Emitter,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    _ceil_mode: bool,
    include_padding: bool,
    divisor: int | None = None,
) -> Value:
    kernel, stride, padding, dilation = _settings(emit, x, kernel, stride, padding, (1,))
    extra = _extra(emit, x, kernel, stride, padding, dilation)
    if divisor is None and include_padding and any(padding) and any(extra):
        # The padding counts, but what the last window lacks beyond it does not.
        x = Value(emit.op("Pad", x, np.array([0, 0, *padding, 0, 0, *padding])).name, x.like)
        padding = [0] * len(padding)
    pooled = emit.op(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=stride,
        pads=[*padding, *(one + more for one, more in zip(padding, extra, strict=True))],
        count_include_pad=int(divisor is not None or (include_padding and any(padding))),
    )
    if divisor is None:
        return pooled
    return emit.op("Mul", pooled, emit.scalar(prod(kernel) / divisor, x.dtype))


@writes(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"
)
def adaptive_average_pooling(emit: Emitter, x: Value, size: Sequence[int]) -> Value:
    sizes = _static(emit, x, len(size))
    if all(one == 1 for one in size):
        return emit.op("GlobalAveragePool", x)
    windows = [_windows(*both) for both in zip(sizes, size, strict=True)]
    even = [_even(one) for one in windows]
    if all(even):
        kernel, stride = zip(*even, strict=True)
        return emit.op("AveragePool", x, kernel_shape=list(kernel), strides=list(stride))
    # Windows of different sizes: each result is a weighted sum of all pixels.
    matrix = np.ones((1, 1))
    for length, axis in zip(sizes, windows, strict=True):
        matrix = np.kron(matrix, _averaging(length, axis))
    flat = emit.op("Reshape", x, np.array([0, 0, -1]))
    mixed = emit.op("MatMul", flat, torch.from_numpy(matrix).to(x.dtype))
    return emit.op("Reshape", mixed, np.array([0, 0, *size]))


@writes("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pooling(emit: Emitter, x: Value, size: Sequence[int]) -> list[Any]:
    sizes = _static(emit, x, len(size))
    if all(one == 1 for one in size):
        return [emit.op("GlobalMaxPool", x), UNREAD]
    windows = [_windows(*both) for both in zip(sizes, size, strict=True)]
    even = [_even(one) for one in windows]
    if all(even):
        kernel, stride = zip(*even, strict=True)
        return [emit.op("MaxPool", x, kernel_shape=list(kernel), strides=list(stride)), UNREAD]
    for axis, spans in enumerate(windows, 2):
        parts = []
        for start, end in spans:
            part = emit.op("Slice", x, np.array([start]), np.array([end]), np.array([axis]))
            parts.append(emit.op("ReduceMax", part, np.array([axis]), keepdims=1))
        x = emit.op("Concat", *parts, axis=axis)
    return [x, UNREAD]


def _settings(emit: Emitter, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[list[int], ...]:
    axes = len(x.shape) - 2
    kernel = _each(kernel, axes)
    if axes < 1 or len(kernel) != axes:
        raise emit.refuse("its input has no sample axis")
    return kernel, _each(stride, axes) or kernel, _each(padding, axes), _each(dilation, axes)


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple | list) else result


def _each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _extra(emit: Emitter, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """How far the last windows reach beyond the padding, where sizes are rounded up."""
    lengths, results = _static(emit, x, len(kernel)), _first(emit.result).shape[2:]
    return [
        max(0, (int(result) - 1) * s + d * (k - 1) + 1 - length - 2 * p)
        for length, result, k, s, p, d in zip(lengths, results, kernel, stride, padding, dilation, strict=True)
    ]


def _static(emit: Emitter, x: Value, axes: int) -> list[int]:
    sizes = x.shape[2:]
    if len(sizes) != axes:
        raise emit.refuse("its input has no sample axis")
    if any(isinstance(one, torch.SymInt) for one in sizes):
        raise emit.refuse("the size of its input follows the number of samples")
    return [int(one) for one in sizes]


def _windows(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of each window of adaptive pooling."""
    return [(i * length // count, ceil((i + 1) * length / count)) for i in range(count)]


def _even(windows: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Length and stride, if all windows have the same."""
    lengths = {end - start for start, end in windows}
    strides = {after[0] - before[0] for before, after in pairwise(windows)} or {1}
    return (lengths.pop(), strides.pop()) if len(lengths) == len(strides) == 1 and 0 not in strides else None


def _averaging(length: int, windows: Sequence[tuple[int, int]]) -> np.ndarray:
    matrix = np.zeros((length, len(windows)))
    for column, (start, end) in enumerate(windows):
        matrix[start:end, column] = 1 / (end - start)
    return matrix
