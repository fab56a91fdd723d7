"""Names of the axes of inputs and activations, and permutations of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Arrays = Sequence[np.ndarray]
"""One for each input, output or layer."""

Permutation = tuple[int, ...] | None
"""Axis `i` of the new array is axis `permutation[i]` of the old one; None where the axes stay as they are."""


def named_axes(rank: int, channel: int | None, layer: str | None = None) -> tuple[str, ...]:
    """Names for the axes of a tensor, samples first.

    Args:
        rank: Number of axes.
        channel: Position of the channels, 1 or the last; of no meaning for tensors of two axes and fewer.
        layer: Layer that the tensor comes from; without one it is an input.
    """
    if rank <= 2:
        return ("sample", "unit" if layer else "feature")[:rank]
    last = channel == rank - 1
    spatial = ("position",) if rank == 3 else ("depth", "height", "width")[-(rank - 2) :]
    if rank > 5:
        spatial = tuple(f"axis{i}" for i in (range(1, rank - 1) if last else range(2, rank)))
    return ("sample", *spatial, "channel") if last else ("sample", "channel", *spatial)


def permute(array: np.ndarray, permutation: Permutation) -> np.ndarray:
    """The array with its axes in the new order."""
    return array if permutation is None else np.transpose(array, permutation)


def permute_all(arrays: Arrays, permutations: Sequence[Permutation]) -> list[np.ndarray]:
    """Each array with its axes in its new order."""
    return [permute(array, permutation_at(permutations, i)) for i, array in enumerate(arrays)]


def unpermute(array: np.ndarray, permutation: Permutation) -> np.ndarray:
    """The array with its axes in the old order again."""
    return array if permutation is None else np.transpose(array, inverse(permutation))


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes another."""
    return tuple(int(axis) for axis in np.argsort(permutation))


def compose(first: Permutation, then: Permutation) -> Permutation:
    """The permutation that does both, one after the other."""
    if first is None or then is None:
        return then if first is None else first
    axes = tuple(first[axis] for axis in then)
    return None if axes == tuple(range(len(axes))) else axes


def permutation_at(permutations: Sequence[Permutation], position: int) -> Permutation:
    """The permutation of one of several arrays; those that are not mentioned stay as they are."""
    return permutations[position] if position < len(permutations) else None
