"""Operators that summarise along axes."""

from __future__ import annotations

from typing import Any

import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator

_REDUCTIONS = {
    "ReduceMean": ("mean", "mean.dim"),
    "ReduceSum": ("sum", "sum.dim_IntList"),
    "ReduceProd": ("prod", "prod.dim_int"),
    "ReduceMax": ("max", "amax", "any", "any.dim"),
    "ReduceMin": ("min", "amin", "all", "all.dim"),
    "ReduceLogSumExp": ("logsumexp",),
}


def _axes(x: Any, axes: Any) -> list[int]:
    """The axes that are summarised, none named meaning all."""
    rank = len(x.shape)
    named = [axes] if isinstance(axes, int) else list(axes or [])
    return sorted(axis % rank for axis in named) if named and rank else list(range(rank))


def _reduction(kind: str) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, x: Any, *how: Any) -> Any:
        axes, keep = how[:2] if len(how) > 1 else (None, False)  # a type may follow, or stand alone
        x = to.cast(x, op.dtype)
        return to.node(kind, x, _axes(x, axes), keepdims=int(keep)) if len(x.shape) else x

    return convert


for _kind, _names in _REDUCTIONS.items():
    operator(*_names)(_reduction(_kind))


def _extremum(kind: str) -> Converter:
    def convert(op: TorchOp, to: OnnxGraph, x: Any, axis: int, keep: bool = False) -> list[OnnxValue]:
        (axis,) = _axes(x, axis) or (0,)
        place = to.node(f"Arg{kind}", x, axis=axis, keepdims=int(keep))
        if not len(x.shape) or not x.dtype.is_floating_point:
            return [to.node(f"Reduce{kind}", x, [axis], keepdims=int(keep)), place]
        # The gradient goes to the place that is told, where that of a reduction is shared among equal values.
        kept = place if keep else to.node(f"Arg{kind}", x, axis=axis, keepdims=1)
        found = to.node("GatherElements", x, kept, axis=axis)
        return [found if keep else to.node("Squeeze", found, [axis]), place]

    return convert


operator("max.dim")(_extremum("Max"))
operator("min.dim")(_extremum("Min"))


@operator("var.correction")
def variance(op: TorchOp, to: OnnxGraph, x: Any, axes: Any, correction: Any, keep: bool) -> OnnxValue:
    correction = 1 if correction is None else correction
    where = _axes(x, axes)
    count: Any = 1
    for axis in where:
        count = count * x.shape[axis]
    require(not isinstance(count, torch.SymInt), "it is taken over the samples")
    require(count > correction, "it is taken over too few elements")
    centred = to.node("Sub", x, to.node("ReduceMean", x, where, keepdims=1))
    spread = to.node("ReduceMean", to.node("Mul", centred, centred), where, keepdims=int(keep))
    return to.scale(spread, count / (count - correction), x.dtype)


@operator("var_mean.correction")
def variance_and_mean(op: TorchOp, to: OnnxGraph, x: Any, axes: Any, correction: Any, keep: bool) -> list[Any]:
    mean = to.node("ReduceMean", x, _axes(x, axes), keepdims=int(keep))
    return [variance(op, to, x, axes, correction, keep), mean]


@operator("linalg_vector_norm")
def norm(
    op: TorchOp, to: OnnxGraph, x: Any, order: Any, axes: Any = None, keep: bool = False, dtype: Any = None
) -> OnnxValue:
    require(order in (1, 2), f"it is a norm of order {order}")
    return to.node(f"ReduceL{order:.0f}", to.cast(x, op.dtype), _axes(x, axes), keepdims=int(keep))


@operator("cumsum")
def cumulative_sum(op: TorchOp, to: OnnxGraph, x: Any, axis: int, dtype: Any = None) -> OnnxValue:
    return to.node("CumSum", to.cast(x, op.dtype), axis % max(1, len(x.shape)))
