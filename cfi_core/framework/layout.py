"""Where the values of a layer lie in the space of the input: tokens on a grid, windows, channels on any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from cfi_core.framework.axes import Permutation


@dataclass(frozen=True)
class Layout:
    """Which position of a layer's output lies where.

    Positions are counted over all axes but those of samples and channels, row by row; where the first axis holds
    several rows of each sample (windows), over these first.

    Attributes:
        space: Sizes of the axes of space, such as `(height, width)`.
        order: For each place in space, row by row, the position that lies there.
        channel: Channel axis of the layer's output.
        rows: How many rows of the first axis make one sample.
        others: Positions that lie nowhere, such as a class token.
    """

    space: tuple[int, ...]
    order: tuple[int, ...]
    channel: int
    rows: int = 1
    others: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether every position lies where it stands, so that nothing but the channel axis is said."""
        return self.rows == 1 and not self.others and self.order == tuple(range(len(self.order)))

    @property
    def back(self) -> tuple[int, ...]:
        """For each position, where it stands among the places in space followed by the other positions."""
        return tuple(int(place) for place in np.argsort((*self.order, *self.others)))

    def positions(self, array: np.ndarray) -> np.ndarray:
        """An output of the layer as `(samples, positions, channels)`."""
        last = np.moveaxis(array, self.channel, -1)
        return last.reshape(len(array) // self.rows, -1, last.shape[-1])

    def in_space(self, array: np.ndarray) -> np.ndarray:
        """An output of the layer as `(samples, *space, channels)`, without the other positions."""
        found = self.positions(array)[:, list(self.order)]
        return found.reshape(len(found), *self.space, found.shape[-1])

    def elsewhere(self, array: np.ndarray) -> np.ndarray:
        """The other positions of an output of the layer, `(samples, others, channels)`."""
        return self.positions(array)[:, list(self.others)]

    def turned(self, axes: Permutation, shape: Sequence[int]) -> Layout:
        """The same for outputs of that shape whose axes stand in another order, samples in front."""
        if axes is None:
            return self
        sizes = [size for axis, size in enumerate(shape) if axis not in (0, self.channel)]
        rest = [axis for axis in range(1, len(shape)) if axis != self.channel]
        moved = [rest.index(axis) + 1 for axis in axes[1:] if axis != self.channel]
        numbers = np.arange(self.rows * prod(sizes)).reshape(self.rows, *sizes).transpose(0, *moved).ravel()
        now = np.argsort(numbers)
        return Layout(
            self.space,
            tuple(int(now[position]) for position in self.order),
            axes.index(self.channel),
            self.rows,
            tuple(int(now[position]) for position in self.others),
        )


@dataclass(frozen=True)
class Placed:
    """A layer whose values have a place in the space of the input, or have none that could be found.

    Attributes:
        layout: Where they lie; None: the values stay as the layer gives them.
        axes: Names of the axes of space.
        others: What the other positions are called.
        found: How it was found, or why not, in words.
    """

    layout: Layout | None
    axes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    found: str = ""
