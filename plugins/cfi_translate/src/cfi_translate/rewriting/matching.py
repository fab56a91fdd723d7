"""What rules ask of operations and values."""

from __future__ import annotations

import numpy as np

from cfi_translate.program import Operation, Value


def number(value: Value | None) -> float | None:
    """The one number that a value is."""
    found = None if value is None else value.uniform
    return float(found) if found is not None and found.dtype.kind in "fiu" else None


def other(operation: Operation, value: Value | None) -> Value | None:
    """The operand beside one of two."""
    if len(operation.inputs) != 2:
        return None
    first, second = operation.inputs
    return second if first is value else first if second is value else None


def reduced_axes(operation: Operation) -> tuple[int, ...] | None:
    """The axes of a reduction, counted from the front; None if they are not known, or not given."""
    axes, value, source = operation.attributes.get("axes"), operation.input(1), operation.input(0)
    if axes is None and value is not None:
        axes = value.constant
    if axes is None or source is None or source.rank is None or not len(axes):
        return None
    return tuple(sorted(int(axis) % source.rank for axis in axes))


def array_beside(operation: Operation, value: Value, shape: tuple[int, ...]) -> np.ndarray | None:
    """The constant that an operation takes beside a value, if it is of this shape but for axes of size 1 before."""
    beside = other(operation, value)
    if beside is None or not beside.is_constant or beside.dtype != value.dtype or beside.shape is None:
        return None
    leading = len(beside.shape) - len(shape)
    if beside.shape[max(leading, 0) :] != shape[max(-leading, 0) :] or any(
        size != 1 for size in (*beside.shape[: max(leading, 0)], *shape[: max(-leading, 0)])
    ):
        return None
    array = beside.constant
    return None if array is None else array.reshape(shape)


def per_channel(operation: Operation | None, *kinds: str) -> tuple[Value, np.ndarray] | None:
    """The data and, as a factor or summand, the constant of an operation that has one number for each channel."""
    if operation is None or operation.kind not in kinds or operation.version < 7:
        return None
    data, rank = operation.inputs[0], operation.output.rank
    if operation.kind in ("Add", "Mul") and data is not None and data.is_constant:
        data = operation.inputs[1]
    if data is None or data.is_constant or data.shape is None or data.shape != operation.output.shape:
        return None
    if rank not in (2, 3, 4, 5) or (channels := data.shape[1]) is None or data.dtype != np.float32:
        return None
    beside = array_beside(operation, data, (channels, *(1,) * (rank - 2)))
    if beside is None or (operation.kind == "Div" and (data is not operation.inputs[0] or not beside.all())):
        return None
    if operation.kind == "Sub" and data is not operation.inputs[0]:
        return None
    numbers = beside.reshape(-1)
    return data, {"Div": 1 / numbers if operation.kind == "Div" else numbers, "Sub": -numbers}.get(
        operation.kind, numbers
    )
