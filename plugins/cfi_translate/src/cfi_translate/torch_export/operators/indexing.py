"""Operators that take elements by their positions, put others there, or put them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.grammar import Converter, Refusal, require
from cfi_translate.torch_export.onnx_graph import Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.operators.shaping import expand, permute, reshape, same_size
from cfi_translate.torch_export.table import TorchOp, operator

_END = np.iinfo(np.int64).max


@operator("embedding")
def embedding(op: TorchOp, to: OnnxGraph, weight: Any, indices: Any, *_: Any) -> OnnxValue:
    return to.node("Gather", weight, indices, axis=0)


@operator("select.int", "index_select")
def select(op: TorchOp, to: OnnxGraph, x: Any, axis: int, index: Any) -> OnnxValue:
    require(not isinstance(index, torch.SymInt), "its index follows the number of samples")
    return to.node("Gather", x, index, axis=axis % max(1, len(x.shape)))


@operator("unbind.int")
def unbind(op: TorchOp, to: OnnxGraph, x: Any, axis: int) -> list[Any]:
    return [to.node("Gather", x, position, axis=axis % len(x.shape)) for position in range(len(op.result))]


@operator("slice.Tensor")
def take_slice(op: TorchOp, to: OnnxGraph, x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    axis %= len(x.shape)
    if step == 1 and same_size(x.shape[axis], op.shape[axis]):
        return x
    first, last = to.sizes([0 if start is None else start]), to.sizes([_END if end is None else end])
    return to.node("Slice", x, first, last, [axis], [step])


@operator("roll")
def roll(op: TorchOp, to: OnnxGraph, x: Any, shifts: Sequence[int], axes: Sequence[int] = ()) -> Any:
    require(axes, "it rolls the flattened tensor")
    for shift, axis in zip(shifts, axes, strict=True):
        size = op.shape[axis]
        require(not isinstance(size, torch.SymInt), "it rolls the samples")
        cut = -shift % size
        if cut:
            axis %= len(op.shape)
            tail, head = to.node("Slice", x, [cut], [size], [axis]), to.node("Slice", x, [0], [cut], [axis])
            x = to.node("Concat", tail, head, axis=axis)
    return x


@operator("flip")
def flip(op: TorchOp, to: OnnxGraph, x: Any, axes: Sequence[int]) -> OnnxValue:
    backwards, before_first = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes)
    return to.node("Slice", x, backwards, before_first, [axis % len(x.shape) for axis in axes], backwards)


def _triangle(upper: int) -> Converter:
    return lambda op, to, x, diagonal=0: to.node("Trilu", x, diagonal, upper=upper)


operator("tril")(_triangle(0))
operator("triu")(_triangle(1))


@operator("gather")
def gather(op: TorchOp, to: OnnxGraph, x: Any, axis: int, index: Any, sparse: bool = False) -> OnnxValue:
    return to.node("GatherElements", x, index, axis=axis % max(1, len(x.shape)))


@operator("index.Tensor")
def index(op: TorchOp, to: OnnxGraph, x: Any, indices: Sequence[Any]) -> OnnxValue:
    given = [axis for axis, one in enumerate(indices) if one is not None]
    truths = any(indices[axis].dtype in (torch.bool, torch.uint8) for axis in given)
    require(not truths, "how many elements it selects depends on their values")
    if len(given) == 1:
        return to.node("Gather", x, indices[given[0]], axis=given[0])
    known = all(isinstance(indices[axis], torch.Tensor) for axis in given)
    adjacent = given == list(range(given[0], given[-1] + 1))
    require(known and adjacent, "it indexes several axes that are not adjacent, or by computed indices")
    with_samples = any(isinstance(x.shape[axis], torch.SymInt) for axis in given)
    require(not with_samples, "it indexes the samples together with another axis")
    # Adjacent axes are joined, and so are their indices.
    joined = torch.zeros((), dtype=torch.int64)
    count = 1
    for axis in given:
        size = int(x.shape[axis])
        joined = joined * size + indices[axis].to("cpu", torch.int64) % size
        count *= size
    shape = tuple(x.shape)
    flat = reshape(to, x, (*shape[: given[0]], count, *shape[given[-1] + 1 :]))
    return to.node("Gather", flat, joined, axis=given[0])


@operator("index_put", "_unsafe_index_put")
def put(op: TorchOp, to: OnnxGraph, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> OnnxValue:
    given = [axis for axis, one in enumerate(indices) if one is not None]
    rest = [axis for axis in range(len(x.shape)) if axis not in given]
    truths = any(indices[axis].dtype in (torch.bool, torch.uint8) for axis in given)
    require(not truths, "how many elements it changes depends on their values")
    if not accumulate and len(values.shape):
        _require_distinct([(indices[axis], x.shape[axis]) for axis in given])
    places = tuple(torch.broadcast_shapes(*(indices[axis].shape for axis in given)))
    expanded = (expand(to, to.cast(indices[axis], torch.int64), tuple(indices[axis].shape), places) for axis in given)
    columns = [to.node("Unsqueeze", one, [-1]) for one in expanded]
    where = columns[0] if len(columns) == 1 else to.node("Concat", *columns, axis=-1)
    # The axes that are indexed come first in ONNX. In torch's values they are where they are in x, if adjacent.
    before = given[0] if given == list(range(given[0], given[-1] + 1)) else 0
    values, sizes, count = to.cast(values, op.dtype), tuple(values.shape), len(places) + len(rest)
    if before and len(sizes) > len(rest) - before:
        missing, behind = count - len(sizes), before + len(places)
        values = to.node("Unsqueeze", values, list(range(missing))) if missing else values
        order = [*range(before, behind), *range(before), *range(behind, count)]
        values, sizes = permute(op, to, values, order), tuple(((1,) * missing + sizes)[axis] for axis in order)
    values = expand(to, values, sizes, (*places, *(x.shape[axis] for axis in rest)))
    order = [*given, *rest]
    reduction = "add" if accumulate else None
    made = to.node("ScatterND", permute(op, to, x, order), where, values, reduction=reduction)
    return permute(op, to, made, [order.index(axis) for axis in range(len(order))])


def _require_distinct(indices: Sequence[tuple[Any, Any]]) -> None:
    """Refuses constant indices that name a place twice: torch does not promise which value stays there."""
    if not all(isinstance(one, torch.Tensor) for one, _ in indices):
        return
    require(not any(isinstance(size, torch.SymInt) for _, size in indices), "it changes some of the samples")
    wrapped = torch.broadcast_tensors(*(one.to("cpu", torch.int64) % size for one, size in indices))
    found = torch.stack(wrapped, -1).reshape(-1, len(wrapped))
    require(len(found.unique(dim=0)) == len(found), "it puts several values into one place")


@operator("slice_scatter")
def slice_scatter(op: TorchOp, to: OnnxGraph, x: Any, source: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    axis %= len(x.shape)
    size = x.shape[axis]
    if step == 1 and not isinstance(source, Filled) and same_size(size, source.shape[axis]):
        return to.cast(source, op.dtype)
    fixed = step == 1 and not any(isinstance(one, torch.SymInt) for one in (size, start, end))
    require(fixed, "it replaces samples, or every other element")
    first, last, _ = slice(start, end).indices(int(size))
    parts = [to.cast(source, op.dtype)]
    if first > 0:
        parts.insert(0, to.node("Slice", x, [0], [first], [axis]))
    if last < size:
        parts.append(to.node("Slice", x, [last], [_END], [axis]))
    return parts[0] if len(parts) == 1 else to.node("Concat", *parts, axis=axis)


@operator("topk")
def largest(op: TorchOp, to: OnnxGraph, x: Any, k: Any, axis: int, largest: bool, ordered: bool) -> list[Any]:
    # Not ordered, torch promises no order; any will do.
    require(isinstance(k, int), "it takes as many elements as follow the number of samples")
    return _order(to, x, k, axis, largest)


@operator("sort")
def sort(op: TorchOp, to: OnnxGraph, x: Any, axis: int = -1, descending: bool = False) -> list[Any]:
    size = x.shape[axis] if x.shape else 1
    require(isinstance(size, int), "it puts the samples in order")
    return _order(to, x, size, axis, descending)


def _order(to: OnnxGraph, x: Any, k: int, axis: int, largest: bool) -> list[Any]:
    require(x.shape, "its input has no axes")
    return list(to.node_with(2, "TopK", x, [k], axis=axis % len(x.shape), largest=int(largest)))


def _position(kind: str) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, x: Any, axis: int | None = None, keep: bool = False) -> OnnxValue:
        if axis is None:
            raise Refusal("it looks for one element among all samples")
        return to.node(kind, x, axis=axis % max(1, len(x.shape)), keepdims=int(keep))

    return convert


operator("argmax")(_position("ArgMax"))
operator("argmin")(_position("ArgMin"))
