"""Reductions, positions of extremes, running sums, lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator
from cfi_translate.keras_torch.laid import Laid, axes_of
from cfi_translate.keras_torch.walk import KerasWalk


def _reduce(function: Callable[..., Any], options: dict[str, Any], op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """A reduction over some axes; the layout of the others stays."""
    x = to.unscramble(x)
    if op.output.dtype != "bool":
        x = to.cast(x, op.output.dtype)
    axes, keep = axes_of(op.operation.axis, x.rank), bool(op.operation.keepdims)
    if function is torch.sum and "float" not in op.output.dtype:
        options = {"dtype": getattr(torch, op.output.dtype)}  # torch would count in 64 bits
    node = to.function(function, x.node, tuple(sorted(x.at(axis) for axis in axes)), keepdim=keep, **options)
    if keep:
        return op.result(node, x.axes)
    left = [axis for axis in range(x.rank) if axis not in axes]
    return op.result(node, tuple(left.index(axis) for axis in x.axes if axis not in axes))


for _name, _function, _options in (
    ("Mean", torch.mean, {}),
    ("Sum", torch.sum, {}),
    ("Max", torch.amax, {}),
    ("Min", torch.amin, {}),
    ("Amax", torch.amax, {}),
    ("Amin", torch.amin, {}),
    ("Var", torch.var, {"correction": 0}),
    ("Std", torch.std, {"correction": 0}),
    ("Logsumexp", torch.logsumexp, {}),
    ("Any", torch.any, {}),
    ("All", torch.all, {}),
):
    operator(f"ops.{_name}")(partial(_reduce, _function, _options))


@operator("ops.Prod")
def product(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Products over some axes, one after the other."""
    x = to.plain(to.cast(x, op.output.dtype))
    node, keep, dtype = x.node, bool(op.operation.keepdims), getattr(torch, op.output.dtype)
    for axis in sorted(axes_of(op.operation.axis, x.rank), reverse=True):
        node = to.function(torch.prod, node, axis, keepdim=keep, dtype=dtype)
    return op.result(node)


@operator("ops.Moments")
def moments(op: LayerCall, to: KerasWalk, x: Laid) -> list[Laid]:
    """Mean and variance."""
    x = to.plain(x)
    require("float" in x.dtype, "its values are integers")
    axes, keep = axes_of(op.operation.axes, x.rank), bool(op.operation.keepdims)
    require(0 not in axes and not op.operation.synchronized, "it mixes samples")
    mean = to.function(torch.mean, x.node, axes, keepdim=keep)
    return op.results([mean, to.function(torch.var, x.node, axes, correction=0, keepdim=keep)])


@operator("ops.Argmax", "ops.Argmin")
def argmax(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Position of the largest or smallest value."""
    x = to.plain(x)
    function = torch.argmax if op.kind == "Argmax" else torch.argmin
    node = to.function(function, x.node, *axes_of(op.operation.axis, x.rank), keepdim=bool(op.operation.keepdims))
    return to.cast(replace(op.result(node), dtype="int64"), op.output.dtype)


@operator("ops.Cumsum")
def cumsum(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Running sums."""
    x = to.plain(to.cast(x, op.output.dtype))
    axes, dtype = axes_of(op.operation.axis, x.rank), getattr(torch, op.output.dtype)
    return x.like(to.function(torch.cumsum, x.node, *axes, dtype=dtype))


@operator("ops.Norm")
def norm(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Lengths of vectors."""
    own, x = op.operation, to.plain(to.cast(x, op.output.dtype))
    axes = axes_of(own.axis, x.rank)
    require(own.ord in (None, 2, "euclidean") and len(axes) == 1, "it is no Euclidean norm")
    return op.result(to.function(torch.linalg.vector_norm, x.node, 2, *axes, keepdim=bool(own.keepdims)))
