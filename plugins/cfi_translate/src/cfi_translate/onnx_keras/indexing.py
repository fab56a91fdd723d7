"""Picking elements by index, or by size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.reductions import without_axes
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, identity
from cfi_translate.onnx_keras.weights import made_with
from cfi_translate.program import Operation


def _gather(builder: Builder, operation: Operation) -> Tensor:
    data, indices = operation.inputs[0], operation.inputs[1]
    if data is None or indices is None or data.rank is None or indices.rank is None:
        raise Unsupported("its operands are not known")
    axis = operation.attributes.get("axis", 0) % data.rank
    name = operation.name
    wanted = indices.constant
    if data.constant is not None and wanted is None:
        return _looked_up(builder, operation, data.constant, axis)
    tensor = builder.tensor(data)
    if wanted is not None and wanted.ndim <= 1:
        place, size = tensor.position(axis), tensor.sizes[axis]
        if size is None:
            raise Unsupported("it picks samples")
        wanted = np.where(wanted < 0, wanted + size, wanted)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= size):
            raise Unsupported("an index lies outside")
        if wanted.ndim == 0:
            parts = tuple(int(wanted) if one == place else slice(None) for one in range(tensor.rank))
            return Tensor(builder.named(tensor.value[parts], name), without_axes(tensor, [axis]))
        return Tensor(builder.named(ops.take(tensor.value, wanted, axis=place), name), tensor.axes)
    value = builder.laid(tensor, identity(tensor.rank), name)
    size = tensor.sizes[axis]
    if wanted is not None and size is not None:
        chosen = np.where(wanted < 0, wanted + size, wanted)
    else:
        chosen = builder.plain(indices, name)
    made = ops.take(value, chosen, axis=axis)
    return Tensor(builder.named(made, name), identity(data.rank + indices.rank - 1))


def _looked_up(builder: Builder, operation: Operation, table: np.ndarray, axis: int) -> Tensor:
    """Rows of a constant."""
    indices = builder.plain(operation.input(1), operation.name)
    rank = len(indices.shape) + table.ndim - 1
    if axis == 0 and table.ndim == 2 and table.dtype.kind == "f" and indices.shape:
        layer = layers.Embedding(*table.shape, dtype=str(table.dtype), name=builder.name(operation.name))
        return Tensor(made_with(layer, indices, lambda: table, what="embeddings"), identity(rank))
    made = ops.take(table, indices, axis=axis)
    return Tensor(builder.named(made, operation.name), identity(rank))


def _gather_elements(builder: Builder, operation: Operation) -> Tensor:
    data, indices = operation.inputs[0], operation.inputs[1]
    if data is None or indices is None or data.shape is None or indices.shape is None:
        raise Unsupported("its operands are not known")
    axis = operation.attributes.get("axis", 0) % len(data.shape)
    if any(a != b for i, (a, b) in enumerate(zip(data.shape, indices.shape, strict=True)) if i != axis):
        raise Unsupported("indices that cover a part of the other axes are not supported")
    size = data.shape[axis]
    wanted = indices.constant
    if size is None:
        raise Unsupported("it picks samples")
    value = builder.plain(data, operation.name)
    if wanted is not None:
        chosen = np.where(wanted < 0, wanted + size, wanted)
    else:
        chosen = builder.plain(indices, operation.name)
        zero, extent = (np.asarray(one, str(chosen.dtype)) for one in (0, size))
        chosen = ops.where(ops.less(chosen, zero), ops.add(chosen, extent), chosen)
    made = ops.take_along_axis(value, chosen, axis=axis)
    return Tensor(builder.named(made, operation.name), identity(len(data.shape)))


def _gather_nd(builder: Builder, operation: Operation) -> Tensor:
    data = operation.inputs[0]
    indices = builder.array(operation.input(1), "list of indices")
    if data is None or data.shape is None or operation.attributes.get("batch_dims", 0):
        raise Unsupported("indices for each sample are not supported")
    depth = indices.shape[-1]
    counts = [size for size in data.shape[:depth] if size is not None]
    if len(counts) < depth:
        raise Unsupported("it picks samples")
    wanted = np.where(indices < 0, indices + counts, indices)
    if (wanted < 0).any() or (wanted >= counts).any():
        raise Unsupported("an index lies outside")
    flat = np.ravel_multi_index(tuple(np.moveaxis(wanted, -1, 0)), counts)
    value = builder.plain(data, operation.name)
    shape = [int(np.prod(counts)), *value.shape[depth:]]
    made = ops.take(builder.reshape(value, shape, f"{operation.name}.flat"), flat, axis=0)
    return Tensor(builder.named(made, operation.name), identity(indices.ndim - 1 + len(data.shape) - depth))


def _top_k(builder: Builder, operation: Operation) -> Sequence[Tensor | None]:
    tensor = builder.tensor(operation.input(0))
    if np.dtype(tensor.dtype).kind not in "f":
        raise Unsupported(f"it is not supported for {tensor.dtype}")
    if operation.version < 10:
        count = operation.attributes["k"]
    else:
        count = int(builder.array(operation.input(1), "number").reshape(()))
    axis = operation.attributes.get("axis", -1) % tensor.rank
    axes = (*(one for one in tensor.axes if one != axis), axis)
    value = builder.laid(tensor, axes, operation.name)
    largest = operation.attributes.get("largest", 1)
    values, places = ops.top_k(value if largest else ops.negative(value), count, sorted=True)
    if not largest:
        values = ops.negative(values)
    builder.named(values, operation.name)
    return [Tensor(values, axes), Tensor(ops.cast(places, "int64"), axes)]


def _one_hot(builder: Builder, operation: Operation) -> Tensor:
    depth = int(builder.array(operation.input(1), "depth").reshape(()))
    off, on = builder.array(operation.input(2), "pair of values").reshape(-1)
    indices = builder.plain(operation.input(0), operation.name)
    if "int" not in str(indices.dtype):
        raise Unsupported("only integers are supported as indices")
    zero, extent = (np.asarray(one, str(indices.dtype)) for one in (0, depth))
    indices = ops.where(ops.less(indices, zero), ops.add(indices, extent), indices)
    rank = len(indices.shape) + 1
    axis = operation.attributes.get("axis", -1) % rank
    made = ops.where(ops.one_hot(indices, depth, axis=-1, dtype="bool"), on, off)
    axes = (*(one for one in range(rank) if one != axis), axis)
    return Tensor(builder.named(made, operation.name), axes)


def _range(builder: Builder, operation: Operation) -> Tensor:
    # Listed here so that it is not replaced by its definition, a loop, before its bounds are known.
    raise Unsupported("only constant bounds are supported")


OPERATORS: dict[str, Handler] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Range": _range,
    "TopK": _top_k,
}
