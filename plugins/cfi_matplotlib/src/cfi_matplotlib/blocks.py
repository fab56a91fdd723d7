"""From an array with named axes to rows of panels; nothing is drawn yet."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_core.specs import Kind
from cfi_matplotlib.heading import is_of_inputs, label_of_panel, label_of_part, label_of_sample, name_of
from cfi_matplotlib.pictures import IMAGE, Picture, pictures_of

Form = Literal["map", "picture", "lines", "bars"]


@dataclass(frozen=True)
class Choice:
    """What of an attribution is drawn.

    Attributes:
        samples: Positions of the samples; None: the first ones.
        max_samples: How many of these.
        channels: `"sum"` or `"each"`; None: the sum of an input's channels, each of a layer's.
        max_panels: Most maps of one sample and array; None: few, where there are several samples.
        images: The pictures that the inputs were made of.
    """

    samples: Sequence[int] | None = None
    max_samples: int = 8
    channels: str | None = None
    max_panels: int | None = None
    images: Any = None

    def of(self, count: int) -> list[int]:
        """Positions of the samples, of so many.

        Raises:
            PlotError: One of them is none, or there is none.
        """
        if self.samples is None:
            return list(range(min(count, self.max_samples)))
        try:
            chosen = [operator.index(sample) for sample in self.samples]
        except TypeError:
            chosen = []
        if not chosen or not all(0 <= sample < count for sample in chosen):
            raise PlotError(
                f"samples={self.samples!r} must name at least one of the {count} samples, counted from 0, in a list."
            )
        return chosen


@dataclass(frozen=True, eq=False)
class Block:
    """One array of the attribution, arranged into rows (samples) of panels.

    Attributes:
        form: How a panel is drawn.
        values: Sample, panel, then the axes of one panel.
        axes: Names of the axes of one panel.
        labels: One for each panel.
        samples: One label for each row.
        pictures: What lies behind the maps of each row; None where there is no image.
        notes: What the reader must know about what was left out.
        scale_label: Stands beside the colour scale.
        name: Of the input or the layer, where there are several.
        is_difference: What one attribution has more than another, which has two signs whatever its values are.
    """

    form: Form
    values: np.ndarray
    axes: tuple[str, ...]
    labels: tuple[str, ...]
    samples: tuple[str, ...]
    pictures: tuple[Picture | None, ...]
    notes: tuple[str, ...] = ()
    scale_label: str = ""
    name: str = ""
    is_difference: bool = False


def is_difference(attribution: Attribution) -> bool:
    """Whether another one was taken away from it."""
    return "subtracted" in attribution.provenance.get("applied", {})


def arrange(attribution: Attribution, part: int, choice: Choice) -> Block:
    """Arranges one array of the attribution into panels.

    Raises:
        PlotError: The array cannot be drawn, or the choice does not fit.
    """
    values, dims = values_by_sample(attribution, part)
    chosen, count = choice.of(len(values)), len(values)
    cut = choice.samples is None and len(chosen) < count
    notes = [f"the first {len(chosen)} of {count} samples are shown"] if cut else []
    form, axes = _form(attribution, dims)
    sizes = [values.shape[dims.index(name)] for name in axes]
    if form == "map" and axes == IMAGE and math.prod(sizes) == 1:
        # A map of one value is none: the channels are what is left to compare.
        values = values.squeeze(tuple(dims.index(name) for name in IMAGE))
        dims = tuple(name for name in dims if name not in IMAGE)
        form, axes = _form(attribution, dims)
        notes.append("one value for each channel: the map has 1 × 1")
    stacked = tuple(name for name in dims[1:] if name not in axes)
    values = values.transpose([dims.index(name) for name in ("sample", *stacked, *axes)])
    channels = choice.channels or ("sum" if is_of_inputs(attribution) else "each")
    scale_label = ""
    if form == "map" and "channel" in stacked and channels == "sum":
        axis = 1 + stacked.index("channel")
        scale_label = "sum over channels" if values.shape[axis] > 1 else ""
        values, stacked = values.sum(axis=axis), tuple(name for name in stacked if name != "channel")
    shape = values.shape[1 : 1 + len(stacked)]
    values = values.reshape(count, math.prod(shape), *values.shape[1 + len(stacked) :])[chosen]
    labels = [label_of_panel(stacked, index) for index in np.ndindex(shape)]
    if form == "picture" and stacked == ("channel",) and len(labels) == 3:
        # Colours become the last axis of a single panel.
        values, labels = np.moveaxis(values, 1, -1)[:, None], [""]
    most = choice.max_panels or (5 if form == "map" and len(chosen) > 1 else 11)
    values, labels, left_out = _strongest(values, labels, stacked, most)
    is_map = form == "map" and axes == IMAGE
    pictures = (
        pictures_of(attribution, part, (count, *values.shape[2:]), chosen, choice.images)
        if is_map
        else [None] * len(chosen)
    )
    block = Block(
        form,
        values,
        axes,
        tuple(labels),
        tuple(label_of_sample(attribution, sample, count) for sample in chosen),
        tuple(pictures),
        (*notes, *left_out),
        scale_label,
        label_of_part(attribution, part),
        is_difference(attribution),
    )
    if axes:
        return block
    # One value for each sample: a single bar chart over the samples.
    return replace(block, values=values.reshape(1, 1, -1), axes=("sample",), samples=("",), pictures=(None,))


def values_by_sample(attribution: Attribution, part: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values in double precision with the sample axis first, and the names of the axes."""
    values, dims = attribution.parts[part]
    if values.ndim != len(dims) or len(set(dims)) != len(dims):
        raise PlotError(f"Cannot draw {name_of(attribution)}: {values.ndim} axes are named {dims}.")
    if values.size == 0:
        raise PlotError(f"Cannot draw {name_of(attribution)}: its shape {values.shape} holds no values.")
    if values.dtype.kind not in "fiub":
        raise PlotError(f"Cannot draw {name_of(attribution)}: its values are {values.dtype}, not real numbers.")
    values = np.asarray(values, dtype=np.float64)
    if "sample" not in dims:
        return values[None], ("sample", *dims)
    position = dims.index("sample")
    return np.moveaxis(values, position, 0), ("sample", *dims[:position], *dims[position + 1 :])


def _strongest(
    values: np.ndarray, labels: list[str], stacked: tuple[str, ...], most: int
) -> tuple[np.ndarray, list[str], list[str]]:
    """The panels with the largest sums of absolute values, and a note on the others."""
    if len(labels) <= most:
        return values, labels, []
    strength = np.nansum(np.abs(values), axis=(0, *range(2, values.ndim)))
    order = np.argsort(-strength, kind="stable")[:most]
    share = strength[order].sum() / (strength.sum() or 1.0)
    what = " and ".join(f"{name}s" for name in stacked)
    note = f"the strongest {most} of {len(labels)} {what} are shown, which have {share:.0%} of the absolute values"
    return values[:, order], [labels[panel] for panel in order], [note]


def _form(attribution: Attribution, dims: tuple[str, ...]) -> tuple[Form, tuple[str, ...]]:
    """How values with these axes are drawn, and which axes one panel has."""
    if set(IMAGE) <= set(dims):
        return ("picture" if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION else "map"), IMAGE
    others = tuple(name for name in dims[1:] if name != "channel")
    if len(others) > 1:
        return "map", others[-2:]
    if "channel" not in dims:
        return "bars", others
    return ("lines", others) if others else ("bars", ("channel",))
