"""Tensors of the Keras model, and how they lie in the torch model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras

from cfi_translate.grammar import Refusal

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
class Laid:
    """A tensor of the Keras model as a node of the torch graph, which may lie otherwise there.

    Attributes:
        node: The `torch.fx.Node`.
        shape: Shape in Keras's axes; None for the number of samples.
        axes: Axis `i` of the torch tensor is axis `axes[i]` of the Keras tensor.
        dtype: Keras's name of the type.
        mask: Keras's mask of the time steps, another tensor; None without one.
        flattened: Set where the feature axis is in another order than Keras's.
    """

    node: Any
    shape: Shape
    axes: tuple[int, ...]
    dtype: str
    mask: Laid | None = None
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
    def extents(self) -> tuple[int, ...]:
        """Sizes of the torch tensor's axes after the first two, those of the samples and channels of images."""
        return tuple(size for axis in self.axes[2:] if (size := self.shape[axis]) is not None)

    @property
    def channels(self) -> int:
        """Size of the torch tensor's second axis."""
        return self.shape[self.axes[1]] or 0

    def at(self, axis: int) -> int:
        """Where the torch tensor has an axis of the Keras tensor."""
        return self.axes.index(axis % self.rank)

    def like(self, node: Any, dtype: str | None = None) -> Laid:
        """Another tensor of the same shape and layout."""
        return replace(self, node=node, dtype=dtype or self.dtype, mask=None)


def tensors_in(structure: Any) -> list[Laid]:
    """The tensors in nested lists, tuples and dictionaries, in Keras's order."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Laid)]


def plain_axes(rank: int) -> tuple[int, ...]:
    """Keras's own order."""
    return tuple(range(rank))


def channels_first(rank: int) -> tuple[int, ...]:
    """The order in which torch has images: samples, channels, the rest."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else plain_axes(rank)


def axes_of(given: Any, rank: int) -> tuple[int, ...]:
    """Axes as Keras is given them, one or several, which may be counted from the end.

    Raises:
        Refusal: None are given, which stands for all.
    """
    if given is None:
        raise Refusal("it goes over all axes, that of the samples included")
    return tuple(int(axis) % rank for axis in (given if isinstance(given, list | tuple) else (given,)))


def same_memory(shape: Shape, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two orders of the axes differ only in where axes of size 1 stand."""
    return [axis for axis in first if shape[axis] != 1] == [axis for axis in second if shape[axis] != 1]
