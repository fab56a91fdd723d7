"""Pooling, fixed and adaptive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np
import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.onnx_graph import UNREAD, OnnxGraph, OnnxValue
from cfi_translate.torch_export.operators.convolution import each
from cfi_translate.torch_export.table import TorchOp, operator


@operator("max_pool1d", "max_pool2d", "max_pool3d")
def max_pooling(
    op: TorchOp, to: OnnxGraph, x: OnnxValue, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> OnnxValue:
    kernel, stride, padding, dilation = _settings(x, kernel, stride, padding, dilation)
    extra = _extra(op, x, kernel, stride, padding, dilation)
    pads = [*padding, *(one + more for one, more in zip(padding, extra, strict=True))]
    if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
        # Only a dilated window reaches so far, and ONNX Runtime does not let it.
        axes = len(kernel)
        x = to.node("Pad", x, [0, 0, *pads[:axes], 0, 0, *pads[axes:]], to.scalar(float("-inf"), x.dtype))
        pads = [0] * 2 * axes
    return to.node("MaxPool", x, kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation)


@operator("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d_with_indices")
def max_pooling_with_indices(op: TorchOp, to: OnnxGraph, x: OnnxValue, *settings: Any) -> list[Any]:
    return [max_pooling(op, to, x, *settings), UNREAD]


@operator("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pooling(
    op: TorchOp,
    to: OnnxGraph,
    x: OnnxValue,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    include_padding: bool,
    divisor: int | None = None,
) -> OnnxValue:
    kernel, stride, padding, dilation = _settings(x, kernel, stride, padding, 1)
    extra = _extra(op, x, kernel, stride, padding, dilation)
    if divisor is None and include_padding and any(padding) and any(extra):
        # The padding counts, but what the last window lacks beyond it does not.
        x = to.node("Pad", x, [0, 0, *padding, 0, 0, *padding])
        padding = [0] * len(padding)
    pooled = to.node(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=stride,
        pads=[*padding, *(one + more for one, more in zip(padding, extra, strict=True))],
        count_include_pad=int(divisor is not None or (include_padding and any(padding))),
    )
    return pooled if divisor is None else to.scale(pooled, prod(kernel) / divisor, op.dtype)


_ADAPTIVE_AVERAGE = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")


@operator(*_ADAPTIVE_AVERAGE, "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def adaptive_average_pooling(op: TorchOp, to: OnnxGraph, x: OnnxValue, size: Sequence[int]) -> OnnxValue:
    sizes = _fixed_sizes(x, len(size))
    if all(one == 1 for one in size):
        return to.node("GlobalAveragePool", x)
    windows, even = _adaptive(sizes, size)
    if even:
        return to.node("AveragePool", x, **even)
    # Windows of different sizes: each result is a weighted sum of all pixels.
    matrix = np.ones((1, 1))
    for length, axis in zip(sizes, windows, strict=True):
        matrix = np.kron(matrix, _mean_matrix(length, axis))
    mixed = to.node("MatMul", to.node("Reshape", x, [0, 0, -1]), torch.from_numpy(matrix).to(x.dtype))
    return to.node("Reshape", mixed, [0, 0, *size])


@operator("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pooling(op: TorchOp, to: OnnxGraph, x: OnnxValue, size: Sequence[int]) -> list[Any]:
    """Of equal values the first counts, as in `MaxPool`; `GlobalMaxPool` and `ReduceMax` share the gradient."""
    sizes = _fixed_sizes(x, len(size))
    windows, even = _adaptive(sizes, size)
    if even:
        return [to.node("MaxPool", x, **even), UNREAD]
    # From the last axis on, so that the first of equal values is that of the first row.
    for axis, spans in reversed(list(enumerate(windows))):
        places = [axis + 2]
        parts = [(to.node("Slice", x, [start], [end], places), end - start) for start, end in spans]
        pooled = [to.node("MaxPool", part, kernel_shape=_along(axis, length, size)) for part, length in parts]
        x = to.node("Concat", *pooled, axis=axis + 2)
    return [x, UNREAD]


def _along(axis: int, length: int, size: Sequence[int]) -> list[int]:
    """A window over one of the axes."""
    return [length if one == axis else 1 for one in range(len(size))]


def _settings(x: OnnxValue, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[list[int], ...]:
    axes = len(x.shape) - 2
    kernel = each(kernel, axes)
    require(axes >= 1 and len(kernel) == axes, "its input has no sample axis")
    return kernel, each(stride, axes) or kernel, each(padding, axes), each(dilation, axes)


def _extra(op: TorchOp, x: OnnxValue, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """How far the last windows reach beyond the padding, where sizes are rounded up."""
    result = op.result[0] if isinstance(op.result, tuple | list) else op.result
    sizes = _fixed_sizes(x, len(kernel)), result.shape[2:]
    return [
        max(0, (int(result) - 1) * s + d * (k - 1) + 1 - length - 2 * p)
        for length, result, k, s, p, d in zip(*sizes, kernel, stride, padding, dilation, strict=True)
    ]


def _fixed_sizes(x: OnnxValue, axes: int) -> list[int]:
    sizes = x.shape[2:]
    require(len(sizes) == axes, "its input has no sample axis")
    fixed = not any(isinstance(one, torch.SymInt) for one in sizes)
    require(fixed, "the size of its input follows the number of samples")
    return [int(one) for one in sizes]


def _adaptive(
    sizes: Sequence[int], counts: Sequence[int]
) -> tuple[list[list[tuple[int, int]]], dict[str, list[int]] | None]:
    """Start and end of each window of adaptive pooling, axis by axis, and the settings of an equal fixed pooling."""
    windows = [
        [(i * length // count, ceil((i + 1) * length / count)) for i in range(count)]
        for length, count in zip(sizes, counts, strict=True)
    ]
    even = [one for one in map(_even, windows) if one is not None]
    if len(even) < len(windows):
        return windows, None
    return windows, {"kernel_shape": [one for one, _ in even], "strides": [one for _, one in even]}


def _even(windows: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Length and stride, if all windows have the same."""
    lengths = {end - start for start, end in windows}
    strides = {after[0] - before[0] for before, after in pairwise(windows)} or {1}
    return (lengths.pop(), strides.pop()) if len(lengths) == len(strides) == 1 and 0 not in strides else None


def _mean_matrix(length: int, windows: Sequence[tuple[int, int]]) -> np.ndarray:
    matrix = np.zeros((length, len(windows)))
    for column, (start, end) in enumerate(windows):
        matrix[start:end, column] = 1 / (end - start)
    return matrix
