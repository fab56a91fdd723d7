"""Operators that move elements and compute none: reshaping, joining, cutting, padding."""

from __future__ import annotations

from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.grammar import Refusal, require
from cfi_translate.onnx_torch.builder import TorchBuilder, torch_type
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.moving import Cut, Padding, cuts_of, padding_of, repeated_places, split_sizes
from cfi_translate.semantics.values import rank_of, shape_of, sizes_of, squeezed_axes, static, unsqueezed_axes
from cfi_translate.torch_modules import padding_module


@operator("Flatten")
def flatten(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    axis = op.attributes["axis"] % (rank_of(data) or 1)
    # nn.Flatten does not take vectors.
    return to.module(op, nn.Flatten(), data) if axis == 1 and rank_of(data) > 1 else _reshape(op, to, data)


@operator("Reshape")
def reshape(op: Operation, to: TorchBuilder, data: Value, shape: Value | None = None) -> fx.Node:
    if op.output.shape is not None:
        return _reshape(op, to, data)
    sizes = sizes_of(shape, "shape")
    require(None not in sizes and 0 not in sizes, "its shape is computed from values while the model runs")
    return to.reshape(data, *sizes)


def _reshape(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    """The data in the shape of the operator's output."""
    target = shape_of(op.output)
    if data.shape is None or target.count(None) != 1 or 0 in target:
        return to.reshape(data, *to.sizes(op.output))
    return to.reshape(data, *(-1 if size is None else size for size in target))


@operator("Squeeze")
def squeeze(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    gone = squeezed_axes(op, data, axes)
    return to.function(torch.squeeze, data, gone) if gone else to.tensor(data)


@operator("Unsqueeze")
def unsqueeze(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    node = to.tensor(data)
    for axis in unsqueezed_axes(op, data, axes):
        node = to.function(torch.unsqueeze, node, axis)
    return node


@operator("Transpose")
def transpose(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    order = op.attributes.get("perm") or tuple(reversed(range(rank_of(data))))
    return to.function(torch.permute, data, tuple(order))


@operator("Expand")
def expand(op: Operation, to: TorchBuilder, data: Value, shape: Value) -> fx.Node:
    sizes = to.sizes(op.output)
    return to.method("expand", data, *sizes) if sizes else to.tensor(data)


@operator("Concat")
def concatenation(op: Operation, to: TorchBuilder, *parts: Value) -> fx.Node:
    return to.function(torch.cat, list(parts), dim=op.attributes["axis"])


@operator("Split")
def split(op: Operation, to: TorchBuilder, data: Value, sizes: Value | None = None) -> tuple[fx.Node, ...]:
    parts = to.function(torch.split, data, list(split_sizes(op)), dim=op.attributes["axis"])
    return tuple(to.function(getitem, parts, position) for position in range(len(op.outputs)))


@operator("Slice")
def cut_out(op: Operation, to: TorchBuilder, data: Value, *given: Value | None) -> fx.Node:
    node, sizes = to.tensor(data), shape_of(data)
    for one in cuts_of(op, data, *given):
        size = sizes[one.axis]
        if one.step < 0 or one.start is None or one.end is None:
            node = _cut_backwards(op, to, node, one, size)
        elif size is None or (one.start, one.step) != (0, 1) or one.end < size:
            end = None if one.end >= 2**31 - 1 else one.end
            node = _cut(to, node, one.axis, slice(one.start, end, one.step))
    return node


def _cut_backwards(op: Operation, to: TorchBuilder, data: fx.Node, cut: Cut, size: int | None) -> fx.Node:
    axis, start, end, step = cut
    if start is None or end is None:
        raise Refusal("it is cut at a place that follows the number of samples")
    is_whole = (start, step) == (-1, -1) and end <= -(2**31) + 1
    require(size is not None or is_whole, "it goes backwards through the sample axis")
    places = range(size or 0)[slice(start, None if end < -(size or 0) else end, step)]
    if is_whole or (len(places) == size and step == -1):
        return to.function(torch.flip, data, (axis,))
    return to.function(torch.index_select, data, axis, to.buffer(f"{op.name}.places", np.array(places, np.int64)))


def _cut(to: TorchBuilder, data: Any, axis: int, part: slice) -> fx.Node:
    return to.function(getitem, data, (*(slice(None, None, None),) * axis, part))


@operator("Tile")
def tile(op: Operation, to: TorchBuilder, data: Value, repeats: Value, _: Value | None = None) -> fx.Node:
    require(op.version >= 6, "this version of the operator is not supported")
    sizes = sizes_of(repeats, "number of repetitions")
    # Only exactly the number of samples is what `samples` gives.
    exact = repeats.varying is None or all(
        one is not None or int(repeats.varying[0][axis]) == 2 for axis, one in enumerate(sizes)
    )
    require(exact, "it repeats by a multiple of the number of samples")
    return to.function(torch.tile, data, tuple(to.samples() if one is None else one for one in sizes))


@operator("Pad")
def pad(op: Operation, to: TorchBuilder, data: Value, *given: Value | None) -> fx.Node:
    padding = padding_of(op, data, *given)
    if not any(padding.begin) and not any(padding.end):
        return to.tensor(data)
    if padding.mode == "constant":
        return _pad_with_number(op, to, data, padding)
    node = to.tensor(data)
    for axis, (before, behind) in enumerate(zip(padding.begin, padding.end, strict=True)):
        if before <= 0 and behind <= 0 and (before or behind):
            node = _cut(to, node, axis, slice(-before, behind or None, 1))
        elif before or behind:
            (size,) = static(shape_of(data)[axis : axis + 1])
            places = repeated_places(size, before, behind, padding.mode)
            node = to.function(torch.index_select, node, axis, to.buffer(f"{op.name}.places", places))
    return node


def _pad_with_number(op: Operation, to: TorchBuilder, data: Value, padding: Padding) -> fx.Node:
    around, number = list(zip(padding.begin, padding.end, strict=True)), padding.fill
    is_spatial = 3 <= len(around) <= 5 and not any(map(any, around[:2])) and any(around[2])
    if data.is_float and is_spatial:
        return to.module(op, padding_module(around[2:], number), data)
    pairs = [one for pair in reversed(around) for one in pair]
    while not any(pairs[-2:]):
        del pairs[-2:]
    if data.dtype == np.bool_:
        padded = to.function(functional.pad, to.cast(data, torch.uint8), pairs, "constant", int(number))
        return to.cast(padded, torch.bool)
    return to.function(functional.pad, data, pairs, "constant", number)


@operator("DepthToSpace")
def depth_to_space(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    block = op.attributes["blocksize"]
    if op.attributes.get("mode", "DCR") == "CRD":
        return to.module(op, nn.PixelShuffle(block), data)
    channels, height, width = static(shape_of(data)[1:])
    small = channels // block**2
    parts = to.reshape(data, -1, block, block, small, height, width)
    turned = to.function(torch.permute, parts, (0, 3, 4, 1, 5, 2))
    return to.reshape(turned, -1, small, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    block = op.attributes["blocksize"]
    channels, height, width = static(shape_of(data)[1:])
    parts = to.reshape(data, -1, channels, height // block, block, width // block, block)
    turned = to.function(torch.permute, parts, (0, 3, 5, 1, 2, 4))
    return to.reshape(turned, -1, channels * block**2, height // block, width // block)


@operator("Shape")
def shape(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    sizes = to.function(torch._shape_as_tensor, data)
    start, end = op.attributes.get("start") or 0, op.attributes.get("end")
    return _cut(to, sizes, 0, slice(start, end, None)) if start or end is not None else sizes


@operator("Size")
def size(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.function(torch.prod, to.function(torch._shape_as_tensor, data))


@operator("ConstantOfShape")
def full(op: Operation, to: TorchBuilder, sizes: Value) -> fx.Node:
    value = op.attributes.get("value")
    number = 0.0 if value is None else value.reshape(-1)[0].item()
    return to.function(torch.full, tuple(to.sizes(op.output)), number, dtype=torch_type(op.output))
