"""Operators that move elements: reshaping, transposing, joining, repeating; and tensors of one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.torch_export.onnx_graph import Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator

_RESHAPING = ("view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int", "unsqueeze", "squeeze")
_SPLITTING = ("split.Tensor", "split_with_sizes", "split.sizes", "chunk", "unsafe_chunk", "unsafe_split.Tensor")


@operator(*_RESHAPING, "squeeze.dim", "squeeze.dims", "view_as", "reshape_as")
def reshape_as_computed(op: TorchOp, to: OnnxGraph, x: Any, *_: Any) -> Any:
    """Whatever torch computed as the new shape."""
    return reshape(to, x, op.shape)


def reshape(to: OnnxGraph, x: Any, shape: tuple[Any, ...]) -> Any:
    """A value in a new shape, sizes that follow the number of samples kept free."""
    old = tuple(x.shape)
    if _same_shape(old, shape):
        return x
    empty = 0 in [one for one in (*old, *shape) if isinstance(one, int)]
    require(not empty, "it reshapes a tensor without elements")
    if len(shape) == 2 and len(old) > 2 and same_size(old[0], shape[0]):
        return to.node("Flatten", x, axis=1)
    target: list[Any] = []
    for axis, size in enumerate(shape):
        if isinstance(size, torch.SymInt) and axis < len(old) and same_size(old[axis], size):
            target.append(0)
        elif isinstance(size, torch.SymInt) and -1 not in target:
            target.append(-1)
        else:
            target.append(size)
    return to.node("Reshape", x, to.sizes(target))


def same_size(first: Any, second: Any) -> bool:
    """Whether two sizes are the same for any number of samples."""
    symbols = isinstance(first, torch.SymInt), isinstance(second, torch.SymInt)
    return bool(first.node.expr == second.node.expr) if all(symbols) else not any(symbols) and first == second


def _same_shape(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) and all(map(same_size, first, second))


@operator("permute")
def permute(op: TorchOp, to: OnnxGraph, x: Any, axes: Sequence[int]) -> Any:
    order = [axis % len(axes) for axis in axes]
    return x if order == list(range(len(order))) else to.node("Transpose", x, perm=order)


@operator("transpose.int", "swapaxes", "swapdims")
def transpose(op: TorchOp, to: OnnxGraph, x: Any, first: int, second: int) -> Any:
    axes = list(range(len(x.shape)))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    return permute(op, to, x, axes)


@operator(*_SPLITTING, "tensor_split.sections")
def split(op: TorchOp, to: OnnxGraph, x: Any, size: Any, axis: int) -> list[Any]:
    axis %= len(x.shape)
    sizes = [part.shape[axis] for part in op.result]
    return [x] if len(sizes) == 1 else list(to.node_with(len(sizes), "Split", x, to.sizes(sizes), axis=axis))


@operator("cat", "concat")
def concatenate(op: TorchOp, to: OnnxGraph, tensors: Sequence[Any], axis: int = 0) -> Any:
    # torch still lets empty tensors of one axis be joined to anything.
    parts = [to.cast(one, op.dtype) for one in tensors if tuple(one.shape) != (0,)]
    return parts[0] if len(parts) == 1 else to.node("Concat", *parts, axis=axis % len(op.shape))


@operator("expand", "expand_as", "broadcast_to")
def expand_as_computed(op: TorchOp, to: OnnxGraph, x: Any, *_: Any) -> Any:
    """To whatever shape torch computed."""
    return expand(to, x, tuple(x.shape), op.shape)


def expand(to: OnnxGraph, x: Any, old: tuple[Any, ...], shape: tuple[Any, ...]) -> Any:
    """A value of one shape, broadcast to another; sizes that follow the number of samples are kept free."""
    if _same_shape(old, shape):
        return x
    kept = map(same_size, (1,) * (len(shape) - len(old)) + old, shape)
    return to.node("Expand", x, to.sizes([1 if keep else size for keep, size in zip(kept, shape, strict=True)]))


@operator("repeat", "tile")
def repeat(op: TorchOp, to: OnnxGraph, x: Any, times: Sequence[Any]) -> Any:
    times = [1] * (len(x.shape) - len(times)) + list(times)
    added = len(times) - len(x.shape)
    if added:
        x = to.node("Unsqueeze", x, list(range(added)))
    return x if all(same_size(one, 1) for one in times) else to.node("Tile", x, to.sizes(times))


@operator("pixel_shuffle")
def pixel_shuffle(op: TorchOp, to: OnnxGraph, x: Any, factor: int) -> OnnxValue:
    images = len(x.shape) == 4 and not any(isinstance(one, torch.SymInt) for one in x.shape[1:])
    require(images, "its input is no batch of images")
    return to.node("DepthToSpace", x, blocksize=factor, mode="CRD")


@operator("copy")
def copy(op: TorchOp, to: OnnxGraph, x: Any, source: Any, *_: Any) -> Any:
    return expand_as_computed(op, to, to.cast(source, op.dtype))


@operator("full", "full_like", "fill.Scalar")
def full(op: TorchOp, to: OnnxGraph, shape: Any, value: Any, *_: Any) -> Any:
    require(isinstance(value, int | float), "its value is computed")
    if any(isinstance(one, torch.SymInt) for one in op.shape):
        return Filled(value, op.result)
    return torch.full(op.shape, value, dtype=op.dtype)


def _fill_with(number: int) -> Converter:
    return lambda op, to, *_: full(op, to, op.shape, number)


for _number, _name in enumerate(("zeros", "ones")):
    operator(_name, f"{_name}_like", f"new_{_name}")(_fill_with(_number))


@operator("arange", "arange.start", "arange.start_step")
def count(op: TorchOp, to: OnnxGraph, *given: Any) -> Any:
    *bounds, _dtype, _layout, _device, _pinned = given
    bounds = [0, *bounds] if len(bounds) == 1 else bounds
    bounds = bounds if len(bounds) == 3 else [*bounds, 1]
    require(all(isinstance(one, int | torch.SymInt) for one in bounds), "it counts in fractions")
    counted = to.node("Range", *(to.cast(one, torch.int64) for one in bounds))
    return counted if op.dtype == torch.int64 else to.node("Cast", counted, to=to.type(op.dtype))
