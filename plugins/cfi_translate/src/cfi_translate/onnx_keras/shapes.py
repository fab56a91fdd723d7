"""Operations that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.convolutions import zero_padded
from cfi_translate.onnx_keras.reductions import without_axes
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last, identity
from cfi_translate.program import Operation, Value

_ALONG = frozenset(
    ("Relu", "Sigmoid", "Tanh", "Identity", "Dropout", "Elu", "LeakyRelu", "Clip", "Gelu", "Swish", "HardSwish", "Cast")
)


def _reshape(builder: Builder, operation: Operation) -> Tensor:
    value = operation.inputs[0]
    assert value is not None
    ends_in_products = _only_products(builder, operation.output)
    tensor = builder.scrambled(value) if ends_in_products else builder.tensor(value)
    if tensor.order is not None:
        tensor = builder.tensor(value)
    return builder.reshaped(tensor, value, operation.output, operation.name, as_it_lies=ends_in_products)


def _only_products(builder: Builder, value: Value) -> bool:
    """Whether all that is done with a flat value is multiplying it with constant matrices."""
    if value in builder.program.outputs or value.rank != 2:
        return False
    users = builder.users.get(value, [])
    return bool(users) and all(_is_product(builder, one, value) for one in users)


def _is_product(builder: Builder, user: Operation, value: Value) -> bool:
    if user.input(0) is not value:
        return False
    if user.kind in _ALONG:
        return _only_products(builder, user.output)
    weight = user.input(1)
    is_matrix = weight is not None and weight.is_constant and weight.rank == 2
    bias = user.input(2)
    flat_bias = bias is None or (bias.is_constant and (bias.shape or (1,))[:-1] in ((), (1,)))
    if user.kind == "Gemm":
        return is_matrix and not user.attributes.get("transA", 0) and flat_bias
    return user.kind == "MatMul" and is_matrix


def _transpose(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    permutation = operation.attributes.get("perm") or tuple(range(tensor.rank))[::-1]
    return tensor.transposed(permutation)


def _given_axes(builder: Builder, operation: Operation) -> list[int] | None:
    given = operation.attributes.get("axes")
    if operation.input(1) is not None:
        given = builder.array(operation.input(1), "list of axes").reshape(-1).tolist()
    return None if given is None else list(given)


def _squeeze(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    given = _given_axes(builder, operation)
    if given is None:
        given = [axis for axis, size in enumerate(tensor.sizes) if size == 1]
    gone = {axis % tensor.rank for axis in given}
    shape = [size for size, axis in zip(tensor.value.shape, tensor.axes, strict=True) if axis not in gone]
    made = builder.reshape(tensor.value, shape, operation.name)
    return Tensor(made, without_axes(tensor, sorted(gone)))


def _unsqueeze(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    given = _given_axes(builder, operation) or []
    rank = tensor.rank + len(given)
    new = sorted(axis % rank for axis in given)
    old = [axis for axis in range(rank) if axis not in new]
    axes = [old[axis] for axis in tensor.axes]
    sizes = dict(zip(axes, tensor.value.shape, strict=True))
    for axis in new:
        axes.insert(axes.index(axis - 1) + 1 if axis else 0, axis)
    made = builder.reshape(tensor.value, [sizes.get(axis, 1) for axis in axes], operation.name)
    return Tensor(made, tuple(axes))


def _concat(builder: Builder, operation: Operation) -> Tensor:
    values = [value for value in operation.inputs if value is not None]
    tensors = [builder.tensor(value) for value in values]
    axes = max(tensors, key=lambda one: (one.axes != identity(one.rank), one.rank)).axes
    rank = len(axes)
    place = axes.index(operation.attributes["axis"] % rank)
    laid = [builder.laid(one, axes, operation.name) for one in tensors]
    if len(laid) == 1:
        return Tensor(laid[0], axes)
    if tensors[0].is_float and place and rank > 1:
        layer = layers.Concatenate(axis=place - rank, dtype=tensors[0].dtype, name=builder.name(operation.name))
        return Tensor(layer(laid), axes)
    return Tensor(builder.named(ops.concatenate(laid, axis=place), operation.name), axes)


def _slice(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    if operation.version < 10:
        starts, ends = operation.attributes["starts"], operation.attributes["ends"]
        axes, steps = operation.attributes.get("axes"), None
    else:
        starts, ends = (_numbers(operation.input(one), "start or end") for one in (1, 2))
        axes = None if operation.input(3) is None else _numbers(operation.input(3), "axis")
        steps = None if operation.input(4) is None else _numbers(operation.input(4), "step")
    axes = range(len(starts)) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    parts: list[Any] = [slice(None)] * tensor.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis is None or step is None:
            raise Unsupported("it depends on the number of samples")
        size = tensor.sizes[axis % tensor.rank]
        if size is None:
            if start == 0 and step == 1 and (end is None or end >= 2**31 - 1):
                continue
            raise Unsupported("it selects samples")
        if start is None or end is None:
            raise Unsupported("it depends on the number of samples")
        first, last, step = slice(start, end, step).indices(size)
        if (first, last, step) != (0, size, 1):
            parts[tensor.position(axis)] = slice(first, last if last >= 0 else None, step)
    if all(one == slice(None) for one in parts):
        return tensor
    cropped = _cropped(builder, tensor, parts, operation.name)
    made = builder.named(tensor.value[tuple(parts)], operation.name) if cropped is None else cropped
    return Tensor(made, tensor.axes)


def _cropped(builder: Builder, tensor: Tensor, parts: Sequence[slice], name: str) -> Any:
    """What a slice of rows, columns or steps of a sequence is as a layer; None for any other slice."""
    if not 3 <= tensor.rank <= 5 or not tensor.is_float or parts[0] != slice(None) or parts[-1] != slice(None):
        return None
    cropping = []
    for part, size in zip(parts[1:-1], tensor.value.shape[1:-1], strict=True):
        first, last, step = part.indices(size)
        if step != 1 or first >= last:
            return None
        cropping.append((first, size - last))
    settings = {"dtype": tensor.dtype, "name": builder.name(name)}
    if len(cropping) == 1:
        return layers.Cropping1D(cropping[0], **settings)(tensor.value)
    layer = layers.Cropping2D if len(cropping) == 2 else layers.Cropping3D
    return layer(tuple(cropping), data_format="channels_last", **settings)(tensor.value)


def _numbers(value: Value | None, what: str) -> tuple[int | None, ...]:
    sizes = None if value is None else value.sizes
    if sizes is None:
        raise Unsupported(f"only a constant {what} is supported")
    return sizes


def _split(builder: Builder, operation: Operation) -> Sequence[Tensor]:
    tensor = builder.tensor(operation.input(0))
    axis = operation.attributes.get("axis", 0)
    place = tensor.position(axis)
    sizes = [None if one is None or one.shape is None else one.shape[axis] for one in operation.outputs]
    if None in sizes:
        raise Unsupported("the sizes of its parts are not known")
    if len(sizes) == 1:
        return [tensor]
    ends = np.cumsum([int(one or 0) for one in sizes])[:-1].tolist()
    parts = ops.split(tensor.value, ends, axis=place)
    builder.named(parts, operation.name)
    return [Tensor(one, tensor.axes) for one in parts]


def _expand(builder: Builder, operation: Operation) -> Tensor:
    value, target = operation.inputs[0], operation.output.shape
    if value is None or target is None:
        raise Unsupported("the shape of its result is not known")
    tensor = builder.tensor(value)
    missing = len(target) - tensor.rank
    axes = (*range(missing), *(axis + missing for axis in tensor.axes))
    made = builder.reshape(tensor.value, [*(1,) * missing, *tensor.value.shape], f"{operation.name}.reshape")
    repeats = []
    for axis, size in zip(axes, made.shape, strict=True):
        wanted = target[axis]
        if wanted is None and size is not None:
            raise Unsupported("it repeats something as often as there are samples")
        repeats.append(1 if wanted == size else wanted)
    if all(one == 1 for one in repeats):
        return Tensor(made, axes)
    return Tensor(builder.named(ops.tile(made, repeats), operation.name), axes)


def _tile(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    repeats = builder.array(operation.input(1), "number of repetitions").reshape(-1).tolist()
    if len(repeats) != tensor.rank:
        raise Unsupported("there is not a number of repetitions for each axis")
    return Tensor(
        builder.named(ops.tile(tensor.value, [repeats[axis] for axis in tensor.axes]), operation.name), tensor.axes
    )


def _pad(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    mode, rank = operation.attributes.get("mode", "constant"), tensor.rank
    if operation.version < 11:
        given = operation.attributes.get("pads") or operation.attributes.get("paddings") or ()
        fill: Any = operation.attributes.get("value", 0.0)
    else:
        given = builder.array(operation.input(1), "padding").reshape(-1).tolist()
        fill = 0 if operation.input(2) is None else builder.array(operation.input(2), "value").reshape(()).item()
    axes = list(range(rank))
    if operation.input(3) is not None:
        axes = [axis % rank for axis in builder.array(operation.input(3), "list of axes").reshape(-1).tolist()]
    around = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        around[tensor.position(axis)] = (int(given[position]), int(given[len(axes) + position]))
    if not any(map(any, around)):
        return tensor
    if around[0] != (0, 0) and tensor.value.shape[0] is None:
        raise Unsupported("it adds samples")
    name = operation.name
    value = tensor.value
    if any(number < 0 for pair in around for number in pair):
        if mode != "constant":
            raise Unsupported("cutting off and repeating at once is not supported")
        cut = [slice(max(-begin, 0), None if end >= 0 else end) for begin, end in around]
        value = value[tuple(cut)]
        around = [(max(begin, 0), max(end, 0)) for begin, end in around]
    if mode == "constant":
        image = 3 <= rank <= 5 and tensor.axes == channels_last(rank) and tensor.is_float
        if image and fill == 0 and around[0] == around[-1] == (0, 0) and any(map(any, around)):
            made = zero_padded(builder, value, tuple(around[1:-1]), name)
            made._keras_history.operation.name = builder.name(name)
            return Tensor(made, tensor.axes)
        if tensor.dtype == "bool":
            raise Unsupported("padding truth values is not supported")
        made = ops.pad(value, around, mode="constant", constant_values=fill)
        return Tensor(builder.named(made, name), tensor.axes)
    for place, (begin, end) in enumerate(around):
        if begin or end:
            size = value.shape[place]
            if size is None:
                raise Unsupported("it adds samples")
            value = ops.take(value, _repeated(size, begin, end, mode), axis=place)
    return Tensor(builder.named(value, name), tensor.axes)


def _repeated(size: int, begin: int, end: int, mode: str) -> np.ndarray:
    """Which elements stand in the padded axis."""
    wanted = np.arange(-begin, size + end)
    if mode == "edge":
        return wanted.clip(0, size - 1)
    if mode == "wrap":
        return wanted % size
    if mode == "reflect" and size > 1:
        period = 2 * (size - 1)
        folded = wanted % period
        return np.where(folded < size, folded, period - folded)
    raise Unsupported(f"the mode {mode!r} is not supported")


def _flip_axes(builder: Builder, operation: Operation) -> Tensor:
    """Channels to space: each block of channels becomes a block of pixels."""
    tensor = builder.tensor(operation.input(0))
    block = operation.attributes["blocksize"]
    channels = tensor.sizes[1]
    if tensor.rank != 4 or channels is None:
        raise Unsupported("only images of known size are supported")
    depth, name = channels // block**2, operation.name
    if operation.attributes.get("mode", "DCR") == "DCR":
        parts = builder.split_axis(tensor, 1, (block, block, depth), name).transposed((0, 3, 4, 1, 5, 2))
    else:
        parts = builder.split_axis(tensor, 1, (depth, block, block), name).transposed((0, 1, 4, 2, 5, 3))
    return builder.merge_axes(builder.merge_axes(parts, 2, 2, name), 3, 2, name)


def _space_to_depth(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    block, name = operation.attributes["blocksize"], operation.name
    if tensor.rank != 4 or None in tensor.sizes[1:]:
        raise Unsupported("only images of known size are supported")
    height, width = (int(size or 0) // block for size in tensor.sizes[2:])
    parts = builder.split_axis(tensor, 3, (width, block), name)
    parts = builder.split_axis(parts, 2, (height, block), name).transposed((0, 3, 5, 1, 2, 4))
    return builder.merge_axes(parts, 1, 3, name)


def _trilu(builder: Builder, operation: Operation) -> Tensor:
    value = builder.plain(operation.input(0), operation.name)
    offset = 0 if operation.input(1) is None else int(builder.array(operation.input(1), "offset").reshape(()))
    rows, columns = value.shape[-2:]
    if rows is None or columns is None:
        raise Unsupported("a triangle among samples is not supported")
    # `keras.ops.triu` refuses offsets beyond the matrix.
    upper = np.arange(columns)[None, :] - np.arange(rows)[:, None] >= offset
    kept = upper if operation.attributes.get("upper", 1) else np.arange(columns) - np.arange(rows)[:, None] <= offset
    made = ops.where(kept, value, np.zeros((), str(value.dtype)))
    return Tensor(builder.named(made, operation.name), identity(len(value.shape)))


OPERATORS: dict[str, Handler] = {
    "Concat": _concat,
    "DepthToSpace": _flip_axes,
    "Expand": _expand,
    "Flatten": _reshape,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
