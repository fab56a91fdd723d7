"""Slices, positions and embeddings."""

from __future__ import annotations

import operator as python
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import Refusal, require
from cfi_translate.keras_torch.calls import LayerCall, operator, tensor
from cfi_translate.keras_torch.laid import Laid, axes_of
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import constant_array, make, tensor_of


@operator("layers.Embedding")
def embedding(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """An Embedding module; zeros are masked if the layer says so."""
    layer, x = op.operation, to.plain(inputs)
    require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    table = layer.embeddings

    def weights() -> nn.Module:
        return make(nn.Embedding, *table.shape, tensors={"weight": tensor_of(table)})

    node = to.call_shared(op, weights, to.method("long", x.node))
    mask = Laid(to.function(torch.ne, x.node, 0), x.shape, x.axes, "bool") if layer.mask_zero else None
    return op.result(node, mask=mask)


@operator("ops.Split")
def split(op: LayerCall, to: KerasWalk, x: Laid) -> list[Laid]:
    """A tensor in parts."""
    x = to.unscramble(x)
    axis, at, results = op.operation.axis % x.rank, 0, []
    for position, spec in enumerate(op.outputs):
        size = spec.shape[axis]
        if size is None:
            raise Refusal("it splits the samples")
        node = to.function(torch.narrow, x.node, x.at(axis), at, size)
        results.append(op.result(node, x.axes, position))
        at += size
    return results


@operator("ops.Unstack")
def unstack(op: LayerCall, to: KerasWalk, x: Laid) -> list[Laid]:
    """The slices along one axis."""
    x, axis = to.plain(x), op.operation.axis % x.rank
    require(x.shape[axis] is not None, "it splits the samples")
    return op.results([to.function(torch.select, x.node, axis, position) for position in range(len(op.outputs))])


@operator("ops.GetItem")
def get_item(op: LayerCall, to: KerasWalk, x: Any, key: Any) -> Laid:
    """Slices and single positions."""
    x = to.plain(tensor(x))
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        simple = part is None or part is Ellipsis or (isinstance(part, int) and not isinstance(part, bool))
        if isinstance(part, slice):
            bounds = (part.start, part.stop, part.step)
            simple = all(bound is None or isinstance(bound, int) for bound in bounds) and (part.step or 1) > 0
        require(simple, f"torch does not take the index {part!r}")
    whole = x.shape[0] is not None or parts[0] is Ellipsis or parts[0] == slice(None)
    require(whole, "it takes some of the samples apart")
    return op.result(to.function(python.getitem, x.node, tuple(parts)))


def _axes(op: LayerCall, x: Laid, samples: str) -> tuple[int, ...]:
    """The axes that an operation is told to go over; `samples` is the refusal if that of the samples is among them."""
    axes = axes_of(op.operation.axis, x.rank)
    require(0 not in axes, samples)
    return axes


@operator("ops.Roll")
def roll(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Values moved along some axes; those that leave at one end come back at the other."""
    x, shift = to.unscramble(x), op.operation.shift
    axes = _axes(op, x, "it mixes samples")
    shifts = tuple(shift) if isinstance(shift, list | tuple) else (shift,) * len(axes)
    require(len(shifts) == len(axes) and all(isinstance(one, int) for one in shifts), "its shift is not constant")
    return x.like(to.function(torch.roll, x.node, shifts, tuple(x.at(axis) for axis in axes)))


@operator("ops.Flip")
def flip(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """The order along some axes reversed."""
    x = to.unscramble(x)
    axes = _axes(op, x, "it reverses the samples")
    return x.like(to.function(torch.flip, x.node, tuple(x.at(axis) for axis in axes)))


@operator("ops.Take")
def take(op: LayerCall, to: KerasWalk, x: Any, indices: Any) -> Laid:
    """Positions along one axis, by constant numbers."""
    x, positions, axis = to.plain(tensor(x)), constant_array(indices), op.operation.axis
    if positions is None or axis is None:
        raise Refusal("its positions are not constant")
    axis %= x.rank
    size = x.shape[axis]
    if size is None:
        raise Refusal("it takes some of the samples apart")
    require(((positions >= -size) & (positions < size)).all(), "its positions lie outside")
    if positions.ndim == 0:
        return op.result(to.function(torch.select, x.node, axis, int(positions)))
    require(positions.ndim == 1, "its positions have several axes")
    return op.result(_select(op, to, x.node, axis, positions % size, "indices"))


def _select(op: LayerCall, to: KerasWalk, node: Any, axis: int, positions: np.ndarray, name: str) -> Any:
    index = to.buffer(f"{op.path}_{name}", positions.astype(np.int64))
    return to.function(torch.index_select, node, axis, index)


@operator("ops.Pad")
def pad(op: LayerCall, to: KerasWalk, x: Any, constant_values: Any = None) -> Laid:
    """Values around a tensor."""
    mode, x = op.operation.mode, to.unscramble(tensor(x))
    widths = _widths(op.operation.pad_width, x.rank)
    require(len(widths) == x.rank and not any(widths[0]), "it pads the samples")
    if mode in ("reflect", "symmetric"):
        return _mirror(op, to, x, widths)
    require(mode == "constant", f"its mode is {mode!r}")
    filling = constant_array(0 if constant_values is None else constant_values)
    if filling is None or filling.size != 1:
        raise Refusal("its filling is no number")
    order = tuple(int(amount) for axis in reversed(x.axes) for amount in widths[axis])
    node = to.function(torch.nn.functional.pad, x.node, order, mode="constant", value=filling.item())
    return op.result(node, x.axes)


def _widths(given: Any, rank: int) -> list[tuple[int, int]]:
    """What is added before and after each axis; Keras takes one number or one pair for all."""
    each = (given,) if isinstance(given, int) else given
    pairs = [(one, one) if isinstance(one, int) else tuple(one) * (2 // len(one)) for one in each]
    return pairs * rank if len(pairs) == 1 else pairs


def _mirror(op: LayerCall, to: KerasWalk, x: Laid, widths: Sequence[tuple[int, int]]) -> Laid:
    node = x.node
    for axis, pair in enumerate(widths):
        if any(pair):
            order = np.pad(np.arange(x.shape[axis] or 0), pair, mode=op.operation.mode)
            node = _select(op, to, node, x.at(axis), order, f"axis{axis}")
    return op.result(node, x.axes)


@operator("ops.OneHot")
def one_hot(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """A one at the place that a number says; zeros alone for a number that says none."""
    rank = len(op.output.shape)
    axis = op.operation.axis % rank
    numbers = to.cast(to.plain(x), "int64")
    shape = tuple(-1 if one == axis else 1 for one in range(rank))
    places = to.buffer(f"{op.path}_places", np.arange(op.operation.num_classes).reshape(shape))
    node = to.function(torch.eq, to.function(torch.unsqueeze, numbers.node, axis), places)
    return to.cast(replace(op.result(node), dtype="bool"), op.output.dtype)


@operator("ops.Tril", "ops.Triu")
def triangle(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """The values on one side of a diagonal."""
    x = to.plain(x)
    return x.like(to.function(torch.tril if op.kind == "Tril" else torch.triu, x.node, op.operation.k))
