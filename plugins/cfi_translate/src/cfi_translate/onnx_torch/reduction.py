"""Sums, means and extremes over axes, and running ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from cfi_translate.onnx_torch.reader import (
    Reader,
    count,
    fixed,
    is_float,
    operator,
    rank_of,
    refuse,
    shape_of,
    torch_type,
)
from cfi_translate.onnx_torch.shaping import axes_of
from cfi_translate.program import Operation


@operator(
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def _reduce(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    rank = rank_of(op, value)
    axes, keep, data = axes_of(op), bool(op.attributes["keepdims"]), to.tensor(value)
    axes = () if axes is None else tuple(sorted({axis % rank for axis in axes}))
    if not axes and not op.attributes.get("noop_with_empty_axes"):
        axes = tuple(range(rank))
    function = _REDUCERS[op.kind]
    if not axes:
        return function(to, op, data, (), keep)
    if op.kind in ("ReduceMax", "ReduceMin") and any(shape_of(op, value)[axis] == 0 for axis in axes):
        return to.function(torch.full, tuple(to.sizes(op.output)), _extreme(op), dtype=torch_type(op.output))
    return function(to, op, data, axes, keep)


def _extreme(op: Operation) -> float | int | bool:
    """The neutral element of a maximum or minimum."""
    lowest = op.kind == "ReduceMax"
    dtype = op.output.dtype
    if dtype == np.bool_:
        return not lowest
    if is_float(op.output):
        return float("-inf") if lowest else float("inf")
    limits = torch.iinfo(torch_type(op.output))
    return limits.min if lowest else limits.max


Axes = tuple[int, ...]


def _sum(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    if not axes:
        return data
    if is_float(op.output):
        return to.function(torch.sum, data, dim=axes, keepdim=keep)
    return to.function(torch.sum, data, dim=axes, keepdim=keep, dtype=torch_type(op.output))


def _mean(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    if not axes:
        return data
    if is_float(op.output):
        return to.function(torch.mean, data, dim=axes, keepdim=keep)
    number = count(fixed(op, [shape_of(op, op.input(0))[axis] for axis in axes]))
    total = to.function(torch.sum, data, dim=axes, keepdim=keep)
    return to.method("to", to.function(torch.div, total, number, rounding_mode="trunc"), torch_type(op.output))


def _prod(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    # torch multiplies along one axis at a time.
    for axis in reversed(axes):
        data = to.function(torch.prod, data, dim=axis, keepdim=keep)
    return data if is_float(op.output) or not axes else to.method("to", data, torch_type(op.output))


def _extremum(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    if not axes:
        return data
    return to.function(torch.amax if op.kind == "ReduceMax" else torch.amin, data, dim=axes, keepdim=keep)


def _l1(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    return _sum(to, op, to.function(torch.abs, data), axes, keep)


def _square_sum(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    return _sum(to, op, to.function(torch.mul, data, data), axes, keep)


def _l2(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    total = _square_sum(to, op, data, axes, keep)
    if is_float(op.output):
        return to.function(torch.sqrt, total)
    return to.method("to", to.function(torch.sqrt, to.method("to", total, torch.float64)), torch_type(op.output))


def _log_sum(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    _float_only(op)
    return to.function(torch.log, _sum(to, op, data, axes, keep))


def _log_sum_exp(to: Reader, op: Operation, data: fx.Node, axes: Axes, keep: bool) -> fx.Node:
    _float_only(op)
    return to.function(torch.logsumexp, data, dim=axes, keepdim=keep) if axes else data


def _float_only(op: Operation) -> None:
    if not is_float(op.output):
        raise refuse(op, "the logarithm of integers is not supported")


_REDUCERS = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extremum,
    "ReduceMean": _mean,
    "ReduceMin": _extremum,
    "ReduceProd": _prod,
    "ReduceSum": _sum,
    "ReduceSumSquare": _square_sum,
}


@operator("CumSum", "CumProd")
def _cumulative(op: Operation, to: Reader) -> fx.Node:
    place = op.input(1)
    known = None if place is None else place.constant
    if known is None:
        raise refuse(op, "its axis is computed while the model runs")
    rank = rank_of(op, op.input(0))
    axis = int(known.reshape(())) % rank
    data = to.tensor(op.input(0))
    backwards = bool(op.attributes.get("reverse"))
    if backwards:
        data = to.function(torch.flip, data, (axis,))
    function, neutral = (torch.cumsum, 0) if op.kind == "CumSum" else (torch.cumprod, 1)
    result = to.function(function, data, dim=axis, dtype=torch_type(op.output))
    if op.attributes.get("exclusive"):
        # Moved by one, the first is the sum (or product) of nothing.
        behind = (0, 0) * (rank - 1 - axis)
        moved = to.function(torch.nn.functional.pad, result, (*behind, 1, 0), "constant", neutral)
        size = shape_of(op, op.input(0))[axis]
        result = to.function(torch.narrow, moved, axis, 0, to.method("size", data, axis) if size is None else size)
    return to.function(torch.flip, result, (axis,)) if backwards else result
