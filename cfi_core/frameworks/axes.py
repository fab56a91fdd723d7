"""Names of the axes of inputs and activations."""

from __future__ import annotations


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
    if rank == 3:
        spatial: tuple[str, ...] = ("position",)
    elif rank <= 5:
        spatial = ("depth", "height", "width")[-(rank - 2) :]
    else:
        spatial = tuple(f"axis{i}" for i in (range(1, rank - 1) if last else range(2, rank)))
    return ("sample", *spatial, "channel") if last else ("sample", "channel", *spatial)
