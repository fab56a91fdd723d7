"""Operators that move elements and compute none: reshaping, joining, cutting, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.onnx_torch.reader import (
    Reader,
    count,
    fixed,
    operator,
    rank_of,
    refuse,
    shape_of,
    tensor,
    torch_type,
)
from cfi_translate.onnx_torch.windows import CONSTANT_PADS, ZERO_PADS
from cfi_translate.program import Operation, Value


def axes_of(op: Operation, position: int = 1) -> tuple[int, ...] | None:
    """Axes, an attribute of old operators and an input of new ones; None if they are left out."""
    if op.attributes.get("axes") is not None:
        return tuple(op.attributes["axes"])
    value = op.input(position)
    if value is None:
        return None
    if value.constant is None:
        raise refuse(op, "its axes are computed while the model runs")
    return tuple(int(one) for one in np.atleast_1d(value.constant))


def reshaped(op: Operation, to: Reader, data: fx.Node, source: Value | None) -> fx.Node:
    """The data in the shape of the operator's output."""
    target = op.output.shape
    if target is None:
        raise refuse(op, "the sizes of its output are not known")
    free = [axis for axis, size in enumerate(target) if size is None]
    if source is None or source.shape is None or len(free) != 1 or 0 in target:
        return to.method("reshape", data, *to.sizes(op.output))
    rest = source.shape[1:]
    is_batch = free == [0] and source.shape[:1] == (None,) and None not in rest
    # nn.Flatten does not take vectors.
    if is_batch and rest and target[1:] == (count(fixed(op, rest)),):
        return to.module(op, nn.Flatten(), data)
    return to.method("reshape", data, *(-1 if size is None else size for size in target))


@operator("Reshape", "Flatten")
def _reshape(op: Operation, to: Reader) -> fx.Node:
    source = op.input(0)
    data = to.tensor(source)
    if op.output.shape is not None:
        return reshaped(op, to, data, source)
    if op.kind == "Flatten":
        rank = rank_of(op, source)
        axis = op.attributes["axis"]
        axis = axis + rank if axis < 0 else axis
        if axis == 1:
            return to.module(op, nn.Flatten(), data)
        raise refuse(op, "the sizes of its output are not known")
    wanted = op.input(1)
    if wanted is None or wanted.sizes is None or None in wanted.sizes or 0 in wanted.sizes:
        raise refuse(op, "its shape is computed from values while the model runs")
    return to.method("reshape", data, *wanted.sizes)


@operator("Squeeze")
def _squeeze(op: Operation, to: Reader) -> fx.Node:
    rank = rank_of(op, op.input(0))
    axes = axes_of(op)
    if axes is None:
        shape = shape_of(op, op.input(0))
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    axes = tuple(sorted(axis % rank for axis in axes))
    return to.function(torch.squeeze, to.tensor(op.input(0)), axes) if axes else to.tensor(op.input(0))


@operator("Unsqueeze")
def _unsqueeze(op: Operation, to: Reader) -> fx.Node:
    axes = axes_of(op)
    if axes is None:
        raise refuse(op, "its axes are missing")
    node = to.tensor(op.input(0))
    rank = rank_of(op, op.input(0)) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        node = to.function(torch.unsqueeze, node, axis)
    return node


@operator("Transpose")
def _transpose(op: Operation, to: Reader) -> fx.Node:
    order = op.attributes.get("perm")
    if order is None:
        order = tuple(reversed(range(rank_of(op, op.input(0)))))
    return to.function(torch.permute, to.tensor(op.input(0)), tuple(order))


@operator("Expand")
def _expand(op: Operation, to: Reader) -> fx.Node:
    sizes = to.sizes(op.output)
    return to.method("expand", to.tensor(op.input(0)), *sizes) if sizes else to.tensor(op.input(0))


@operator("Concat")
def _concat(op: Operation, to: Reader) -> fx.Node:
    return to.function(torch.cat, [to.tensor(value) for value in op.inputs], dim=op.attributes["axis"])


@operator("Split")
def _split(op: Operation, to: Reader) -> tuple[fx.Node | None, ...]:
    axis = op.attributes["axis"]
    data = to.tensor(op.input(0))
    sizes = []
    for value in op.outputs:
        if value is None:
            raise refuse(op, "one of its outputs is left out")
        sizes.append(fixed(op, shape_of(op, value))[axis] if value.shape is None else value.shape[axis])
    if None in sizes:
        raise refuse(op, "it splits the sample axis")
    parts = to.function(torch.split, data, sizes, dim=axis)
    return tuple(_item(to, parts, position) for position in range(len(sizes)))


def _item(to: Reader, parts: fx.Node, position: int) -> fx.Node:
    from operator import getitem

    return to.function(getitem, parts, position)


@operator("Slice")
def _slice(op: Operation, to: Reader) -> fx.Node:
    rank, data = rank_of(op, op.input(0)), to.tensor(op.input(0))
    if op.version < 10:
        starts, ends = op.attributes["starts"], op.attributes["ends"]
        axes, steps = op.attributes.get("axes"), None
    else:
        starts, ends, axes, steps = (_known_sizes(op, position) for position in (1, 2, 3, 4))
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    sizes = shape_of(op, op.input(0))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % rank
        if step is None or step == 0:
            raise refuse(op, "its steps are computed while the model runs")
        size = sizes[axis]
        if step > 0 and start is not None and end is not None:
            if start == 0 and step == 1 and size is not None and end >= size:
                continue
            data = _cut(to, data, rank, axis, slice(start, None if end >= 2**31 - 1 else end, step))
            continue
        if start is None or end is None:
            raise refuse(op, "it is cut at a place that follows the number of samples")
        if size is None:
            if start == -1 and step == -1 and end <= -(2**31) + 1:
                data = to.function(torch.flip, data, (axis,))
                continue
            raise refuse(op, "it goes backwards through the sample axis")
        places = range(size)[slice(start, None if end < -size else end, step)]
        if len(places) == size and step == -1:
            data = to.function(torch.flip, data, (axis,))
        else:
            places_node = to.graph.constant(f"{op.name}.places", torch.tensor(list(places), dtype=torch.int64))
            data = to.function(torch.index_select, data, axis, places_node)
    return data


def _known_sizes(op: Operation, position: int) -> Any:
    value = op.input(position)
    if value is None:
        return None
    if value.sizes is None:
        raise refuse(op, "it is cut at places that are computed while the model runs")
    return value.sizes


def _cut(to: Reader, data: fx.Node, rank: int, axis: int, part: slice) -> fx.Node:
    from operator import getitem

    whole = slice(None, None, None)
    return to.function(getitem, data, tuple(part if one == axis else whole for one in range(axis + 1)))


@operator("Tile")
def _tile(op: Operation, to: Reader) -> fx.Node:
    data = to.tensor(op.input(0))
    if op.version < 6:
        raise refuse(op, "this version of the operator is not supported")
    repeats = op.input(1)
    sizes = None if repeats is None else repeats.sizes
    if sizes is None:
        raise refuse(op, "its repeats are computed while the model runs")
    return to.function(torch.tile, data, tuple(to.samples() if one is None else one for one in _own(op, sizes)))


def _own(op: Operation, sizes: tuple[int | None, ...]) -> tuple[int | None, ...]:
    repeats = op.input(1)
    assert repeats is not None
    for axis, size in enumerate(sizes):
        # Only exactly the number of samples is what `samples` gives.
        if size is None and repeats.varying is not None and int(repeats.varying[0][axis]) != 2:
            raise refuse(op, "it repeats by a multiple of the number of samples")
    return sizes


@operator("Pad")
def _pad(op: Operation, to: Reader) -> fx.Node:
    source = op.input(0)
    rank, data = rank_of(op, source), to.tensor(source)
    begin, end = _pads(op, rank)
    mode = op.attributes.get("mode", "constant")
    number: Any = op.attributes.get("value", 0.0)
    if op.version >= 11:
        fill = op.input(2)
        if fill is not None and fill.uniform is None:
            raise refuse(op, "the number that it pads with is computed while the model runs")
        number = 0 if fill is None else fill.uniform.item()
    if not any(begin) and not any(end):
        return data
    if mode == "constant":
        return _constant_pad(op, to, data, begin, end, number)
    # Parts that are cut off go first, so that what is repeated is what is left.
    for axis, (before, behind) in enumerate(zip(begin, end, strict=True)):
        if before < 0 or behind < 0:
            data = _cut(to, data, rank, axis, slice(max(-before, 0), behind if behind < 0 else None, 1))
    sizes = shape_of(op, source)
    for axis, (before, behind) in enumerate(zip(begin, end, strict=True)):
        if before <= 0 and behind <= 0:
            continue
        size = sizes[axis]
        if size is None:
            raise refuse(op, "it repeats parts of the sample axis")
        line = np.arange(size + min(before, 0) + min(behind, 0))
        names = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
        places = np.pad(line, (max(before, 0), max(behind, 0)), mode=names[mode])  # type: ignore[call-overload]
        data = to.function(torch.index_select, data, axis, to.buffer(f"{op.name}.places", places))
    return data


def _pads(op: Operation, rank: int) -> tuple[list[int], list[int]]:
    if op.version < 11:
        given: Any = op.attributes.get("pads", op.attributes.get("paddings"))
        axes: Any = None
    else:
        pads = op.input(1)
        given = None if pads is None else pads.sizes
        axes = None if op.input(3) is None else axes_of(op, 3)
    if given is None or None in given:
        raise refuse(op, "its padding is computed while the model runs")
    places = range(rank) if axes is None else [axis % rank for axis in axes]
    begin, end = [0] * rank, [0] * rank
    half = len(given) // 2
    for position, axis in enumerate(places):
        begin[axis], end[axis] = given[position], given[half + position]
    return begin, end


def _constant_pad(op: Operation, to: Reader, data: fx.Node, begin: list[int], end: list[int], number: Any) -> fx.Node:
    pairs = [one for pair in zip(reversed(begin), reversed(end), strict=True) for one in pair]
    while pairs and not any(pairs[-2:]):
        del pairs[-2:]
    if op.output.dtype == np.bool_:
        padded = to.function(functional.pad, to.method("to", data, torch.uint8), pairs, "constant", int(number))
        return to.method("to", padded, torch.bool)
    axes = len(pairs) // 2
    if axes in ZERO_PADS and op.output.dtype is not None and op.output.dtype.kind == "f" and len(begin) == axes + 2:
        pad = ZERO_PADS[axes](tuple(pairs)) if number == 0 else CONSTANT_PADS[axes](tuple(pairs), number)
        return to.module(op, pad, data)
    return to.function(functional.pad, data, pairs, "constant", number)


@operator("DepthToSpace")
def _depth_to_space(op: Operation, to: Reader) -> fx.Node:
    block, data = op.attributes["blocksize"], to.tensor(op.input(0))
    if op.attributes.get("mode", "DCR") == "CRD":
        return to.module(op, nn.PixelShuffle(block), data)
    channels, height, width = fixed(op, shape_of(op, op.input(0))[1:])
    small = channels // block**2
    split = to.method("reshape", data, -1, block, block, small, height, width)
    turned = to.function(torch.permute, split, (0, 3, 4, 1, 5, 2))
    return to.method("reshape", turned, -1, small, height * block, width * block)


@operator("SpaceToDepth")
def _space_to_depth(op: Operation, to: Reader) -> fx.Node:
    block, data = op.attributes["blocksize"], to.tensor(op.input(0))
    channels, height, width = fixed(op, shape_of(op, op.input(0))[1:])
    split = to.method("reshape", data, -1, channels, height // block, block, width // block, block)
    turned = to.function(torch.permute, split, (0, 3, 5, 1, 2, 4))
    return to.method("reshape", turned, -1, channels * block**2, height // block, width // block)


@operator("Shape")
def _shape(op: Operation, to: Reader) -> fx.Node:
    sizes = to.function(torch._shape_as_tensor, to.tensor(op.input(0)))
    start, end = op.attributes.get("start") or 0, op.attributes.get("end")
    return _cut(to, sizes, 1, 0, slice(start, end, None)) if start or end is not None else sizes


@operator("Size")
def _size(op: Operation, to: Reader) -> fx.Node:
    return to.function(torch.prod, to.function(torch._shape_as_tensor, to.tensor(op.input(0))))


@operator("ConstantOfShape")
def _constant_of_shape(op: Operation, to: Reader) -> fx.Node:
    value = op.attributes.get("value")
    number = 0.0 if value is None else value.reshape(-1)[0].item()
    return to.function(torch.full, tuple(to.sizes(op.output)), number, dtype=torch_type(op.output))


@operator("EyeLike")
def _eye_like(op: Operation, to: Reader) -> fx.Node:
    rows, columns = to.sizes(op.output)
    diagonal = op.attributes.get("k", 0)
    if isinstance(rows, fx.Node) or isinstance(columns, fx.Node):
        raise refuse(op, "its size follows the number of samples")
    eye = np.eye(rows, columns, diagonal).astype(op.output.dtype)
    return to.graph.constant(f"{op.name}.eye", tensor(eye))


@operator("Range")
def _range(op: Operation, to: Reader) -> fx.Node:
    """Only what the walk through sizes has not computed comes here: lengths that follow values."""
    numbers = [value.uniform if value is not None else None for value in op.inputs]
    if any(number is None for number in numbers):
        raise refuse(op, "its bounds are computed while the model runs")
    start, limit, step = (number.item() for number in numbers if number is not None)
    return to.function(torch.arange, start, limit, step, dtype=torch_type(op.output))


@operator("Trilu")
def _trilu(op: Operation, to: Reader) -> fx.Node:
    diagonal = op.input(1)
    offset = 0
    if diagonal is not None:
        if diagonal.constant is None:
            raise refuse(op, "its diagonal is computed while the model runs")
        offset = int(diagonal.constant.reshape(()))
    function = torch.triu if op.attributes["upper"] else torch.tril
    return to.function(function, to.tensor(op.input(0)), offset)
