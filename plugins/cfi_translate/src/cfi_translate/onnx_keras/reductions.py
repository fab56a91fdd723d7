"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from cfi_translate.onnx_keras.building import Builder, Built, Handler
from cfi_translate.onnx_keras.pooling import global_pooled
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last
from cfi_translate.program import Operation

_Function = Callable[..., Any]


def without_axes(tensor: Tensor, gone: Sequence[int]) -> tuple[int, ...]:
    """The order of the axes that are left."""
    left = [axis for axis in range(tensor.rank) if axis not in gone]
    return tuple(left.index(axis) for axis in tensor.axes if axis not in gone)


def _axes(builder: Builder, operation: Operation, rank: int) -> list[int] | None:
    """The axes to reduce, in order; None for no reduction."""
    given = operation.attributes.get("axes")
    if operation.input(1) is not None:
        given = builder.array(operation.input(1), "list of axes").reshape(-1).tolist()
    if not given:
        return None if operation.attributes.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis % rank for axis in given})


def _reduction(function: _Function, kinds: str = "f", before: _Function | None = None) -> Handler:
    """Handler of a reduction.

    Args:
        function: Of a tensor and the keywords `axis` and `keepdims`.
        kinds: Of the types for which it comes out right.
        before: Is applied to each element also where nothing is reduced.
    """

    def build(builder: Builder, operation: Operation) -> Tensor:
        tensor = builder.tensor(operation.input(0))
        if np.dtype(tensor.dtype).kind not in kinds:
            raise Unsupported(f"it is not supported for {tensor.dtype}")
        axes = _axes(builder, operation, tensor.rank)
        if axes is None:
            if before is None and operation.kind not in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
                raise Unsupported("reducing nothing is not supported")
            return tensor
        if 0 in tensor.sizes:
            raise Unsupported("reducing an empty tensor is not supported")
        keepdims = bool(operation.attributes.get("keepdims", 1))
        if operation.kind == "ReduceMean" and _is_global_pooling(tensor, axes):
            return global_pooled(builder, tensor, operation.name, average=True, keepdims=keepdims)
        made = function(tensor.value, axis=tensor.positions(axes), keepdims=keepdims)
        if str(made.dtype) != tensor.dtype and np.dtype(tensor.dtype).kind in "iu":
            made = ops.cast(made, tensor.dtype)
        builder.named(made, operation.name)
        return Tensor(made, tensor.axes if keepdims else without_axes(tensor, axes))

    return build


def _is_global_pooling(tensor: Tensor, axes: Sequence[int]) -> bool:
    rank = tensor.rank
    return 4 <= rank <= 5 and tensor.axes == channels_last(rank) and list(axes) == list(range(2, rank))


def _extremum(number: _Function, truth: _Function) -> Handler:
    numbers, truths = _reduction(number, "fiu"), _reduction(truth, "b")

    def build(builder: Builder, operation: Operation) -> Built:
        is_bool = builder.tensor(operation.input(0)).dtype == "bool"
        return (truths if is_bool else numbers)(builder, operation)

    return build


def _of(inner: _Function, outer: _Function = lambda x: x) -> _Function:
    """A sum of something, and something of it."""

    def reduced(tensor: Any, axis: Any, keepdims: bool) -> Any:
        return outer(ops.sum(inner(tensor), axis=axis, keepdims=keepdims))

    return reduced


def _arg(function: _Function) -> Handler:
    def build(builder: Builder, operation: Operation) -> Tensor:
        tensor = builder.tensor(operation.input(0))
        if np.dtype(tensor.dtype).kind not in "fi":
            raise Unsupported(f"it is not supported for {tensor.dtype}")
        axis = operation.attributes.get("axis", 0) % tensor.rank
        place = tensor.position(axis)
        value = tensor.value
        last = operation.attributes.get("select_last_index", 0)
        if last:
            value = ops.flip(value, axis=place)
        keepdims = bool(operation.attributes.get("keepdims", 1))
        made = ops.cast(function(value, axis=place, keepdims=keepdims), "int64")
        if last:
            size = tensor.sizes[axis]
            if size is None:
                raise Unsupported("the last index among samples is not supported")
            made = ops.subtract(np.asarray(size - 1, np.int64), made)
        builder.named(made, operation.name)
        return Tensor(made, tensor.axes if keepdims else without_axes(tensor, [axis]))

    return build


def _accumulation(function: _Function, empty: int) -> Handler:
    def build(builder: Builder, operation: Operation) -> Tensor:
        tensor = builder.tensor(operation.input(0))
        if np.dtype(tensor.dtype).kind not in "fi":
            raise Unsupported(f"it is not supported for {tensor.dtype}")
        axis = int(builder.array(operation.input(1), "axis").reshape(())) % tensor.rank
        place, size = tensor.position(axis), tensor.sizes[axis]
        exclusive, reverse = operation.attributes.get("exclusive", 0), operation.attributes.get("reverse", 0)
        value = tensor.value
        if reverse:
            value = ops.flip(value, axis=place)
        if exclusive:
            if size is None:
                raise Unsupported("adding up all samples but the own is not supported")
            around = [(0, 0)] * tensor.rank
            around[place] = (1, 0)
            value = ops.pad(value, around, mode="constant", constant_values=empty)
            value = value[tuple(slice(0, size) if one == place else slice(None) for one in range(tensor.rank))]
        made = function(value, axis=place)
        if reverse:
            made = ops.flip(made, axis=place)
        return Tensor(builder.named(made, operation.name), tensor.axes)

    return build


OPERATORS: dict[str, Handler] = {
    "ArgMax": _arg(ops.argmax),
    "ArgMin": _arg(ops.argmin),
    "CumSum": _accumulation(ops.cumsum, 0),
    "CumProd": _accumulation(ops.cumprod, 1),
    "ReduceL1": _reduction(_of(ops.absolute), "fi"),
    "ReduceL2": _reduction(_of(ops.square, ops.sqrt)),
    "ReduceLogSum": _reduction(_of(lambda x: x, ops.log)),
    "ReduceLogSumExp": _reduction(ops.logsumexp),
    "ReduceMax": _extremum(ops.max, ops.any),
    "ReduceMean": _reduction(ops.mean),
    "ReduceMin": _extremum(ops.min, ops.all),
    "ReduceProd": _reduction(ops.prod, "fiu"),
    "ReduceSum": _reduction(ops.sum, "fiu"),
    "ReduceSumSquare": _reduction(_of(ops.square), "fiu"),
}
