"""Operations that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import Refusal, require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.operators.convolution import pad_with_zeros
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last, identity
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.moving import cuts_of, padding_of, repeated_places, split_sizes
from cfi_translate.semantics.values import constant_of, shape_of, squeezed_axes, static, unsqueezed_axes

_ALONG = frozenset(
    ("Relu", "Sigmoid", "Tanh", "Identity", "Dropout", "Elu", "LeakyRelu", "Clip", "Gelu", "Swish", "HardSwish", "Cast")
)


@operator("Flatten", "Reshape")
def reshape(op: Operation, to: KerasBuilder, data: Value, shape: Value | None = None) -> Tensor:
    ends_in_products = _only_products(to, op.output)
    tensor = to.tensor_as_it_lies(data) if ends_in_products else to.tensor(data)
    if tensor.order is not None:
        tensor = to.tensor(data)
    return to.regroup(tensor, data, op.output, as_it_lies=ends_in_products)


def _only_products(to: KerasBuilder, value: Value) -> bool:
    """Whether all that is done with a flat value is multiplying it with constant matrices."""
    if value in to.program.outputs or value.rank != 2:
        return False
    users = to.users.get(value, [])
    return bool(users) and all(_is_product(to, one, value) for one in users)


def _is_product(to: KerasBuilder, user: Operation, value: Value) -> bool:
    if user.input(0) is not value:
        return False
    if user.kind in _ALONG:
        return _only_products(to, user.output)
    weight, bias = user.input(1), user.input(2)
    is_matrix = weight is not None and weight.is_constant and weight.rank == 2
    has_flat_bias = bias is None or (bias.is_constant and (bias.shape or (1,))[:-1] in ((), (1,)))
    if user.kind == "Gemm":
        return is_matrix and not user.attributes["transA"] and has_flat_bias
    return user.kind == "MatMul" and is_matrix


@operator("Transpose")
def transpose(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    tensor = to.tensor(data)
    return tensor.transpose(op.attributes.get("perm") or tuple(range(tensor.rank))[::-1])


@operator("Squeeze")
def squeeze(op: Operation, to: KerasBuilder, data: Value, axes: Value | None = None) -> Tensor:
    tensor, gone = to.tensor(data), squeezed_axes(op, data, axes)
    shape = [size for size, axis in zip(tensor.value.shape, tensor.axes, strict=True) if axis not in gone]
    return Tensor(to.reshape(tensor.value, shape), tensor.without(gone))


@operator("Unsqueeze")
def unsqueeze(op: Operation, to: KerasBuilder, data: Value, axes: Value | None = None) -> Tensor:
    tensor, new = to.tensor(data), unsqueezed_axes(op, data, axes)
    old = [axis for axis in range(tensor.rank + len(new)) if axis not in new]
    order = [old[axis] for axis in tensor.axes]
    sizes = dict(zip(order, tensor.value.shape, strict=True))
    for axis in new:
        order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return Tensor(to.reshape(tensor.value, [sizes.get(axis, 1) for axis in order]), tuple(order))


@operator("Concat")
def concatenation(op: Operation, to: KerasBuilder, *values: Value) -> Tensor:
    tensors = [to.tensor(value) for value in values]
    axes = max(tensors, key=lambda one: (one.axes != identity(one.rank), one.rank)).axes
    rank = len(axes)
    place = axes.index(op.attributes["axis"] % rank)
    laid = [to.lay(one, axes) for one in tensors]
    if len(laid) == 1:
        return Tensor(laid[0], axes)
    if tensors[0].is_float and place and rank > 1:
        return Tensor(to.layer(layers.Concatenate, laid, axis=place - rank), axes)
    return Tensor(ops.concatenate(laid, axis=place), axes)


@operator("Slice")
def cut_out(op: Operation, to: KerasBuilder, data: Value, *given: Value | None) -> Tensor:
    tensor = to.tensor(data)
    parts: list[Any] = [slice(None)] * tensor.rank
    for axis, start, end, step in cuts_of(op, data, *given):
        size = tensor.sizes[axis]
        if size is None:
            is_whole = (start, step) == (0, 1) and (end is None or end >= 2**31 - 1)
            require(is_whole, "it selects samples")
            continue
        if start is None or end is None:
            raise Refusal("it depends on the number of samples")
        first, last, step = slice(start, end, step).indices(size)
        if (first, last, step) != (0, size, 1):
            parts[tensor.position(axis)] = slice(first, last if last >= 0 else None, step)
    if all(one == slice(None) for one in parts):
        return tensor
    cropped = _crop(to, tensor, parts)
    return Tensor(tensor.value[tuple(parts)] if cropped is None else cropped, tensor.axes)


def _crop(to: KerasBuilder, tensor: Tensor, parts: Sequence[slice]) -> Any:
    """What a slice of rows, columns or steps of a sequence is as a layer; None for any other slice."""
    if not 3 <= tensor.rank <= 5 or not tensor.is_float or parts[0] != slice(None) or parts[-1] != slice(None):
        return None
    if None in tensor.value.shape[1:]:  # the samples are not first
        return None
    cropping = []
    for part, size in zip(parts[1:-1], tensor.value.shape[1:-1], strict=True):
        first, last, step = part.indices(size)
        if step != 1 or first >= last:
            return None
        cropping.append((first, size - last))
    if len(cropping) == 1:
        return to.layer(layers.Cropping1D, tensor.value, cropping[0])
    layer = layers.Cropping2D if len(cropping) == 2 else layers.Cropping3D
    return to.layer(layer, tensor.value, tuple(cropping), data_format="channels_last")


@operator("Split")
def split(op: Operation, to: KerasBuilder, data: Value, sizes: Value | None = None) -> list[Tensor]:
    tensor, counts = to.tensor(data), split_sizes(op)
    if len(counts) == 1:
        return [tensor]
    ends = np.cumsum(counts)[:-1].tolist()
    parts = ops.split(tensor.value, ends, axis=tensor.position(op.attributes["axis"]))
    return [Tensor(one, tensor.axes) for one in parts]


@operator("Expand")
def expand(op: Operation, to: KerasBuilder, data: Value, shape: Value) -> Tensor:
    tensor, target = to.tensor(data), shape_of(op.output)
    missing = len(target) - tensor.rank
    axes = (*range(missing), *(axis + missing for axis in tensor.axes))
    made = to.reshape(tensor.value, [*(1,) * missing, *tensor.value.shape], ".reshape")
    repeats = []
    for axis, size in zip(axes, made.shape, strict=True):
        wanted = target[axis]
        require(wanted is not None or size is None, "it repeats something as often as there are samples")
        repeats.append(1 if wanted == size else wanted)
    return Tensor(made if all(one == 1 for one in repeats) else ops.tile(made, repeats), axes)


@operator("Tile")
def tile(op: Operation, to: KerasBuilder, data: Value, repeats: Value, _: Value | None = None) -> Tensor:
    tensor, counts = to.tensor(data), constant_of(repeats, "number of repetitions").reshape(-1).tolist()
    require(len(counts) == tensor.rank, "there is not a number of repetitions for each axis")
    return Tensor(ops.tile(tensor.value, [counts[axis] for axis in tensor.axes]), tensor.axes)


@operator("Pad")
def pad(op: Operation, to: KerasBuilder, data: Value, *given: Value | None) -> Tensor:
    tensor, padding = to.tensor(data), padding_of(op, data, *given)
    around = [(padding.begin[axis], padding.end[axis]) for axis in tensor.axes]
    if not any(map(any, around)):
        return tensor
    require(around[0] == (0, 0) or tensor.value.shape[0] is not None, "it adds samples")
    if padding.mode == "constant":
        return Tensor(_pad_with_number(to, tensor, around, padding.fill), tensor.axes)
    value = tensor.value
    for place, (begin, end) in enumerate(around):
        if begin or end:
            (size,) = static(value.shape[place : place + 1])
            value = ops.take(value, repeated_places(size, begin, end, padding.mode), axis=place)
    return Tensor(value, tensor.axes)


def _pad_with_number(to: KerasBuilder, tensor: Tensor, around: Sequence[tuple[int, int]], number: Any) -> Any:
    value, rank = tensor.value, tensor.rank
    is_image = 3 <= rank <= 5 and tensor.axes == channels_last(rank) and tensor.is_float
    if is_image and number == 0 and around[0] == around[-1] == (0, 0):
        return pad_with_zeros(to, value, around[1:-1], "")
    require(tensor.dtype != "bool", "padding truth values is not supported")
    if any(one < 0 for pair in around for one in pair):
        value = value[tuple(slice(max(-begin, 0), None if end >= 0 else end) for begin, end in around)]
    pairs = [(max(begin, 0), max(end, 0)) for begin, end in around]
    return ops.pad(value, pairs, mode="constant", constant_values=number)


@operator("DepthToSpace")
def depth_to_space(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    """Channels to space: each block of channels becomes a block of pixels."""
    tensor, block = to.tensor(data), op.attributes["blocksize"]
    require(tensor.rank == 4, "only images are supported")
    depth = static(tensor.sizes[1:2])[0] // block**2
    if op.attributes.get("mode", "DCR") == "DCR":
        parts = to.split_axis(tensor, 1, (block, block, depth)).transpose((0, 3, 4, 1, 5, 2))
    else:
        parts = to.split_axis(tensor, 1, (depth, block, block)).transpose((0, 1, 4, 2, 5, 3))
    return to.merge_axes(to.merge_axes(parts, 2, 2), 3, 2, "")


@operator("SpaceToDepth")
def space_to_depth(op: Operation, to: KerasBuilder, data: Value) -> Tensor:
    tensor, block = to.tensor(data), op.attributes["blocksize"]
    require(tensor.rank == 4, "only images are supported")
    _, height, width = static(tensor.sizes[1:])
    parts = to.split_axis(tensor, 3, (width // block, block))
    parts = to.split_axis(parts, 2, (height // block, block)).transpose((0, 3, 5, 1, 2, 4))
    return to.merge_axes(parts, 1, 3, "")
