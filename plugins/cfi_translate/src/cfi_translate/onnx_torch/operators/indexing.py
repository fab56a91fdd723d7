"""Operators that pick elements by their places, put them there, or tell places."""

from __future__ import annotations

from math import prod
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, along, torch_type
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import SAMPLES, Operation, Value
from cfi_translate.semantics.values import constant_of, number_of, rank_of, shape_of, static, wrap_indices

_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def _places(op: Operation, to: TorchBuilder, indices: Value, size: Any) -> fx.Node:
    """Places along an axis of some size, counted from the front; negative ones count from the end."""
    constant = indices.constant
    if constant is not None and isinstance(size, int):
        return to.buffer(f"{op.name}.places", wrap_indices(constant, size))
    return to.function(torch.remainder, to.cast(indices, torch.int64), size)


def _size(to: TorchBuilder, data: Value, axis: int) -> Any:
    size = shape_of(data)[axis]
    return to.method("size", data, axis) if size is None else size


@operator("Gather")
def gather(op: Operation, to: TorchBuilder, data: Value, indices: Value) -> fx.Node:
    axis = op.attributes["axis"] % rank_of(data)
    if data.is_constant and rank_of(data) == 2 and axis == 0 and not indices.known and data.dtype == np.float32:
        rows, columns = static(shape_of(data))
        table = to.give_weights(nn.Embedding(rows, columns, device="meta"), data, None)
        may_be_negative = np.dtype(indices.dtype).kind == "i"
        return to.module(op, table, _places(op, to, indices, rows) if may_be_negative else indices)
    constant = indices.constant
    if constant is not None and constant.ndim == 0:
        return to.function(torch.select, data, axis, int(constant))
    source, found = to.tensor(data), _places(op, to, indices, _size(to, data, axis))
    if indices.rank == 1:
        return to.function(torch.index_select, source, axis, found)
    return to.function(getitem, source, (*(slice(None, None, None),) * axis, found))


@operator("GatherElements")
def gather_elements(op: Operation, to: TorchBuilder, data: Value, indices: Value) -> fx.Node:
    axis = op.attributes["axis"] % rank_of(data)
    return to.function(torch.gather, data, axis, _places(op, to, indices, _size(to, data, axis)))


@operator("GatherND")
def gather_nd(op: Operation, to: TorchBuilder, data: Value, indices: Value) -> fx.Node:
    batch, depth = op.attributes.get("batch_dims", 0), static(shape_of(indices)[-1:])[0]
    source, where = to.tensor(data), to.cast(indices, torch.int64)
    index: list[Any] = []
    for axis in range(batch):
        line = to.function(torch.arange, _size(to, data, axis))
        index.append(to.reshape(line, *along(axis, rank_of(indices) - 1)))
    for position in range(depth):
        column = to.function(torch.select, where, -1, position)
        index.append(to.function(torch.remainder, column, _size(to, data, batch + position)))
    return to.function(getitem, source, tuple(index))


def _scatter(op: Operation, to: TorchBuilder, data: Any, axis: int, where: Any, updates: Any) -> fx.Node:
    reduction = op.attributes.get("reduction", "none")
    if reduction == "none":
        return to.function(torch.scatter, data, axis, where, updates)
    return to.function(torch.scatter_reduce, data, axis, where, updates, _REDUCTIONS[reduction], include_self=True)


@operator("ScatterElements", "Scatter")
def scatter_elements(op: Operation, to: TorchBuilder, data: Value, indices: Value, updates: Value) -> fx.Node:
    axis = op.attributes["axis"] % rank_of(data)
    return _scatter(op, to, data, axis, _places(op, to, indices, _size(to, data, axis)), updates)


@operator("ScatterND")
def scatter_nd(op: Operation, to: TorchBuilder, data: Value, indices: Value, updates: Value) -> fx.Node:
    depth, where = static(shape_of(indices)[-1:])[0], to.cast(indices, torch.int64)
    if (reduction := op.attributes.get("reduction", "none")) in ("none", "add"):
        columns = tuple(to.function(torch.select, where, -1, position) for position in range(depth))
        return to.function(torch.index_put, data, columns, updates, accumulate=reduction == "add")
    # The data, seen as a list of rows.
    sizes = static(shape_of(data))
    flat: Any = None
    for position in range(depth):
        column = to.function(torch.remainder, to.function(torch.select, where, -1, position), sizes[position])
        column = to.function(torch.mul, column, prod(sizes[position + 1 : depth]))
        flat = column if flat is None else to.function(torch.add, flat, column)
    row = prod(sizes[depth:])
    line = to.method("expand", to.reshape(flat, -1, 1), -1, row)
    rows, changes = to.reshape(data, prod(sizes[:depth]), row), to.reshape(updates, -1, row)
    return to.reshape(_scatter(op, to, rows, 0, line, changes), *sizes)


@operator("OneHot")
def one_hot(op: Operation, to: TorchBuilder, indices: Value, depth: Value, values: Value) -> fx.Node:
    size, rank = int(number_of(depth, "depth")), rank_of(indices) + 1
    axis = op.attributes["axis"] % rank
    where = to.function(torch.unsqueeze, to.cast(indices, torch.int64) if indices.is_float else indices, axis)
    wrapped = to.function(torch.where, to.function(torch.lt, where, 0), to.function(torch.add, where, size), where)
    line = to.buffer(f"{op.name}.classes", np.arange(size).reshape(along(axis, rank)))
    on, off = (to.function(torch.select, values, 0, place) for place in (1, 0))
    return to.function(torch.where, to.function(torch.eq, wrapped, line), on, off)


@operator("NonZero")
def nonzero(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    return to.function(torch.t, to.function(torch.nonzero, data))


@operator("Compress")
def compress(op: Operation, to: TorchBuilder, data: Value, condition: Value) -> fx.Node:
    axis = op.attributes.get("axis")
    source: Any = to.function(torch.flatten, data) if axis is None else data
    known = condition.constant
    if known is None:
        found = to.function(torch.flatten, to.function(torch.nonzero, condition))
    else:
        found = to.buffer(f"{op.name}.places", np.flatnonzero(known))
    return to.function(torch.index_select, source, axis or 0, found)


@operator("TopK")
def largest(op: Operation, to: TorchBuilder, data: Value, count: Value | None = None) -> tuple[fx.Node, ...]:
    """Sorted and stable: of equal values the first comes first, which `torch.topk` does not promise."""
    axis = op.attributes["axis"] % rank_of(data)
    number = int(op.attributes["k"] if count is None else number_of(count, "number of elements"))
    require(op.attributes.get("sorted", 1), "the order of its results is not defined")
    descending = bool(op.attributes.get("largest", 1))
    both = to.function(torch.sort, data, dim=axis, descending=descending, stable=True)
    return tuple(to.function(torch.narrow, to.function(getitem, both, i), axis, 0, number) for i in (0, 1))


@operator("ArgMax", "ArgMin")
def extreme_place(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    axis, keep = op.attributes["axis"] % rank_of(data), bool(op.attributes["keepdims"])
    function = torch.argmax if op.kind == "ArgMax" else torch.argmin
    if not op.attributes.get("select_last_index"):
        return to.function(function, data, dim=axis, keepdim=keep)
    last = to.function(torch.sub, to.method("size", data, axis), 1)
    found = to.function(function, to.function(torch.flip, data, (axis,)), dim=axis, keepdim=keep)
    return to.function(torch.sub, last, found)


@operator("Unique")
def unique(op: Operation, to: TorchBuilder, data: Value) -> tuple[fx.Node | None, ...]:
    require(op.attributes["sorted"], "torch gives unique values in ascending order only")
    axis = op.attributes.get("axis")
    both = to.function(torch.unique, data, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    values, inverse, counts = (to.function(getitem, both, position) for position in range(3))
    # torch does not tell the first places of unique values.
    return values, None, to.function(torch.flatten, inverse), counts


@operator("ReverseSequence")
def reverse_sequence(op: Operation, to: TorchBuilder, data: Value, lengths: Value) -> fx.Node:
    samples, time, rank = op.attributes["batch_axis"], op.attributes["time_axis"], rank_of(data)
    (size,) = static(shape_of(data)[time : time + 1])
    ends = to.reshape(to.cast(lengths, torch.int64), *along(samples, rank))
    steps = to.buffer(f"{op.name}.steps", np.arange(size).reshape(along(time, rank)))
    backwards = to.function(torch.sub, to.function(torch.sub, ends, 1), steps)
    order = to.function(torch.where, to.function(torch.lt, steps, ends), backwards, steps)
    return to.function(torch.gather, data, time, to.method("expand_as", order, data))


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(
    op: Operation, to: TorchBuilder, data: Value, target: Value, weight: Value | None = None
) -> fx.Node:
    ignored = op.attributes.get("ignore_index")
    return to.function(
        functional.nll_loss,
        data,
        to.cast(target, torch.int64),
        weight,
        ignore_index=-(2**31) if ignored is None else ignored,
        reduction=op.attributes["reduction"],
    )


@operator("TensorScatter")
def scatter_rows(op: Operation, to: TorchBuilder, cache: Value, update: Value, start: Value | None = None) -> fx.Node:
    """Writes a run of rows into a cache, for each sample from its own place on."""
    sizes, rows = static(shape_of(cache)), static(shape_of(update))
    axis, rank = op.attributes["axis"] % len(sizes), len(sizes)
    where = to.buffer(f"{op.name}.rows", np.arange(rows[axis]).reshape(along(axis, rank)))
    if start is not None:
        begin = to.reshape(to.cast(start, torch.int64), *along(0, rank))
        where = to.function(torch.add, where, begin)
        if op.attributes["mode"] == "circular":
            where = to.function(torch.remainder, where, sizes[axis])
    return to.function(torch.scatter, cache, axis, to.method("expand", where, *rows), update)


@operator("EyeLike")
def eye(op: Operation, to: TorchBuilder, data: Value) -> fx.Node:
    rows, columns = static(shape_of(op.output))
    return to.buffer(f"{op.name}.eye", np.eye(rows, columns, op.attributes["k"]).astype(op.output.dtype))


@operator("Range")
def line(op: Operation, to: TorchBuilder, start: Value, limit: Value, step: Value) -> fx.Node:
    """Only what no buffer can hold comes here: lengths that follow values, or the number of samples."""
    bounds = (_bound(to, one) for one in (start, limit, step))
    return to.function(torch.arange, *bounds, dtype=torch_type(op.output))


def _bound(to: TorchBuilder, value: Value) -> Any:
    """A number, or the number of samples, or of them several for each."""
    if value.varying is None:
        return number_of(value, "bound")
    few, many = (one.item() for one in value.varying)
    each = few / SAMPLES[0]
    require(each.is_integer() and many == each * SAMPLES[1], "its bound is more than a multiple of the samples")
    return to.samples() if each == 1 else to.function(torch.mul, to.samples(), int(each))


@operator("Trilu")
def triangle(op: Operation, to: TorchBuilder, data: Value, diagonal: Value | None = None) -> fx.Node:
    offset = 0 if diagonal is None else int(constant_of(diagonal, "diagonal").reshape(()))
    return to.function(torch.triu if op.attributes["upper"] else torch.tril, data, offset)
