"""A Keras tensor whose axes may stand in another order than in the ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cfi_translate.program import Order


@dataclass(frozen=True, eq=False)
class Tensor:
    """A Keras tensor, and which axes of the ONNX model it has.

    Attributes:
        value: The symbolic tensor.
        axes: Axis `i` of it is axis `axes[i]` in the ONNX model.
        order: Where an image was flattened as it lay: position `k` of the last axis is position `order[k]` in the
            ONNX model.
    """

    value: Any
    axes: Order
    order: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def dtype(self) -> str:
        """Name of the type of the elements."""
        return str(self.value.dtype)

    @property
    def is_float(self) -> bool:
        """Whether the elements are of a type that layers compute in."""
        return "float" in self.dtype

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Its shape in the order of the ONNX model."""
        return tuple(self.value.shape[self.position(axis)] for axis in range(self.rank))

    def position(self, axis: int) -> int:
        """Where an axis of the ONNX model is; it may be counted from the end."""
        return self.axes.index(axis % self.rank)

    def positions(self, axes: Sequence[int]) -> Order:
        """Where axes of the ONNX model are."""
        return tuple(self.position(axis) for axis in axes)

    def without(self, gone: Sequence[int]) -> Order:
        """The order of the axes that are left when some of the ONNX model go."""
        left = [axis for axis in range(self.rank) if axis not in gone]
        return tuple(left.index(axis) for axis in self.axes if axis not in gone)

    def transpose(self, permutation: Sequence[int]) -> Tensor:
        """The same tensor, its axes counted otherwise: axis `i` is what was axis `permutation[i]`."""
        order = list(permutation)
        return replace(self, axes=tuple(order.index(axis) for axis in self.axes))


def identity(rank: int) -> Order:
    """The order of the ONNX model."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """The order of a batch of images, signals or volumes in Keras."""
    return (0, *range(2, rank), 1)
