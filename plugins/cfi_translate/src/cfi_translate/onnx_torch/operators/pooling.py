"""Pooling."""

from __future__ import annotations

from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, torch_type
from cfi_translate.onnx_torch.operators.convolution import pad, sum_windows
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import rank_of, shape_of, static
from cfi_translate.semantics.windows import Window, pooling_windows, spatial_sizes
from cfi_translate.torch_modules import (
    ADAPTIVE_AVERAGE_POOLINGS,
    ADAPTIVE_MAXIMUM_POOLINGS,
    AVERAGE_POOLINGS,
    MAXIMUM_POOLINGS,
)

_GLOBAL = {"GlobalAveragePool": ADAPTIVE_AVERAGE_POOLINGS, "GlobalMaxPool": ADAPTIVE_MAXIMUM_POOLINGS}
_WITH_INDICES = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def _fits(area: Window) -> bool:
    """Whether torch's own padding can do it: alike on both sides and at most half the window."""
    return area.is_symmetric and all(2 * pad <= size for pad, size in zip(area.begin, area.kernel, strict=True))


@operator("MaxPool")
def maximum(op: Operation, to: TorchBuilder, data: Value) -> fx.Node | tuple[fx.Node, fx.Node]:
    area, whole = pooling_windows(op, data)
    require(area.rank in MAXIMUM_POOLINGS, f"torch has no pooling over {area.rank} spatial axes")
    source: Any = data if data.is_float else to.cast(data, torch.float32)
    if len(op.results) > 1:
        require(_fits(area), "torch tells no indices with this padding")
        return _maximum_with_indices(op, to, data, source, area, upwards=whole is not area)
    upwards = _fits(area) and whole is not area
    if not _fits(area):
        source, area = pad(op, to, source, whole, -np.inf)
    pool = MAXIMUM_POOLINGS[area.rank](area.kernel, area.strides, area.begin, area.dilations, ceil_mode=upwards)
    pooled = to.module(op, pool, source)
    return pooled if data.is_float else to.cast(pooled, torch_type(op.output))


def _maximum_with_indices(
    op: Operation, to: TorchBuilder, value: Value, data: Any, area: Window, *, upwards: bool
) -> tuple[fx.Node, fx.Node]:
    settings = area.kernel, area.strides, area.begin, area.dilations
    both = to.function(_WITH_INDICES[area.rank], data, *settings, ceil_mode=upwards, return_indices=True)
    pooled, places = to.function(getitem, both, 0), to.function(getitem, both, 1)
    channels, *spatial = static(shape_of(value)[1:])
    if op.attributes["storage_order"]:
        places = _count_columns_first(to, places, spatial)
    planes = to.function(torch.arange, to.function(torch.mul, to.method("size", data, 0), channels))
    offsets = to.reshape(to.function(torch.mul, planes, int(np.prod(spatial))), -1, channels, *(1,) * area.rank)
    pooled = pooled if value.is_float else to.cast(pooled, torch_type(op.output))
    return pooled, to.function(torch.add, places, offsets)


def _count_columns_first(to: TorchBuilder, places: fx.Node, spatial: list[int]) -> fx.Node:
    """Places in data of this size, counted along the first axis first; torch counts along the last."""
    parts = []
    for axis in reversed(range(len(spatial))):
        place = to.function(torch.remainder, places, spatial[axis])
        places = to.function(torch.div, places, spatial[axis], rounding_mode="floor")
        parts.append(to.function(torch.mul, place, int(np.prod(spatial[:axis]))))
    total = parts[0]
    for part in parts[1:]:
        total = to.function(torch.add, total, part)
    return total


@operator("AveragePool")
def average(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    area, whole = pooling_windows(op, data)
    require(area.rank in AVERAGE_POOLINGS, f"torch has no pooling over {area.rank} spatial axes")
    spatial, counted = spatial_sizes(data), bool(op.attributes.get("count_include_pad"))
    # Over three axes torch forgets its own padding when it asks whether the window is larger than the data.
    is_covered = area.rank < 3 or all(s is not None and s >= k for s, k in zip(spatial, area.kernel, strict=True))
    if not area.is_dilated and is_covered and _fits(area):
        pool = AVERAGE_POOLINGS[area.rank](area.kernel, area.strides, area.begin, whole is not area, counted)
        return to.module(op, pool, data)
    shares = 1 / whole.counts(static(spatial), area.end if counted else None)
    source, bare = pad(op, to, data, whole)
    if area.is_dilated:
        total = sum_windows(op, to, source, bare)
    else:
        total = to.module(op, AVERAGE_POOLINGS[area.rank](area.kernel, area.strides), source)
        shares = shares * np.prod(area.kernel)
    if np.all(shares == 1):
        return total
    return to.function(torch.mul, total, to.buffer(f"{op.name}.shares", shares.astype(op.output.dtype)))


@operator("LpPool")
def norm(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    power = op.attributes["p"]
    powers = to.function(torch.pow, to.function(torch.abs, data), power)
    source, area = pad(op, to, powers, pooling_windows(op, data)[1])
    require(area.rank in AVERAGE_POOLINGS, f"torch has no pooling over {area.rank} spatial axes")
    return to.function(torch.pow, sum_windows(op, to, source, area), 1 / power)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pooling(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    rank = rank_of(data) - 2
    require(rank in AVERAGE_POOLINGS, f"torch has no such pooling over {rank} spatial axes")
    pool = _GLOBAL[op.kind][rank](1)
    if op.attributes.get("keepdims", 1):
        return to.module(op, pool, data)
    return to.module(op, nn.Flatten(), to.module(op, pool, data, suffix=".pool"))


@operator("GlobalLpPool")
def global_norm(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    axes = tuple(range(2, rank_of(data)))
    return to.function(torch.linalg.vector_norm, data, ord=op.attributes["p"], dim=axes, keepdim=True)


@operator("MaxUnpool")
def unpooling(op: Operation, to: TorchBuilder, data: Value, places: Value, shape: Value | None = None) -> fx.Node:
    """Indices count through the whole unpadded output; elements of the output are zero where none points."""
    # The indices are those of the smaller output that the window alone would give, ONNX Runtime's reading.
    require(shape is None, "an output of another size than the window's is not supported")
    sizes = to.sizes(op.output)
    total: Any = int(np.prod([size for size in sizes if not isinstance(size, fx.Node)]))
    for size in sizes:
        total = to.function(torch.mul, size, total) if isinstance(size, fx.Node) else total
    empty = to.method("new_zeros", data, (total,))
    flat = to.function(torch.scatter, empty, 0, to.function(torch.flatten, places), to.function(torch.flatten, data))
    return to.reshape(flat, *sizes)
