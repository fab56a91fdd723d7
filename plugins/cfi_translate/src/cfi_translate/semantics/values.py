"""What operators ask of the values that they take: their shapes, and those that must be known."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from typing import Any

import numpy as np

from cfi_translate.grammar import Refusal, require
from cfi_translate.program import Operation, Shape, Value


def shape_of(value: Value | None) -> Shape:
    """Sizes, None for those that follow the number of samples."""
    if value is None or value.shape is None:
        raise Refusal("the sizes of its input or output are not known")
    return value.shape


def rank_of(value: Value | None) -> int:
    """Number of axes."""
    return len(shape_of(value))


def static(sizes: Sequence[int | None]) -> tuple[int, ...]:
    """Sizes that do not follow the number of samples."""
    found = tuple(size for size in sizes if size is not None)
    require(len(found) == len(sizes), "sizes that it needs follow the number of samples")
    return found


def constant_of(value: Value | None, what: str) -> np.ndarray:
    """An array that is the same for any samples."""
    constant = None if value is None else value.constant
    if constant is None:
        raise Refusal(f"only a constant {what} is supported")
    return constant


def borrowed(value: Value | None, what: str) -> np.ndarray:
    """The same for whoever makes a copy at once."""
    constant = None if value is None else value.borrow()
    if constant is None:
        raise Refusal(f"only a constant {what} is supported")
    return constant


def number_of(value: Value | None, what: str) -> float | int | bool:
    """A constant of one element."""
    uniform = None if value is None else value.uniform
    if uniform is None:
        raise Refusal(f"only a constant {what} is supported")
    number: float | int | bool = uniform.item()
    return number


def sizes_of(value: Value | None, what: str) -> tuple[int | None, ...]:
    """Integers, None for those that follow the number of samples."""
    sizes = None if value is None else value.sizes
    if sizes is None:
        raise Refusal(f"only a constant {what} is supported")
    return sizes


def axes_of(op: Operation, axes: Value | None) -> tuple[int, ...] | None:
    """Axes, an attribute of old operators and an input of new ones; None if they are left out."""
    given = op.attributes.get("axes")
    if given is None and axes is not None:
        given = constant_of(axes, "list of axes").reshape(-1).tolist()
    return None if given is None else tuple(int(axis) for axis in given)


def reduced_axes(op: Operation, axes: Value | None, rank: int) -> tuple[int, ...]:
    """The axes that are reduced, from first to last; none where nothing is."""
    given = axes_of(op, axes)
    if not given:
        return () if op.attributes.get("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted({axis % rank for axis in given}))


def squeezed_axes(op: Operation, data: Value, axes: Value | None) -> tuple[int, ...]:
    """The axes that go, from first to last: all of size 1 where none are given."""
    given = axes_of(op, axes)
    if given is None:
        given = tuple(axis for axis, size in enumerate(shape_of(data)) if size == 1)
    return tuple(sorted(axis % rank_of(data) for axis in given))


def unsqueezed_axes(op: Operation, data: Value, axes: Value | None) -> tuple[int, ...]:
    """Where the new axes are in the result, from first to last."""
    given = axes_of(op, axes)
    if given is None:
        raise Refusal("its axes are missing")
    return tuple(sorted(axis % (rank_of(data) + len(given)) for axis in given))


def softmax_axes(op: Operation, data: Value) -> tuple[int, ...]:
    """The axes over which a softmax is taken: before version 13 all from the given one on count as one."""
    rank = rank_of(data)
    first = op.attributes["axis"] % rank if rank else 0
    return tuple(range(first, rank)) if op.version < 13 and rank else (first,)


def clip_bounds(op: Operation, low: Value | None, high: Value | None) -> tuple[Any, Any]:
    """Lower and upper bound: a number where it is constant, None where there is none, a value otherwise."""
    if op.version < 11:
        largest = float(np.finfo(np.float32).max)
        bounds = (op.attributes.get("min"), op.attributes.get("max"))
        least, most = (None if one is None or abs(one) >= largest else one for one in bounds)
        return least, most
    least, most = (
        one if one is None or one.constant is None else one.constant.reshape(()).item() for one in (low, high)
    )
    return least, most


_STANDARD = {"Selu": {"alpha": 1.6732632, "gamma": 1.0507010}, "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5}}


def is_standard(op: Operation) -> bool:
    """Whether a Selu or HardSigmoid has the settings that other frameworks build in."""
    return all(isclose(op.attributes[name], one, rel_tol=1e-6) for name, one in _STANDARD[op.kind].items())


def require_inference(op: Operation, *, ratio: Value | None = None, training: Value | None = None) -> None:
    """Refuses what an operator does in training mode.

    Args:
        op: Dropout or BatchNormalization.
        ratio: Input of Dropout: with a ratio of 0 training changes nothing.
        training: Input of Dropout.
    """
    told = "it is in training mode; export the model in inference mode"
    if training is not None:
        is_training = training.uniform
        require(is_training is not None, "whether it is in training mode is computed while the model runs")
        require(not is_training or (ratio is not None and ratio.uniform == 0), told)
    require(not op.attributes.get("training_mode"), told)
    if op.version < 7:
        require(op.attributes.get("is_test"), told)


def wrap_indices(indices: np.ndarray, size: int | np.ndarray) -> np.ndarray:
    """Places along an axis of some size, counted from the front; negative ones count from the end."""
    wrapped = np.where(indices < 0, indices + size, indices)
    require(((wrapped >= 0) & (wrapped < size)).all(), "an index lies outside")
    return wrapped.astype(np.int64)
