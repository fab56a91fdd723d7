"""Reductions over axes, and running ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.operators.elementwise import require_kinds
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of, reduced_axes

_Function = Callable[..., Any]


def _sum_of(inner: _Function, outer: _Function = lambda x: x) -> _Function:
    """A sum of something, and something of it."""
    return lambda tensor, axis, keepdims: outer(ops.sum(inner(tensor), axis=axis, keepdims=keepdims))


def _root(x: Any) -> Any:
    """The square root with a slope of zero at zero, as torch's norms have."""
    is_positive = ops.greater(x, np.zeros((), str(x.dtype)))
    return ops.where(is_positive, ops.sqrt(ops.where(is_positive, x, np.ones((), str(x.dtype)))), x)


# Functions, and the kinds of numbers (as in numpy) for which they come out right.
_REDUCTIONS: Mapping[str, tuple[_Function, str]] = {
    "ReduceL1": (_sum_of(ops.absolute), "fi"),
    "ReduceL2": (_sum_of(ops.square, _root), "f"),
    "ReduceLogSum": (_sum_of(lambda x: x, ops.log), "f"),
    "ReduceLogSumExp": (ops.logsumexp, "f"),
    "ReduceMax": (ops.max, "fiu"),
    "ReduceMean": (ops.mean, "f"),
    "ReduceMin": (ops.min, "fiu"),
    "ReduceProd": (ops.prod, "fiu"),
    "ReduceSum": (ops.sum, "fiu"),
    "ReduceSumSquare": (_sum_of(ops.square), "fiu"),
}
_OF_TRUTHS: Mapping[str, _Function] = {"ReduceMax": ops.any, "ReduceMin": ops.all}
_NOTHING_TO_DO = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


@operator(*_REDUCTIONS)
def reduction(op: Operation, to: KerasBuilder, data: Value, axes: Value | None = None) -> Tensor:
    function, kinds = _REDUCTIONS[op.kind]
    is_truth = data.dtype == np.bool_ and op.kind in _OF_TRUTHS
    require_kinds("b" if is_truth else kinds, data)
    tensor, where = to.tensor(data), reduced_axes(op, axes, rank_of(data))
    if not where:
        require(op.kind in _NOTHING_TO_DO or not tensor.rank, "reducing nothing is not supported")
    if not where and op.attributes.get("noop_with_empty_axes"):
        return tensor
    require(0 not in tensor.sizes, "reducing an empty tensor is not supported")
    keepdims = bool(op.attributes["keepdims"])
    function = _OF_TRUTHS[op.kind] if is_truth else function
    made = function(tensor.value, axis=tensor.positions(where), keepdims=keepdims)
    if str(made.dtype) != tensor.dtype and np.dtype(tensor.dtype).kind in "iu":
        made = ops.cast(made, tensor.dtype)
    return Tensor(made, tensor.axes if keepdims else tensor.without(where))


@operator("ArgMax", "ArgMin")
def extreme_place(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    require_kinds("fi", data)
    tensor, axis = to.tensor(data), op.attributes["axis"] % rank_of(data)
    place, size, keepdims = tensor.position(axis), tensor.sizes[axis], bool(op.attributes["keepdims"])
    last = op.attributes.get("select_last_index")
    value = ops.flip(tensor.value, axis=place) if last else tensor.value
    function = ops.argmax if op.kind == "ArgMax" else ops.argmin
    made = ops.cast(function(value, axis=place, keepdims=keepdims), "int64")
    if last:
        require(size is not None, "the last index among samples is not supported")
        made = ops.subtract(np.asarray((size or 0) - 1, np.int64), made)
    return Tensor(made, tensor.axes if keepdims else tensor.without([axis]))


@operator("CumSum", "CumProd")
def accumulation(op: Operation, to: KerasBuilder, data: Value, axis: Value) -> Tensor:
    require_kinds("fi", data)
    tensor = to.tensor(data)
    where = int(constant_of(axis, "axis").reshape(())) % tensor.rank
    place, size, value = tensor.position(where), tensor.sizes[where], tensor.value
    function, empty = (ops.cumsum, 0) if op.kind == "CumSum" else (ops.cumprod, 1)
    if op.attributes["reverse"]:
        value = ops.flip(value, axis=place)
    if op.attributes["exclusive"]:
        require(size is not None, "adding up all samples but the own is not supported")
        around = [(1, 0) if one == place else (0, 0) for one in range(tensor.rank)]
        value = ops.pad(value, around, mode="constant", constant_values=empty)
        value = value[tuple(slice(0, size) if one == place else slice(None) for one in range(tensor.rank))]
    made = function(value, axis=place)
    return Tensor(ops.flip(made, axis=place) if op.attributes["reverse"] else made, tensor.axes)
