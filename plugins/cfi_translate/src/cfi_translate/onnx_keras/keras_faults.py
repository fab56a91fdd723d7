"""Faults of Keras, and how this translator gets round them.

`tests/test_onnx_keras_faults.py` fails when one of them is no longer there.

- `keras.ops.add` on tensorflow takes a second operand with one axis longer than 1 for a bias and adds it along the last
  axis (or axis 1) of that length, wherever its own axis is: `(2, 4, 4) + (1, 4, 1)` comes out wrong, and
  `(1, 2) + (1, 1, 2)` loses an axis. So does a `layers.Add`, and a model that takes any number of samples may do it for
  one sample only.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Shape = tuple[int | None, ...]


def add(first: Any, second: Any) -> Any:
    """A sum with broadcasting."""
    if adds_rightly(tuple(first.shape), tuple(second.shape)):
        return ops.add(first, second)
    if adds_rightly(tuple(second.shape), tuple(first.shape)):
        return ops.add(second, first)
    return ops.subtract(first, ops.negative(second))


def adds_rightly(first: Shape, second: Shape) -> bool:
    """Whether `keras.ops.add` is right for these shapes, whatever their unknown sizes turn out to be."""
    if len(first) < 2:
        return True
    fixed = [axis for axis, size in enumerate(second) if size is not None and size > 1]
    free = [axis for axis, size in enumerate(second) if size is None]
    if len(fixed) > 1:
        return True
    return not any(_may_misplace(first, second, axis) for axis in fixed or free)


def _may_misplace(first: Shape, second: Shape, axis: int) -> bool:
    """Whether the one axis of the second operand may be taken for another one."""
    size = second[axis]
    from_end = len(second) - axis
    may_be_last = _may_equal(first[-1], size)
    if len(second) > len(first):  # its axes of length 1 would be lost
        return may_be_last or _may_equal(first[1], size)
    if from_end == 1:
        return first[-1] != size and _may_equal(first[1], size)
    if may_be_last:
        return True
    return _may_equal(first[1], size) and from_end != len(first) - 1


def _may_equal(size: int | None, other: int | None) -> bool:
    return size != 1 and (size is None or other is None or size == other)
