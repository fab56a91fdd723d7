"""Tensors of the Keras model, and how they lie in the torch model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Flattened:
    """The features of a flattened tensor, in another order than Keras has them.

    Attributes:
        shape: Shape of the tensor before flattening, in Keras's axes.
        axes: The order in which its axes were flattened, the sample axis first.
    """

    shape: Shape
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the Keras model as a node of the torch graph.

    Attributes:
        node: The `torch.fx.Node`.
        shape: Shape in Keras's axes; None for the number of samples.
        axes: Axis `i` of the torch tensor is axis `axes[i]` of the Keras tensor.
        dtype: Keras's name of the type.
        mask: Keras's mask of the time steps, another value; None without one.
        flattened: Set where the feature axis is in another order than Keras's.
    """

    node: Any
    shape: Shape
    axes: tuple[int, ...]
    dtype: str
    mask: Value | None = None
    flattened: Flattened | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the torch tensor is laid out as the Keras tensor is."""
        return self.flattened is None and self.axes == plain_axes(self.rank)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the axes after the sample axis."""
        return tuple(size for size in self.shape[1:] if size is not None)

    def at(self, axis: int) -> int:
        """Where the torch tensor has an axis of the Keras tensor."""
        return self.axes.index(axis % self.rank)

    def like(self, node: Any, dtype: str | None = None) -> Value:
        """Another tensor of the same shape and layout."""
        return replace(self, node=node, dtype=dtype or self.dtype, mask=None)


def plain_axes(rank: int) -> tuple[int, ...]:
    """Keras's own order."""
    return tuple(range(rank))


def channels_first(rank: int) -> tuple[int, ...]:
    """The order in which torch has images: samples, channels, the rest."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else plain_axes(rank)


def same_memory(shape: Shape, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two orders of the axes differ only in where axes of size 1 stand."""
    return [axis for axis in first if shape[axis] != 1] == [axis for axis in second if shape[axis] != 1]
