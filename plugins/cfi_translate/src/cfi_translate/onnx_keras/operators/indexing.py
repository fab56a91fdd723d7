"""Picking elements by index, or by size."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import Refusal, require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.operators.elementwise import require_kinds
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, identity
from cfi_translate.onnx_keras.weights import call_with
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of, shape_of, static, wrap_indices


def _wrap(to: KerasBuilder, indices: Value, size: int | np.ndarray) -> Any:
    """Indices counted from the front; negative ones count from the end.

    Args:
        to: What is being built.
        indices: The indices.
        size: Of the axis, or of one axis for each position along the last axis of the indices.
    """
    if indices.constant is not None:
        return wrap_indices(indices.constant, size)
    return _wrap_computed(to.plain(indices), size)


def _wrap_computed(chosen: Any, size: int | np.ndarray) -> Any:
    zero, extent = (np.asarray(one, str(chosen.dtype)) for one in (0, size))
    return ops.where(ops.less(chosen, zero), ops.add(chosen, extent), chosen)


@operator("Gather")
def gather(op: Operation, to: KerasBuilder, data: Value, indices: Value) -> Tensor:
    axis = op.attributes["axis"] % rank_of(data)
    wanted, table = indices.constant, data.constant
    if table is not None and wanted is None:
        return _look_up(to, table, indices, axis)
    tensor, rank = to.tensor(data), rank_of(data) + rank_of(indices) - 1
    if wanted is None:
        return Tensor(ops.take(to.plain(data), to.plain(indices), axis=axis), identity(rank))
    place, size = tensor.position(axis), tensor.sizes[axis]
    if size is None:
        require(wanted.ndim > 1, "it picks samples")
        return Tensor(ops.take(to.plain(data), wanted, axis=axis), identity(rank))
    chosen = wrap_indices(wanted, size)
    if chosen.ndim == 0:
        parts = tuple(int(chosen) if one == place else slice(None) for one in range(tensor.rank))
        return Tensor(tensor.value[parts], tensor.without([axis]))
    if chosen.ndim == 1:
        return Tensor(ops.take(tensor.value, chosen, axis=place), tensor.axes)
    return Tensor(ops.take(to.plain(data), chosen, axis=axis), identity(rank))


def _look_up(to: KerasBuilder, table: np.ndarray, indices: Value, axis: int) -> Tensor:
    """Rows of a constant."""
    chosen = to.plain(indices)
    rank = len(chosen.shape) + table.ndim - 1
    if axis == 0 and table.ndim == 2 and table.dtype.kind == "f" and chosen.shape:
        layer = layers.Embedding(*table.shape, dtype=str(table.dtype), name=to.name())
        return Tensor(call_with(layer, chosen, lambda: table, what="embeddings"), identity(rank))
    return Tensor(ops.take(table, chosen, axis=axis), identity(rank))


@operator("GatherElements")
def gather_elements(op: Operation, to: KerasBuilder, data: Value, indices: Value) -> Tensor:
    axis = op.attributes["axis"] % rank_of(data)
    pairs = zip(shape_of(data), shape_of(indices), strict=True)
    covered = all(a == b for one, (a, b) in enumerate(pairs) if one != axis)
    require(covered, "indices that cover a part of the other axes are not supported")
    chosen = _wrap(to, indices, static(shape_of(data)[axis : axis + 1])[0])
    return Tensor(ops.take_along_axis(to.plain(data), chosen, axis=axis), identity(rank_of(data)))


@operator("GatherND")
def gather_nd(op: Operation, to: KerasBuilder, data: Value, indices: Value) -> Tensor:
    require(not op.attributes.get("batch_dims"), "indices for each sample are not supported")
    wanted = constant_of(indices, "list of indices")
    depth = wanted.shape[-1]
    counts = static(shape_of(data)[:depth])
    chosen = [wrap_indices(one, size) for one, size in zip(np.moveaxis(wanted, -1, 0), counts, strict=True)]
    value = to.plain(data)
    rows = to.reshape(value, [int(np.prod(counts)), *value.shape[depth:]], ".flat")
    made = ops.take(rows, np.ravel_multi_index(tuple(chosen), counts), axis=0)
    return Tensor(made, identity(wanted.ndim - 1 + rank_of(data) - depth))


@operator("ScatterND")
def scatter_nd(op: Operation, to: KerasBuilder, data: Value, indices: Value, updates: Value) -> Tensor:
    reduction = op.attributes.get("reduction", "none")
    require(reduction in ("none", "add"), f"the reduction {reduction} is not supported")
    depth = static(shape_of(indices)[-1:])[0]
    chosen = _wrap(to, indices, np.array(static(shape_of(data)[:depth])))
    summed = None if reduction == "none" else reduction
    made = ops.scatter_update(to.plain(data), chosen, to.plain(updates), reduction=summed)
    return Tensor(made, identity(rank_of(data)))


@operator("TopK")
def largest(op: Operation, to: KerasBuilder, data: Value, count: Value | None = None) -> list[Tensor]:
    require_kinds("f", data)
    number = op.attributes["k"] if count is None else int(constant_of(count, "number").reshape(()))
    tensor, axis = to.tensor(data), op.attributes["axis"] % rank_of(data)
    axes = (*(one for one in tensor.axes if one != axis), axis)
    value, is_largest = to.lay(tensor, axes), op.attributes.get("largest", 1)
    values, places = ops.top_k(value if is_largest else ops.negative(value), number, sorted=True)
    values = values if is_largest else ops.negative(values)
    return [Tensor(to.give_name(values), axes), Tensor(ops.cast(places, "int64"), axes)]


@operator("OneHot")
def one_hot(op: Operation, to: KerasBuilder, indices: Value, depth: Value, values: Value) -> Tensor:
    size = int(constant_of(depth, "depth").reshape(()))
    off, on = constant_of(values, "pair of values").reshape(-1)
    require("int" in str(indices.dtype), "only integers are supported as indices")
    rank = rank_of(indices) + 1
    axis = op.attributes["axis"] % rank
    chosen = _wrap_computed(to.plain(indices), size)
    made = ops.where(ops.one_hot(chosen, size, axis=-1, dtype="bool"), on, off)
    return Tensor(made, (*(one for one in range(rank) if one != axis), axis))


@operator("Range")
def line(op: Operation, to: KerasBuilder, *bounds: Value) -> Tensor:
    # Listed here so that it is not replaced by its definition, a loop, before its bounds are known.
    raise Refusal("only constant bounds are supported")


@operator("Trilu")
def matrix_triangle(op: Operation, to: KerasBuilder, data: Value, diagonal: Value | None = None) -> Tensor:
    rows, columns = static(shape_of(data)[-2:])
    offset = 0 if diagonal is None else int(constant_of(diagonal, "diagonal").reshape(()))
    # Not `keras.ops.triu`, which refuses offsets beyond the matrix.
    is_upper = bool(op.attributes["upper"])
    kept = np.tri(rows, columns, offset - is_upper, dtype=bool) != is_upper
    made = ops.where(kept, to.plain(data), np.zeros((), str(data.dtype)))
    return Tensor(made, identity(rank_of(data)))
