"""Operators that pick elements by their places, put them there, or tell places."""

from __future__ import annotations

from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from cfi_translate.onnx_torch.reader import Reader, count, fixed, operator, rank_of, refuse, shape_of
from cfi_translate.program import Operation, Value


def places(op: Operation, to: Reader, value: Value | None, size: Any) -> fx.Node:
    """Places along an axis of some size, counted from the front; negative ones count from the end."""
    if value is None:
        raise refuse(op, "its places are missing")
    constant = value.constant
    if constant is not None and isinstance(size, int):
        return to.buffer(f"{op.name}.places", np.where(constant < 0, constant + size, constant).astype(np.int64))
    node = to.method("to", to.tensor(value), torch.int64)
    return to.function(torch.remainder, node, size)


def _size(to: Reader, data: fx.Node, value: Value, axis: int) -> Any:
    size = None if value.shape is None else value.shape[axis]
    return to.method("size", data, axis) if size is None else size


@operator("Gather")
def _gather(op: Operation, to: Reader) -> fx.Node:
    value, where = op.input(0), op.input(1)
    assert value is not None and where is not None
    rank, axis = rank_of(op, value), op.attributes["axis"] % rank_of(op, value)
    if value.is_constant and rank == 2 and axis == 0 and not where.known and value.dtype == np.float32:
        table = nn.Embedding(*fixed(op, shape_of(op, value)), device="meta")
        table.weight = to.parameter(value)
        found = places(op, to, where, fixed(op, shape_of(op, value))[0]) if _may_be_negative(where) else None
        return to.module(op, table, to.tensor(where) if found is None else found)
    data = to.tensor(value)
    constant = where.constant
    if constant is not None and constant.ndim == 0:
        return to.function(torch.select, data, axis, int(constant))
    found = places(op, to, where, _size(to, data, value, axis))
    if where.rank == 1:
        return to.function(torch.index_select, data, axis, found)
    return to.function(getitem, data, (*(slice(None, None, None),) * axis, found))


def _may_be_negative(value: Value) -> bool:
    return value.dtype is not None and value.dtype.kind == "i"


@operator("GatherElements")
def _gather_elements(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    assert value is not None
    axis = op.attributes["axis"] % rank_of(op, value)
    data = to.tensor(value)
    return to.function(torch.gather, data, axis, places(op, to, op.input(1), _size(to, data, value, axis)))


@operator("GatherND")
def _gather_nd(op: Operation, to: Reader) -> fx.Node:
    value, where = op.input(0), op.input(1)
    assert value is not None and where is not None
    batch = op.attributes.get("batch_dims", 0)
    depth = shape_of(op, where)[-1]
    if depth is None:
        raise refuse(op, "the number of its indices follows the number of samples")
    data, indices = to.tensor(value), to.method("to", to.tensor(where), torch.int64)
    rank = rank_of(op, where)
    index: list[Any] = []
    for axis in range(batch):
        line = to.function(torch.arange, _size(to, data, value, axis))
        index.append(to.method("reshape", line, *(-1 if one == axis else 1 for one in range(rank - 1))))
    for position in range(depth):
        column = to.function(torch.select, indices, -1, position)
        index.append(to.function(torch.remainder, column, _size(to, data, value, batch + position)))
    return to.function(getitem, data, tuple(index))


_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


@operator("ScatterElements", "Scatter")
def _scatter_elements(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    assert value is not None
    axis = op.attributes["axis"] % rank_of(op, value)
    data, updates = to.tensor(value), to.tensor(op.input(2))
    where = places(op, to, op.input(1), _size(to, data, value, axis))
    reduction = op.attributes.get("reduction", "none")
    if reduction == "none":
        return to.function(torch.scatter, data, axis, where, updates)
    return to.function(torch.scatter_reduce, data, axis, where, updates, _REDUCTIONS[reduction], include_self=True)


@operator("ScatterND")
def _scatter_nd(op: Operation, to: Reader) -> fx.Node:
    """Puts rows into the data, seen as a list of rows."""
    value, where = op.input(0), op.input(1)
    sizes = shape_of(op, value)
    depth = shape_of(op, where)[-1]
    if depth is None or None in sizes:
        raise refuse(op, "its sizes follow the number of samples")
    fixed_sizes = fixed(op, sizes)
    data, updates = to.tensor(value), to.tensor(op.input(2))
    indices = to.method("to", to.tensor(where), torch.int64)
    flat: Any = 0
    for position in range(depth):
        column = to.function(torch.select, indices, -1, position)
        column = to.function(torch.remainder, column, fixed_sizes[position])
        step = count(fixed_sizes[position + 1 : depth])
        column = to.function(torch.mul, column, step)
        flat = column if position == 0 else to.function(torch.add, flat, column)
    rest = count(fixed_sizes[depth:])
    rows = to.method("reshape", data, count(fixed_sizes[:depth]), rest)
    changes = to.method("reshape", updates, -1, rest)
    line = to.method("reshape", flat, -1, 1)
    line = to.method("expand", line, -1, rest)
    reduction = op.attributes.get("reduction", "none")
    if reduction == "none":
        result = to.function(torch.scatter, rows, 0, line, changes)
    else:
        result = to.function(torch.scatter_reduce, rows, 0, line, changes, _REDUCTIONS[reduction], include_self=True)
    return to.method("reshape", result, *fixed_sizes)


@operator("OneHot")
def _one_hot(op: Operation, to: Reader) -> fx.Node:
    depth, values = op.input(1), op.input(2)
    size = None if depth is None else depth.uniform
    indices = op.input(0)
    if size is None or indices is None:
        raise refuse(op, "its depth is computed while the model runs")
    rank = rank_of(op, indices) + 1
    axis = op.attributes["axis"] % rank
    where = to.tensor(indices)
    if indices.dtype is not None and indices.dtype.kind == "f":
        where = to.method("to", where, torch.int64)
    where = to.function(torch.unsqueeze, where, axis)
    wrapped = to.function(torch.where, to.function(torch.lt, where, 0), to.function(torch.add, where, int(size)), where)
    line = to.buffer(
        f"{op.name}.classes", np.arange(int(size)).reshape([-1 if one == axis else 1 for one in range(rank)])
    )
    both = to.tensor(values)
    on, off = to.function(torch.select, both, 0, 1), to.function(torch.select, both, 0, 0)
    return to.function(torch.where, to.function(torch.eq, wrapped, line), on, off)


@operator("NonZero")
def _non_zero(op: Operation, to: Reader) -> fx.Node:
    return to.function(torch.t, to.function(torch.nonzero, to.tensor(op.input(0))))


@operator("Compress")
def _compress(op: Operation, to: Reader) -> fx.Node:
    value, condition = op.input(0), op.input(1)
    data = to.tensor(value)
    axis = op.attributes.get("axis")
    if axis is None:
        data, axis = to.function(torch.flatten, data), 0
    known = None if condition is None else condition.constant
    if known is None:
        found = to.function(torch.flatten, to.function(torch.nonzero, to.tensor(condition)))
    else:
        found = to.buffer(f"{op.name}.places", np.flatnonzero(known))
    return to.function(torch.index_select, data, axis, found)


@operator("TopK")
def _top_k(op: Operation, to: Reader) -> tuple[fx.Node, fx.Node]:
    """Sorted and stable: of equal values the first comes first, which `torch.topk` does not promise."""
    rank = rank_of(op, op.input(0))
    axis = op.attributes["axis"] % rank
    number = op.attributes.get("k")
    if number is None:
        wanted = op.input(1)
        if wanted is None or wanted.uniform is None:
            raise refuse(op, "how many it takes is computed while the model runs")
        number = int(wanted.uniform)
    if not op.attributes.get("sorted", 1):
        raise refuse(op, "the order of its results is not defined")
    descending = bool(op.attributes.get("largest", 1))
    both = to.function(torch.sort, to.tensor(op.input(0)), dim=axis, descending=descending, stable=True)
    values, where = (to.function(torch.narrow, to.function(getitem, both, i), axis, 0, number) for i in (0, 1))
    return values, where


@operator("ArgMax", "ArgMin")
def _arg(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    rank, data = rank_of(op, value), to.tensor(value)
    axis, keep = op.attributes["axis"] % rank, bool(op.attributes["keepdims"])
    function = torch.argmax if op.kind == "ArgMax" else torch.argmin
    if not op.attributes.get("select_last_index"):
        return to.function(function, data, dim=axis, keepdim=keep)
    assert value is not None
    last = _size(to, data, value, axis)
    last = last - 1 if isinstance(last, int) else to.function(torch.sub, last, 1)
    found = to.function(function, to.function(torch.flip, data, (axis,)), dim=axis, keepdim=keep)
    return to.function(torch.rsub, found, last) if isinstance(last, int) else to.function(torch.sub, last, found)


@operator("Unique")
def _unique(op: Operation, to: Reader) -> tuple[fx.Node | None, ...]:
    if not op.attributes.get("sorted", 1):
        raise refuse(op, "torch gives unique values in ascending order only")
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        raise refuse(op, "torch does not tell the first places of unique values")
    data = to.tensor(op.input(0))
    axis = op.attributes.get("axis")
    both = to.function(torch.unique, data, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    inverse, counts = to.function(getitem, both, 1), to.function(getitem, both, 2)
    inverse = to.function(torch.flatten, inverse)
    return to.function(getitem, both, 0), None, inverse, counts


@operator("ReverseSequence")
def _reverse_sequence(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    assert value is not None
    samples, time = op.attributes["batch_axis"], op.attributes["time_axis"]
    data, rank = to.tensor(value), rank_of(op, value)
    size = shape_of(op, value)[time]
    if size is None:
        raise refuse(op, "the number of steps follows the number of samples")
    shape = tuple(-1 if axis == samples else 1 for axis in range(rank))
    lengths = to.method("reshape", to.method("to", to.tensor(op.input(1)), torch.int64), *shape)
    steps = to.buffer(f"{op.name}.steps", np.arange(size).reshape([-1 if axis == time else 1 for axis in range(rank)]))
    backwards = to.function(torch.sub, to.function(torch.sub, lengths, 1), steps)
    order = to.function(torch.where, to.function(torch.lt, steps, lengths), backwards, steps)
    return to.function(torch.gather, data, time, to.method("expand_as", order, data))


@operator("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(op: Operation, to: Reader) -> fx.Node:
    data, target, weight = to.tensor(op.input(0)), to.tensor(op.input(1)), to.optional(op.input(2))
    ignored = op.attributes.get("ignore_index")
    return to.function(
        functional.nll_loss,
        data,
        to.method("to", target, torch.int64),
        weight,
        ignore_index=-(2**31) if ignored is None else ignored,
        reduction=op.attributes.get("reduction", "mean"),
    )


@operator("TensorScatter")
def _tensor_scatter(op: Operation, to: Reader) -> fx.Node:
    """Writes a run of rows into a cache, for each sample from its own place on."""
    cache, update, start = op.input(0), op.input(1), op.input(2)
    sizes, rows = fixed(op, shape_of(op, cache)), fixed(op, shape_of(op, update))
    axis = op.attributes.get("axis", -2) % len(sizes)
    line = np.arange(rows[axis]).reshape([-1 if one == axis else 1 for one in range(len(sizes))])
    where: Any = to.buffer(f"{op.name}.rows", line)
    if start is not None:
        begin = to.method("reshape", to.method("to", to.tensor(start), torch.int64), -1, *(1,) * (len(sizes) - 1))
        where = to.function(torch.add, where, begin)
        if op.attributes.get("mode", "linear") == "circular":
            where = to.function(torch.remainder, where, sizes[axis])
    where = to.method("expand", where, *rows)
    return to.function(torch.scatter, to.tensor(cache), axis, where, to.tensor(update))
