"""Operators that summarise along axes."""

# What a function writes is said by its decorator.

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import Emitter, Value
from cfi_translate.torch_export.operators.registry import Writer, writes


def _axes(x: Any, axes: Any) -> np.ndarray:
    """The axes that are summarised, none named meaning all."""
    rank = len(x.shape)
    named = [axes] if isinstance(axes, int) else list(axes or [])
    return np.array(sorted(axis % rank for axis in named) if named and rank else range(rank), np.int64)


def _reduction(kind: str) -> Writer:
    def write(emit: Emitter, x: Any, axes: Any = None, keep: bool = False, _dtype: Any = None) -> Any:
        x = emit.cast(x, emit.result.dtype)
        if not len(x.shape):
            return x
        return emit.op(kind, x, _axes(x, axes), keepdims=int(keep))

    return write


writes("mean.dim")(_reduction("ReduceMean"))
writes("sum.dim_IntList")(_reduction("ReduceSum"))
writes("amax")(_reduction("ReduceMax"))
writes("amin")(_reduction("ReduceMin"))
writes("logsumexp")(_reduction("ReduceLogSumExp"))
writes("prod.dim_int")(_reduction("ReduceProd"))


def _whole(kind: str) -> Writer:
    def write(emit: Emitter, x: Any, _dtype: Any = None) -> Any:
        return _reduction(kind)(emit, x)

    return write


writes("mean")(_whole("ReduceMean"))
writes("sum")(_whole("ReduceSum"))
writes("max")(_whole("ReduceMax"))
writes("min")(_whole("ReduceMin"))
writes("prod")(_whole("ReduceProd"))


def _extremum(kind: str) -> Writer:
    def write(emit: Emitter, x: Any, axis: int, keep: bool = False) -> list[Value]:
        axis %= max(1, len(x.shape))
        return [
            emit.op(f"Reduce{kind}", x, np.array([axis]), keepdims=int(keep)),
            emit.op(f"Arg{kind}", x, axis=axis, keepdims=int(keep)),
        ]

    return write


writes("max.dim")(_extremum("Max"))
writes("min.dim")(_extremum("Min"))


@writes("topk")
def top_k(emit: Emitter, x: Any, k: Any, axis: int = -1, largest: bool = True, sorted_: bool = True) -> Any:
    # Unsorted, torch promises no order; any will do.
    if not isinstance(k, int):
        raise emit.refuse("it takes as many elements as follow the number of samples")
    return _ordered(emit, x, k, axis, largest=largest)


@writes("sort")
def sort(emit: Emitter, x: Any, axis: int = -1, descending: bool = False) -> Any:
    size = x.shape[axis] if x.shape else 1
    if not isinstance(size, int):
        raise emit.refuse("it puts the samples in order")
    return _ordered(emit, x, size, axis, largest=descending)


def _ordered(emit: Emitter, x: Any, k: int, axis: int, *, largest: bool) -> Any:
    if not x.shape:
        raise emit.refuse("its input has no axes")
    return list(emit.ops("TopK", 2, x, np.array([k]), axis=axis % len(x.shape), largest=int(largest)))


def _position(kind: str) -> Writer:
    def write(emit: Emitter, x: Any, axis: int | None = None, keep: bool = False) -> Value:
        if axis is None:
            raise emit.refuse("it looks for one element among all samples")
        return emit.op(kind, x, axis=axis % max(1, len(x.shape)), keepdims=int(keep))

    return write


writes("argmax")(_position("ArgMax"))
writes("argmin")(_position("ArgMin"))


def _spread(emit: Emitter, x: Any, axes: Any, correction: Any, keep: bool, *, root: bool) -> Value:
    """Variance or standard deviation."""
    where = _axes(x, axes)
    count: Any = 1
    for axis in where:
        count = count * x.shape[axis]
    if isinstance(count, torch.SymInt):
        raise emit.refuse("it is taken over the samples")
    if count <= correction:
        raise emit.refuse("it is taken over too few elements")
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, where, keepdims=1))
    spread = emit.op("ReduceMean", emit.op("Mul", centred, centred), where, keepdims=int(keep))
    if correction:
        spread = emit.op("Mul", spread, emit.scalar(count / (count - correction), x.dtype))
    return emit.op("Sqrt", spread) if root else spread


@writes("var.correction", "std.correction")
def corrected_spread(emit: Emitter, x: Any, axes: Any, correction: Any, keep: bool) -> Value:
    return _spread(emit, x, axes, 1 if correction is None else correction, keep, root="std" in emit.origin)


@writes("var_mean.correction", "std_mean.correction")
def corrected_spread_and_mean(emit: Emitter, x: Any, axes: Any, correction: Any, keep: bool) -> list[Value]:
    mean = emit.op("ReduceMean", x, _axes(x, axes), keepdims=int(keep))
    return [corrected_spread(emit, x, axes, correction, keep), mean]


@writes("var.dim", "std.dim")
def spread(emit: Emitter, x: Any, axes: Any, unbiased: bool, keep: bool) -> Value:
    return _spread(emit, x, axes, int(unbiased), keep, root="std" in emit.origin)


@writes("linalg_vector_norm", "norm.ScalarOpt_dim")
def norm(emit: Emitter, x: Any, order: Any, axes: Any = None, keep: bool = False, _dtype: Any = None) -> Value:
    if "norm.ScalarOpt_dim" in emit.origin and order is None:
        order = 2
    kinds = {1: "ReduceL1", 2: "ReduceL2"}
    if order not in kinds:
        raise emit.refuse(f"it is a norm of order {order}")
    return emit.op(kinds[order], emit.cast(x, emit.result.dtype), _axes(x, axes), keepdims=int(keep))


@writes("cumsum")
def cumulative_sum(emit: Emitter, x: Any, axis: int, _dtype: Any = None) -> Value:
    return emit.op("CumSum", emit.cast(x, emit.result.dtype), np.array(axis % max(1, len(x.shape))))


@writes("any.dim", "all.dim")
def truth_along(emit: Emitter, x: Any, axis: int, keep: bool = False) -> Value:
    kind = "ReduceMax" if "any" in emit.origin else "ReduceMin"
    return emit.op(kind, emit.cast(x, torch.bool), _axes(x, axis), keepdims=int(keep))


@writes("any", "all")
def truth(emit: Emitter, x: Any) -> Value:
    return emit.op(
        "ReduceMax" if "any" in emit.origin else "ReduceMin", emit.cast(x, torch.bool), _axes(x, None), keepdims=0
    )
