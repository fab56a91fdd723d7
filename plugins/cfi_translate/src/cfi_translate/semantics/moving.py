"""Operators that move elements: which parts are cut out, which are repeated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfi_translate.grammar import Refusal, require
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import axes_of, number_of, rank_of, shape_of, sizes_of


class Cut(NamedTuple):
    """A slice of one axis as ONNX gives it; start and end are None where they follow the number of samples."""

    axis: int
    start: int | None
    end: int | None
    step: int


def cuts_of(
    op: Operation,
    data: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> list[Cut]:
    """What a Slice does to each of its axes; takes its inputs."""
    rank = rank_of(data)
    if op.version < 10:
        first, last, where = op.attributes["starts"], op.attributes["ends"], op.attributes.get("axes")
    else:
        first, last = sizes_of(starts, "start"), sizes_of(ends, "end")
        where = None if axes is None else sizes_of(axes, "axis")
    by = (1,) * len(first) if steps is None else sizes_of(steps, "step")
    cuts = []
    for start, end, axis, step in zip(first, last, range(len(first)) if where is None else where, by, strict=True):
        if axis is None or not step:
            raise Refusal("its axes and steps follow the number of samples")
        cuts.append(Cut(axis % rank, start, end, step))
    return cuts


class Padding(NamedTuple):
    """Padding before and behind each axis, negative where something is cut off, and what is put there."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    mode: str
    fill: Any


def padding_of(
    op: Operation, data: Value, pads: Value | None = None, fill: Value | None = None, axes: Value | None = None
) -> Padding:
    """What a Pad puts around its data; takes its inputs."""
    rank, number = rank_of(data), op.attributes.get("value", 0.0)
    given: Any = op.attributes.get("pads", op.attributes.get("paddings"))
    if op.version >= 11:
        given = sizes_of(pads, "padding")
        number = 0 if fill is None else number_of(fill, "number to pad with")
    require(given is not None and None not in given, "only a constant padding is supported")
    places = range(rank) if axes is None else [axis % rank for axis in axes_of(op, axes) or ()]
    begin, end = [0] * rank, [0] * rank
    for position, axis in enumerate(places):
        begin[axis], end[axis] = int(given[position]), int(given[len(given) // 2 + position])
    return Padding(tuple(begin), tuple(end), op.attributes.get("mode", "constant"), number)


def repeated_places(size: int, before: int, behind: int, mode: str) -> np.ndarray:
    """Which elements stand in an axis that is padded by its own, after what is cut off.

    Args:
        size: Of the axis.
        before: How many are put in front; negative where some are cut off.
        behind: How many are put behind.
        mode: `reflect`, `edge` or `wrap`.
    """
    require(mode in ("reflect", "edge", "wrap"), f"the mode {mode!r} is not supported")
    line = np.arange(size)[max(-before, 0) : size + min(behind, 0)]
    require(len(line) > 1 or mode != "reflect", "it reflects a single element")
    return np.pad(line, (max(before, 0), max(behind, 0)), mode=mode)  # type: ignore[call-overload]


def split_sizes(op: Operation) -> tuple[int, ...]:
    """Sizes of the parts along the axis that is split."""
    sizes = [shape_of(value)[op.attributes["axis"]] for value in op.outputs]
    require(None not in sizes, "it splits the sample axis")
    return tuple(size for size in sizes if size is not None)
