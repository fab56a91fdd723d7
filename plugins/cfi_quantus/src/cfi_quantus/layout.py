"""Between the axes of the user's model and those that Quantus takes: axes are permuted or added, never reshaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfi_core.errors import MethodError
from cfi_core.framework import Permutation, inverse

SAMPLE, CHANNEL = "sample", "channel"


@dataclass(frozen=True)
class Layout:
    """How arrays of the user's stand before Quantus.

    Attributes:
        order: Axis `i` before Quantus is axis `order[i]` of the user's.
        channel: Where the channels stand before Quantus; None where there are none.
        added: The channels are an axis of length one that the user's arrays do not have.
    """

    order: tuple[int, ...]
    channel: int | None = 1
    added: bool = False

    def show(self, array: np.ndarray) -> np.ndarray:
        """An array with the user's axes, before Quantus; a copy."""
        shown = np.transpose(array, self.order)
        return np.array(shown[:, None] if self.added else shown)

    def show_map(self, array: np.ndarray) -> np.ndarray:
        """An array without the user's channel axis, before Quantus, with one channel."""
        if self.added or self.channel is None:
            return self.show(array)
        spatial = [axis for axis in self.order if axis != self.order[self.channel]]
        if spatial != sorted(spatial):
            raise MethodError("The model holds the spatial axes in another order, in which a map cannot be brought.")
        return np.array(np.expand_dims(array, self.channel))

    def bring_home(self, array: np.ndarray) -> np.ndarray:
        """The user's axes again."""
        return np.transpose(array[:, 0] if self.added else array, inverse(self.order))


def channels_first(dims: Sequence[str]) -> Layout:
    """Samples, channels and the rest, as Quantus wants them; a channel of its own where the user's arrays have none.

    Quantus takes the sizes behind the channels for the number of features, so tables need a channel too.
    """
    if CHANNEL not in dims:
        return Layout(tuple(range(len(dims))), added=True)
    channel = list(dims).index(CHANNEL)
    rest = (axis for axis in range(1, len(dims)) if axis != channel)
    return Layout((0, channel, *rest))


def as_model(dims: Sequence[str], axes: Permutation) -> Layout:
    """As the model takes them that Quantus gets itself, because it changes or reads its modules."""
    order = tuple(range(len(dims))) if axes is None else tuple(axes)
    return Layout(order, order.index(list(dims).index(CHANNEL)) if CHANNEL in dims else None)
