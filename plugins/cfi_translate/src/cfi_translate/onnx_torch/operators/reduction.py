"""Sums, means and extremes over axes, and running ones."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, torch_type
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of, reduced_axes, shape_of, static


@operator("ReduceMax", "ReduceMin")
def extremum(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    where, keep = reduced_axes(op, axes, rank_of(data)), bool(op.attributes["keepdims"])
    if not where:
        return to.tensor(data)
    if 0 in [shape_of(data)[axis] for axis in where]:
        return to.function(torch.full, tuple(to.sizes(op.output)), _neutral(op), dtype=torch_type(op.output))
    return to.function(torch.amax if op.kind == "ReduceMax" else torch.amin, data, dim=where, keepdim=keep)


def _neutral(op: Operation) -> float | int | bool:
    """The neutral element of a maximum or minimum."""
    is_lowest = op.kind == "ReduceMax"
    if op.output.dtype == np.bool_:
        return not is_lowest
    if op.output.is_float:
        return float("-inf") if is_lowest else float("inf")
    limits = torch.iinfo(torch_type(op.output))
    return limits.min if is_lowest else limits.max


@operator("ReduceMean")
def mean(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    where, keep = reduced_axes(op, axes, rank_of(data)), bool(op.attributes["keepdims"])
    if not where:
        return to.tensor(data)
    if data.is_float:
        return to.function(torch.mean, data, dim=where, keepdim=keep)
    number = prod(static([shape_of(data)[axis] for axis in where]))
    total = to.function(torch.sum, data, dim=where, keepdim=keep)
    return to.cast(to.function(torch.div, total, number, rounding_mode="trunc"), torch_type(op.output))


@operator("ReduceProd")
def product(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    where, result = reduced_axes(op, axes, rank_of(data)), to.tensor(data)
    # torch multiplies along one axis at a time.
    for axis in reversed(where):
        result = to.function(torch.prod, result, dim=axis, keepdim=bool(op.attributes["keepdims"]))
    return result if data.is_float or not where else to.cast(result, torch_type(op.output))


@operator("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare")
def sums(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    where, keep = reduced_axes(op, axes, rank_of(data)), bool(op.attributes["keepdims"])
    require(op.kind != "ReduceLogSum" or data.is_float, "the logarithm of integers is not supported")
    summands = to.tensor(data)
    if op.kind == "ReduceL1":
        summands = to.function(torch.abs, data)
    elif op.kind in ("ReduceL2", "ReduceSumSquare"):
        summands = to.function(torch.mul, data, data)
    options = {} if data.is_float else {"dtype": torch_type(op.output)}
    total = to.function(torch.sum, summands, dim=where, keepdim=keep, **options) if where else summands
    if op.kind == "ReduceLogSum":
        return to.function(torch.log, total)
    if op.kind != "ReduceL2":
        return total
    if data.is_float:
        return to.function(torch.sqrt, total)
    return to.cast(to.function(torch.sqrt, to.cast(total, torch.float64)), torch_type(op.output))


@operator("ReduceLogSumExp")
def log_sum_exp(op: Operation, to: TorchBuilder, data: Value, axes: Value | None = None) -> fx.Node:
    require(data.is_float, "the logarithm of integers is not supported")
    where = reduced_axes(op, axes, rank_of(data))
    keep = bool(op.attributes["keepdims"])
    return to.function(torch.logsumexp, data, dim=where, keepdim=keep) if where else to.tensor(data)


@operator("CumSum", "CumProd")
def accumulation(op: Operation, to: TorchBuilder, data: Value, axis: Value) -> fx.Node:
    rank = rank_of(data)
    place = int(constant_of(axis, "axis").reshape(())) % rank
    backwards = bool(op.attributes["reverse"])
    source: Any = to.function(torch.flip, data, (place,)) if backwards else data
    function, neutral = (torch.cumsum, 0) if op.kind == "CumSum" else (torch.cumprod, 1)
    result = to.function(function, source, dim=place, dtype=torch_type(op.output))
    if op.attributes["exclusive"]:
        # Moved by one, the first is the sum (or product) of nothing.
        around = (*(0, 0) * (rank - 1 - place), 1, 0)
        moved = to.function(torch.nn.functional.pad, result, around, "constant", neutral)
        size = shape_of(data)[place]
        result = to.function(torch.narrow, moved, place, 0, to.method("size", data, place) if size is None else size)
    return to.function(torch.flip, result, (place,)) if backwards else result
