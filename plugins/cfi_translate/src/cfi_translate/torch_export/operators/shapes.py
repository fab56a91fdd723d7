"""Operators that move elements: reshaping, transposing, selecting, joining; and those that do nothing in inference."""

# What a function writes is said by its decorator.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import UNREAD, Emitter, Filled, Value
from cfi_translate.torch_export.operators.registry import writes

_END = np.iinfo(np.int64).max


@writes("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh", "positive", "resolve_conj")
def unchanged(emit: Emitter, x: Any, *_: Any) -> Any:
    return x


@writes("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(emit: Emitter, x: Any, _probability: float, training: bool) -> Any:
    if training:
        raise emit.refuse("its result is random")
    return x


@writes("native_dropout")
def native_dropout(emit: Emitter, x: Any, _probability: float, training: bool) -> list[Any]:
    if training or training is None:
        raise emit.refuse("its result is random")
    return [x, UNREAD]


@writes("to.dtype", "to.dtype_layout", "to.device", "to.other", "_to_copy", "type_as", "float")
def converted(emit: Emitter, x: Any, *_: Any) -> Any:
    return emit.cast(x, emit.result.dtype)


@writes(
    "view",
    "reshape",
    "_unsafe_view",
    "flatten.using_ints",
    "unflatten.int",
    "unsqueeze",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "view_as",
    "reshape_as",
)
def reshaped(emit: Emitter, x: Any, *_: Any) -> Any:
    """Whatever torch computed as the new shape."""
    return reshape(emit, x, tuple(emit.result.shape))


def reshape(emit: Emitter, x: Any, shape: tuple[Any, ...]) -> Any:
    """A value in a new shape, sizes that follow the number of samples kept free."""
    old = tuple(x.shape)
    if len(old) == len(shape) and all(_same(*both) for both in zip(old, shape, strict=True)):
        return x
    if 0 in [one for one in (*old, *shape) if isinstance(one, int)]:
        raise emit.refuse("it reshapes a tensor without elements")
    if len(shape) == 2 and len(old) > 2 and _same(old[0], shape[0]):
        return emit.op("Flatten", x, axis=1)
    target: list[Any] = []
    for axis, size in enumerate(shape):
        if isinstance(size, torch.SymInt) and axis < len(old) and _same(old[axis], size):
            target.append(0)
        elif isinstance(size, torch.SymInt) and -1 not in target:
            target.append(-1)
        else:
            target.append(size)
    return emit.op("Reshape", x, emit.sizes(target))


def _same(first: Any, second: Any) -> bool:
    """Whether two sizes are the same for any number of samples."""
    symbols = isinstance(first, torch.SymInt), isinstance(second, torch.SymInt)
    return bool(first.node.expr == second.node.expr) if all(symbols) else not any(symbols) and first == second


@writes("permute")
def permuted(emit: Emitter, x: Any, axes: Sequence[int]) -> Any:
    order = [axis % len(axes) for axis in axes]
    return x if order == list(range(len(order))) else emit.op("Transpose", x, perm=order)


@writes("transpose.int", "swapaxes", "swapdims")
def transposed(emit: Emitter, x: Any, first: int, second: int) -> Any:
    axes = list(range(len(x.shape)))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    return permuted(emit, x, axes)


@writes("t", "numpy_T")
def matrix_transposed(emit: Emitter, x: Any) -> Any:
    return permuted(emit, x, list(range(len(x.shape)))[::-1])


@writes("movedim.intlist", "movedim.int")
def moved(emit: Emitter, x: Any, source: Any, target: Any) -> Any:
    rank = len(x.shape)
    sources, targets = ([axis % rank for axis in ([one] if isinstance(one, int) else one)] for one in (source, target))
    order = [axis for axis in range(rank) if axis not in sources]
    for to, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(to, axis)
    return permuted(emit, x, order)


@writes("select.int")
def selected(emit: Emitter, x: Any, axis: int, index: Any) -> Value:
    if isinstance(index, torch.SymInt):
        raise emit.refuse("its index follows the number of samples")
    return emit.op("Gather", x, np.array(index), axis=axis % len(x.shape))


@writes("slice.Tensor")
def sliced(emit: Emitter, x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    shape = tuple(x.shape)
    axis %= len(shape)
    if _same(shape[axis], emit.result.shape[axis]) and step == 1:
        return x
    bounds = [0 if start is None else start, _END if end is None else end]
    return emit.op("Slice", x, emit.sizes(bounds[:1]), emit.sizes(bounds[1:]), np.array([axis]), np.array([step]))


@writes("narrow")
def narrowed(emit: Emitter, x: Any, axis: int, start: Any, length: Any) -> Any:
    return sliced(emit, x, axis, start, start + length, 1)


@writes(
    "split.Tensor",
    "split_with_sizes",
    "split.sizes",
    "chunk",
    "unsafe_chunk",
    "unsafe_split.Tensor",
    "tensor_split.sections",
)
def split(emit: Emitter, x: Any, _sizes: Any, axis: int) -> list[Any]:
    axis %= len(x.shape)
    sizes = [part.shape[axis] for part in emit.result]
    if len(sizes) == 1:
        return [x]
    return list(emit.ops("Split", len(sizes), x, emit.sizes(sizes), axis=axis))


@writes("unbind.int")
def unbound(emit: Emitter, x: Any, axis: int) -> list[Any]:
    axis %= len(x.shape)
    return [emit.op("Gather", x, np.array(position), axis=axis) for position in range(len(emit.result))]


@writes("cat", "concat")
def concatenated(emit: Emitter, tensors: Sequence[Any], axis: int = 0) -> Any:
    dtype = emit.result.dtype
    # torch still lets empty tensors of one axis be joined to anything.
    parts = [emit.cast(one, dtype) for one in tensors if tuple(one.shape) != (0,)]
    return parts[0] if len(parts) == 1 else emit.op("Concat", *parts, axis=axis % len(emit.result.shape))


@writes("stack")
def stacked(emit: Emitter, tensors: Sequence[Any], axis: int = 0) -> Value:
    axis %= len(emit.result.shape)
    dtype = emit.result.dtype
    parts = [emit.op("Unsqueeze", emit.cast(one, dtype), np.array([axis])) for one in tensors]
    return emit.op("Concat", *parts, axis=axis)


@writes("expand", "expand_as", "broadcast_to")
def expanded(emit: Emitter, x: Any, *_: Any) -> Any:
    shape = tuple(emit.result.shape)
    old = tuple(x.shape)
    if len(old) == len(shape) and all(_same(*both) for both in zip(old, shape, strict=True)):
        return x
    offset = len(shape) - len(old)
    kept = [axis >= offset and _same(old[axis - offset], size) for axis, size in enumerate(shape)]
    return emit.op("Expand", x, emit.sizes([1 if keep else size for keep, size in zip(kept, shape, strict=True)]))


@writes("repeat", "tile")
def repeated(emit: Emitter, x: Any, times: Sequence[Any]) -> Any:
    times = [1] * (len(x.shape) - len(times)) + list(times)
    added = len(times) - len(x.shape)
    if added:
        x = emit.op("Unsqueeze", x, np.arange(added))
    if all(one == 1 for one in times if isinstance(one, int)) and not any(isinstance(t, torch.SymInt) for t in times):
        return x
    return emit.op("Tile", x, emit.sizes(times))


@writes("roll")
def rolled(emit: Emitter, x: Any, shifts: Sequence[int], axes: Sequence[int] = ()) -> Any:
    if not axes:
        raise emit.refuse("it rolls the flattened tensor")
    for shift, axis in zip(shifts, axes, strict=True):
        axis %= len(x.shape)
        if isinstance(x.shape[axis], torch.SymInt):
            raise emit.refuse("it rolls the samples")
        size = int(x.shape[axis])
        if shift % size:
            cut = size - shift % size
            tail = emit.op("Slice", x, np.array([cut]), np.array([size]), np.array([axis]))
            head = emit.op("Slice", x, np.array([0]), np.array([cut]), np.array([axis]))
            x = Value(emit.op("Concat", tail, head, axis=axis).name, x.like)
    return x


@writes("flip")
def flipped(emit: Emitter, x: Any, axes: Sequence[int]) -> Value:
    count = len(axes)
    start, end, step = np.full(count, -1), np.full(count, np.iinfo(np.int64).min), np.full(count, -1)
    return emit.op("Slice", x, start, end, np.array([axis % len(x.shape) for axis in axes]), step)


@writes("pad", "constant_pad_nd")
def padded(emit: Emitter, x: Any, pad: Sequence[int], *how: Any) -> Any:
    mode, value = how if len(how) == 2 else ("constant", how[0] if how else 0)
    return _pad(emit, x, pad, mode, value)


@writes("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflected(emit: Emitter, x: Any, pad: Sequence[int]) -> Any:
    return _pad(emit, x, pad, "reflect", None)


@writes("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replicated(emit: Emitter, x: Any, pad: Sequence[int]) -> Any:
    return _pad(emit, x, pad, "replicate", None)


def _pad(emit: Emitter, x: Any, pad: Sequence[int], mode: str, value: Any) -> Any:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in modes or any(isinstance(one, torch.SymInt) for one in pad):
        raise emit.refuse("its padding is computed, or of an unknown mode")
    if not any(pad):
        return x
    if mode == "circular" and min(pad) < 0:
        raise emit.refuse("it cuts off what it wraps around")
    rank = len(x.shape)
    begin, end = [0] * rank, [0] * rank
    for position in range(len(pad) // 2):
        begin[rank - 1 - position], end[rank - 1 - position] = pad[2 * position], pad[2 * position + 1]
    constant = emit.scalar(value, x.dtype) if value else None
    return emit.op("Pad", x, np.array(begin + end), constant, mode=modes[mode])


@writes("pixel_shuffle")
def pixel_shuffle(emit: Emitter, x: Any, factor: int) -> Value:
    _refuse_unless_images(emit, x)
    return emit.op("DepthToSpace", x, blocksize=factor, mode="CRD")


@writes("pixel_unshuffle")
def pixel_unshuffle(emit: Emitter, x: Any, factor: int) -> Value:
    # SpaceToDepth orders the new channels the other way round.
    _refuse_unless_images(emit, x)
    channels, height, width = (int(one) for one in x.shape[1:])
    cut = emit.op("Reshape", x, np.array([0, channels, height // factor, factor, width // factor, factor]))
    moved_ = emit.op("Transpose", cut, perm=[0, 1, 3, 5, 2, 4])
    return emit.op("Reshape", moved_, np.array([0, channels * factor**2, height // factor, width // factor]))


@writes("channel_shuffle")
def channel_shuffle(emit: Emitter, x: Any, groups: int) -> Value:
    channels, *rest = (int(one) for one in x.shape[1:])
    cut = emit.op("Reshape", x, np.array([0, groups, channels // groups, *rest]))
    swapped = emit.op("Transpose", cut, perm=[0, 2, 1, *range(3, len(rest) + 3)])
    return emit.op("Reshape", swapped, np.array([0, channels, *rest]))


def _refuse_unless_images(emit: Emitter, x: Any) -> None:
    if len(x.shape) != 4 or any(isinstance(one, torch.SymInt) for one in x.shape[1:]):
        raise emit.refuse("its input is no batch of images")


@writes("index_select")
def rows(emit: Emitter, x: Any, axis: int, index: Any) -> Value:
    return emit.op("Gather", x, index, axis=axis % max(1, len(x.shape)))


@writes("gather")
def gathered(emit: Emitter, x: Any, axis: int, index: Any, _sparse: bool = False) -> Value:
    return emit.op("GatherElements", x, index, axis=axis % max(1, len(x.shape)))


@writes("index.Tensor")
def indexed(emit: Emitter, x: Any, indices: Sequence[Any]) -> Value:
    given = [axis for axis, index in enumerate(indices) if index is not None]
    if any(indices[axis].dtype in (torch.bool, torch.uint8) for axis in given):
        raise emit.refuse("how many elements it selects depends on their values")
    if len(given) == 1:
        return emit.op("Gather", x, indices[given[0]], axis=given[0])
    if given != list(range(given[0], given[-1] + 1)) or not all(isinstance(indices[a], torch.Tensor) for a in given):
        raise emit.refuse("it indexes several axes that are not adjacent, or by computed indices")
    if any(isinstance(x.shape[axis], torch.SymInt) for axis in given):
        raise emit.refuse("it indexes the samples together with another axis")
    # Adjacent axes are joined, and so are their indices.
    joined = torch.zeros((), dtype=torch.int64)
    count = 1
    for axis in given:
        size = int(x.shape[axis])
        joined = joined * size + indices[axis].to("cpu", torch.int64) % size
        count *= size
    shape = tuple(x.shape)
    flat = reshape(emit, x, (*shape[: given[0]], count, *shape[given[-1] + 1 :]))
    return emit.op("Gather", flat, joined, axis=given[0])


@writes("select_scatter")
def replaced_row(emit: Emitter, x: Any, source: Any, axis: int, index: Any) -> Value:
    size = x.shape[axis]
    if isinstance(size, torch.SymInt) or isinstance(index, torch.SymInt):
        raise emit.refuse("it replaces a sample")
    axis, index = axis % len(x.shape), index % int(size)
    row = emit.op("Unsqueeze", emit.cast(source, emit.result.dtype), np.array([axis]))
    return _between(emit, x, row, axis, index, index + 1)


@writes("slice_scatter")
def replaced_slice(emit: Emitter, x: Any, source: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    axis %= len(x.shape)
    size = x.shape[axis]
    if step == 1 and not isinstance(source, Filled) and _same(size, source.shape[axis]):
        return emit.cast(source, emit.result.dtype)
    if step != 1 or any(isinstance(one, torch.SymInt) for one in (size, start, end)):
        raise emit.refuse("it replaces samples, or every other element")
    first, last, _ = slice(start, end).indices(int(size))
    return _between(emit, x, emit.cast(source, emit.result.dtype), axis, first, last)


def _between(emit: Emitter, x: Any, part: Any, axis: int, start: int, end: int) -> Value:
    """The tensor with what lies from `start` to `end` replaced."""
    parts = [part]
    if start > 0:
        parts.insert(0, emit.op("Slice", x, np.array([0]), np.array([start]), np.array([axis])))
    if end < int(x.shape[axis]):
        parts.append(emit.op("Slice", x, np.array([end]), np.array([_END]), np.array([axis])))
    return parts[0] if len(parts) == 1 else emit.op("Concat", *parts, axis=axis)


@writes("copy")
def copied(emit: Emitter, x: Any, source: Any, *_: Any) -> Any:
    return expanded(emit, emit.cast(source, emit.result.dtype))


@writes("fill.Scalar", "fill.Tensor")
def filled(emit: Emitter, x: Any, value: Any) -> Any:
    if isinstance(value, int | float):
        return constant(emit, value)
    return expanded(emit, emit.cast(value, emit.result.dtype))


@writes("zeros", "zeros_like", "new_zeros")
def zeros(emit: Emitter, *_: Any) -> Any:
    return constant(emit, 0)


@writes("ones", "ones_like", "new_ones")
def ones(emit: Emitter, *_: Any) -> Any:
    return constant(emit, 1)


@writes("full", "full_like", "new_full")
def full(emit: Emitter, _shape: Any, *arguments: Any) -> Any:
    value = arguments[1] if len(arguments) > 1 and isinstance(arguments[0], list | tuple) else arguments[0]
    if not isinstance(value, int | float):
        raise emit.refuse("its value is computed")
    return constant(emit, value)


def constant(emit: Emitter, number: float) -> Any:
    """The result of the operator at hand, if it is one number everywhere."""
    like = emit.result
    if any(isinstance(one, torch.SymInt) for one in like.shape):
        return Filled(number, like)
    return torch.full(tuple(like.shape), number, dtype=like.dtype)


@writes("tril", "triu")
def lower_triangle(emit: Emitter, x: Any, diagonal: int = 0) -> Value:
    upper = "triu" in emit.origin
    return emit.op("Trilu", x, np.array(diagonal), upper=int(upper))
