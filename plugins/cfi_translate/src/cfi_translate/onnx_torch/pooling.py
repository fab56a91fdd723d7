"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.onnx_torch.convolution import CONVOLVE, depthwise_ones
from cfi_translate.onnx_torch.reader import Reader, count, fixed, is_float, operator, rank_of, refuse, torch_type
from cfi_translate.onnx_torch.windows import CONSTANT_PADS, ZERO_PADS, Window, spatial_sizes, window
from cfi_translate.program import Operation

_MAXIMUM: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
_GLOBAL_MAXIMUM: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveMaxPool1d,
    2: nn.AdaptiveMaxPool2d,
    3: nn.AdaptiveMaxPool3d,
}
_WITH_INDICES = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def _fits(area: Window) -> bool:
    """Whether torch's own padding can do it: alike on both sides and at most half the window."""
    return area.is_symmetric and all(2 * pad <= size for pad, size in zip(area.begin, area.kernel, strict=True))


def _rounds_up(op: Operation, area: Window, spatial: Sequence[int | None]) -> bool:
    """Whether the sizes of the output are rounded up.

    Before version 22 of the operators, ONNX infers a size that counts a last window which begins in the padding behind.
    ONNX Runtime and torch leave that window out, and what comes after would be built for another size.
    """
    if not op.attributes.get("ceil_mode") or op.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return False
    inferred = (op.output.shape or ())[2:]
    whole = area.rounded_up(spatial)
    for size, found, begin, end, extent, stride in zip(
        spatial, inferred, whole.begin, whole.end, whole.extent, whole.strides, strict=True
    ):
        if size is None or found != (size + begin + end - extent) // stride + 1:
            raise refuse(op, "its last window begins in the padding behind, where ONNX and its runtime differ")
    return True


@operator("MaxPool")
def _max_pool(op: Operation, to: Reader) -> fx.Node | tuple[fx.Node | None, ...]:
    value = op.input(0)
    spatial = spatial_sizes(op, value)
    area = window(op, op.attributes["kernel_shape"], spatial)
    upwards = _rounds_up(op, area, spatial)
    data = to.tensor(value)
    if not is_float(op.output):
        data = to.method("to", data, torch.float32)
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        if not _fits(area):
            raise refuse(op, "torch tells no indices with this padding")
        return _with_indices(op, to, data, area, upwards)
    if not _fits(area):
        if upwards:
            area, upwards = area.rounded_up(spatial), False
        padding = CONSTANT_PADS[area.rank](area.padding, -np.inf)
        data = to.module(op, padding, data, suffix="_pad")
        area = replace(area, begin=(0,) * area.rank, end=(0,) * area.rank)
    pool = _MAXIMUM[area.rank](area.kernel, area.strides, area.begin, area.dilations, ceil_mode=upwards)
    pooled = to.module(op, pool, data)
    return pooled if is_float(op.output) else to.method("to", pooled, torch_type(op.output))


def _with_indices(op: Operation, to: Reader, data: fx.Node, area: Window, upwards: bool) -> tuple[fx.Node, fx.Node]:
    both = to.function(
        _WITH_INDICES[area.rank],
        data,
        area.kernel,
        area.strides,
        area.begin,
        area.dilations,
        ceil_mode=upwards,
        return_indices=True,
    )
    pooled, places = to.function(getitem, both, 0), to.function(getitem, both, 1)
    value = op.input(0)
    assert value is not None and value.shape is not None
    spatial, channels = fixed(op, value.shape[2:]), fixed(op, value.shape[1:2])[0]
    if op.attributes.get("storage_order"):
        # torch counts along the last axis first, this along the first.
        turned: Any = None
        rest, weight = places, 1
        for size, step in zip(reversed(spatial), reversed(_column_steps(spatial)), strict=True):
            place = to.function(torch.remainder, rest, size)
            rest = to.function(torch.div, rest, size, rounding_mode="floor")
            weight = step
            part = to.function(torch.mul, place, weight)
            turned = part if turned is None else to.function(torch.add, turned, part)
        places = turned
    planes = to.function(torch.arange, to.function(torch.mul, to.method("size", data, 0), channels))
    offsets = to.function(torch.mul, planes, count(spatial))
    offsets = to.method("reshape", offsets, -1, channels, *(1,) * area.rank)
    if not is_float(op.output):
        pooled = to.method("to", pooled, torch_type(op.output))
    return pooled, to.function(torch.add, places, offsets)


def _column_steps(spatial: tuple[int, ...]) -> list[int]:
    return [count(spatial[:axis]) for axis in range(len(spatial))]


@operator("AveragePool")
def _average_pool(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    spatial = spatial_sizes(op, value)
    area = window(op, op.attributes["kernel_shape"], spatial)
    upwards = _rounds_up(op, area, spatial)
    counted = bool(op.attributes.get("count_include_pad"))
    data = to.tensor(value)
    is_plain = all(one == 1 for one in area.dilations)
    # Over three axes torch forgets its own padding when it asks whether the window is larger than the data.
    is_covered = area.rank < 3 or all(s is not None and s >= k for s, k in zip(spatial, area.kernel, strict=True))
    if is_plain and is_covered and _fits(area):
        pool = _AVERAGE[area.rank](area.kernel, area.strides, area.begin, upwards, counted)
        return to.module(op, pool, data)
    sizes = fixed(op, spatial)
    shares = _shares(area.rounded_up(sizes) if upwards else area, area, sizes, counted)
    if upwards:
        area = area.rounded_up(sizes)
    if area.is_padded:
        data = to.module(op, ZERO_PADS[area.rank](area.padding), data, suffix="_pad")
    if is_plain:
        total = to.module(op, _AVERAGE[area.rank](area.kernel, area.strides), data)
        shares = shares * count(area.kernel)
    else:
        channels = fixed(op, (value.shape or (None, None))[1:2] if value is not None else ())[0]
        ones = to.buffer(f"{op.name}.ones", depthwise_ones(channels, area.kernel, op.output.dtype))
        total = to.function(CONVOLVE[area.rank], data, ones, None, area.strides, 0, area.dilations, channels)
    if np.all(shares == 1):
        return total
    return to.function(torch.mul, total, to.buffer(f"{op.name}.shares", shares.astype(op.output.dtype)))


def _shares(area: Window, original: Window, sizes: tuple[int, ...], counted: bool) -> np.ndarray:
    """What each element of a window weighs, for every window: one over the number of elements that count."""
    inside = np.ones((1, 1))
    for axis, size in enumerate(sizes):
        line = np.zeros(area.begin[axis] + size + area.end[axis])
        first = 0 if counted else area.begin[axis]
        last = area.begin[axis] + size + (original.end[axis] if counted else 0)
        line[first:last] = 1
        steps = (len(line) - area.extent[axis]) // area.strides[axis] + 1
        starts = np.arange(steps) * area.strides[axis]
        places = starts[:, None] + np.arange(area.kernel[axis]) * area.dilations[axis]
        inside = inside[..., None] * line[places].sum(axis=1)
    return 1 / np.maximum(inside, 1)


@operator("LpPool")
def _lp_pool(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    spatial = spatial_sizes(op, value)
    area = window(op, op.attributes["kernel_shape"], spatial)
    power = op.attributes.get("p", 2)
    if _rounds_up(op, area, spatial):
        area = area.rounded_up(spatial)
    data = to.function(torch.pow, to.function(torch.abs, to.tensor(value)), power)
    if area.is_padded:
        data = to.module(op, ZERO_PADS[area.rank](area.padding), data, suffix="_pad")
    channels = fixed(op, (value.shape or (None, None))[1:2] if value is not None else ())[0]
    ones = to.buffer(f"{op.name}.ones", depthwise_ones(channels, area.kernel, op.output.dtype))
    total = to.function(CONVOLVE[area.rank], data, ones, None, area.strides, 0, area.dilations, channels)
    return to.function(torch.pow, total, 1 / power)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(op: Operation, to: Reader) -> fx.Node:
    rank = rank_of(op, op.input(0)) - 2
    makers = _GLOBAL_AVERAGE if op.kind == "GlobalAveragePool" else _GLOBAL_MAXIMUM
    if rank not in makers:
        raise refuse(op, f"torch has no such pooling over {rank} spatial axes")
    if op.attributes.get("keepdims", 1):
        return to.module(op, makers[rank](1), to.tensor(op.input(0)))
    return to.module(op, nn.Flatten(), to.module(op, makers[rank](1), to.tensor(op.input(0)), suffix=".pool"))


@operator("GlobalLpPool")
def _global_lp_pool(op: Operation, to: Reader) -> fx.Node:
    axes = tuple(range(2, rank_of(op, op.input(0))))
    return to.function(
        torch.linalg.vector_norm, to.tensor(op.input(0)), ord=op.attributes.get("p", 2), dim=axes, keepdim=True
    )


@operator("MaxUnpool")
def _max_unpool(op: Operation, to: Reader) -> fx.Node:
    """Indices count through the whole unpadded output; elements of the output are zero where none points."""
    sizes = to.sizes(op.output)
    source = op.input(0)
    if len(op.inputs) > 2 and source is not None:
        # The indices are those of the smaller output that the window alone would give, ONNX Runtime's reading.
        raise refuse(op, "an output of another size than the window's is not supported")
    data, places = to.tensor(source), to.tensor(op.input(1))
    total: Any = 1
    for size in sizes:
        total = (
            total * size
            if not isinstance(total, fx.Node) and not isinstance(size, fx.Node)
            else to.function(torch.mul, size, total)
        )
    empty = to.method("new_zeros", data, (total,))
    flat = to.function(torch.scatter, empty, 0, to.function(torch.flatten, places), to.function(torch.flatten, data))
    return to.method("reshape", flat, *sizes)
