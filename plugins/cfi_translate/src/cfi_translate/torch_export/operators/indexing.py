"""Operators that take elements by their positions, put others there, or put them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.torch_export.onnx_graph import Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.operators.shaping import reshape, same_size
from cfi_translate.torch_export.table import TorchOperator, operator

_END = np.iinfo(np.int64).max


@operator("embedding")
def embedding(op: TorchOperator, to: OnnxGraph, weight: Any, indices: Any, *_: Any) -> OnnxValue:
    return to.node("Gather", weight, indices, axis=0)


@operator("select.int")
def select(op: TorchOperator, to: OnnxGraph, x: Any, axis: int, index: Any) -> OnnxValue:
    require(not isinstance(index, torch.SymInt), "its index follows the number of samples")
    return to.node("Gather", x, index, axis=axis % len(x.shape))


@operator("unbind.int")
def unbind(op: TorchOperator, to: OnnxGraph, x: Any, axis: int) -> list[Any]:
    return [to.node("Gather", x, position, axis=axis % len(x.shape)) for position in range(len(op.result))]


@operator("slice.Tensor")
def take_slice(op: TorchOperator, to: OnnxGraph, x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    axis %= len(x.shape)
    if step == 1 and same_size(x.shape[axis], op.shape[axis]):
        return x
    first, last = to.sizes([0 if start is None else start]), to.sizes([_END if end is None else end])
    return to.node("Slice", x, first, last, [axis], [step])


@operator("roll")
def roll(op: TorchOperator, to: OnnxGraph, x: Any, shifts: Sequence[int], axes: Sequence[int] = ()) -> Any:
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
def flip(op: TorchOperator, to: OnnxGraph, x: Any, axes: Sequence[int]) -> OnnxValue:
    backwards, before_first = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes)
    return to.node("Slice", x, backwards, before_first, [axis % len(x.shape) for axis in axes], backwards)


@operator("tril")
def lower_triangle(op: TorchOperator, to: OnnxGraph, x: Any, diagonal: int = 0) -> OnnxValue:
    return to.node("Trilu", x, diagonal, upper=0)


@operator("triu")
def upper_triangle(op: TorchOperator, to: OnnxGraph, x: Any, diagonal: int = 0) -> OnnxValue:
    return to.node("Trilu", x, diagonal, upper=1)


@operator("index_select")
def index_select(op: TorchOperator, to: OnnxGraph, x: Any, axis: int, index: Any) -> OnnxValue:
    return to.node("Gather", x, index, axis=axis % max(1, len(x.shape)))


@operator("gather")
def gather(op: TorchOperator, to: OnnxGraph, x: Any, axis: int, index: Any, sparse: bool = False) -> OnnxValue:
    return to.node("GatherElements", x, index, axis=axis % max(1, len(x.shape)))


@operator("index.Tensor")
def index(op: TorchOperator, to: OnnxGraph, x: Any, indices: Sequence[Any]) -> OnnxValue:
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


@operator("select_scatter")
def select_scatter(op: TorchOperator, to: OnnxGraph, x: Any, source: Any, axis: int, index: Any) -> OnnxValue:
    size = x.shape[axis]
    require(not any(isinstance(one, torch.SymInt) for one in (size, index)), "it replaces a sample")
    axis, index = axis % len(x.shape), index % int(size)
    row = to.node("Unsqueeze", to.cast(source, op.dtype), [axis])
    return _replace(to, x, row, axis, index, index + 1)


@operator("slice_scatter")
def slice_scatter(
    op: TorchOperator, to: OnnxGraph, x: Any, source: Any, axis: int, start: Any, end: Any, step: int
) -> Any:
    axis %= len(x.shape)
    size = x.shape[axis]
    if step == 1 and not isinstance(source, Filled) and same_size(size, source.shape[axis]):
        return to.cast(source, op.dtype)
    fixed = step == 1 and not any(isinstance(one, torch.SymInt) for one in (size, start, end))
    require(fixed, "it replaces samples, or every other element")
    first, last, _ = slice(start, end).indices(int(size))
    return _replace(to, x, to.cast(source, op.dtype), axis, first, last)


def _replace(to: OnnxGraph, x: Any, part: Any, axis: int, start: int, end: int) -> OnnxValue:
    """The tensor with what lies from `start` to `end` replaced."""
    parts = [part]
    if start > 0:
        parts.insert(0, to.node("Slice", x, [0], [start], [axis]))
    if end < int(x.shape[axis]):
        parts.append(to.node("Slice", x, [end], [_END], [axis]))
    return parts[0] if len(parts) == 1 else to.node("Concat", *parts, axis=axis)


@operator("topk")
def largest(op: TorchOperator, to: OnnxGraph, x: Any, k: Any, axis: int, largest: bool, ordered: bool) -> list[Any]:
    # Not ordered, torch promises no order; any will do.
    require(isinstance(k, int), "it takes as many elements as follow the number of samples")
    return _order(to, x, k, axis, largest)


@operator("sort")
def sort(op: TorchOperator, to: OnnxGraph, x: Any, axis: int = -1, descending: bool = False) -> list[Any]:
    size = x.shape[axis] if x.shape else 1
    require(isinstance(size, int), "it puts the samples in order")
    return _order(to, x, size, axis, descending)


def _order(to: OnnxGraph, x: Any, k: int, axis: int, largest: bool) -> list[Any]:
    require(x.shape, "its input has no axes")
    return list(to.node_with(2, "TopK", x, [k], axis=axis % len(x.shape), largest=int(largest)))


def _position(kind: str) -> Converter:
    def convert(op: TorchOperator, to: OnnxGraph, x: Any, axis: int | None = None, keep: bool = False) -> OnnxValue:
        require(axis is not None, "it looks for one element among all samples")
        assert axis is not None
        return to.node(kind, x, axis=axis % max(1, len(x.shape)), keepdims=int(keep))

    return convert


operator("argmax")(_position("ArgMax"))
operator("argmin")(_position("ArgMin"))
