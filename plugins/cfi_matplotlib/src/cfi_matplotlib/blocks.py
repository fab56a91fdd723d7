"""From an array with named axes to rows of panels; nothing is drawn yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_core.specs import Kind
from cfi_matplotlib.heading import is_of_inputs, label_of_panel, label_of_row, name_of
from cfi_matplotlib.scales import unit_range

IMAGE = ("height", "width")


@dataclass(frozen=True)
class Block:
    """One array of the attribution, arranged into rows (samples) of panels.

    Attributes:
        form: How a panel is drawn.
        values: Sample, panel, then the axes of one panel.
        axes: Names of the axes of one panel.
        labels: One for each panel.
        samples: One label for each row.
        images: The input of each row (height, width, 3 colours between 0 and 1), or None.
        notes: What the reader must know about what was left out.
        scale_label: Stands beside the colour scale.
    """

    form: Literal["map", "picture", "lines", "bars"]
    values: np.ndarray
    axes: tuple[str, ...]
    labels: tuple[str, ...]
    samples: tuple[str, ...]
    images: tuple[np.ndarray | None, ...]
    notes: tuple[str, ...] = ()
    scale_label: str = ""


def arrange(
    attribution: Attribution,
    part: int,
    samples: Sequence[int] | None,
    max_samples: int,
    channels: str,
    max_panels: int,
    with_image: bool,
) -> Block:
    """Arranges one array of the attribution into panels; nothing is drawn yet."""
    values, dims = values_by_sample(attribution, part)
    count = len(values)
    chosen = _choose_samples(samples, max_samples, count)
    notes = [f"the first {len(chosen)} of {count} samples are shown"] if samples is None and len(chosen) < count else []
    form, axes = _form(attribution, dims)
    stacked = tuple(name for name in dims[1:] if name not in axes)
    values = values.transpose([dims.index(name) for name in ("sample", *stacked, *axes)])
    sizes = values.shape[1 : 1 + len(stacked)]
    values = values.reshape(count, math.prod(sizes), *values.shape[1 + len(stacked) :])[chosen]
    labels = [label_of_panel(stacked, index) for index in np.ndindex(sizes)]

    scale_label = ""
    if form == "picture" and stacked == ("channel",) and len(labels) == 3:
        # Colours become the last axis of a single panel.
        values, labels = np.moveaxis(values, 1, -1)[:, None], [""]
    elif form == "map" and stacked == ("channel",) and is_of_inputs(attribution) and channels == "sum":
        scale_label = "sum over channels" if len(labels) > 1 else ""
        values, labels = values.sum(axis=1, keepdims=True), [""]
    elif len(labels) > max_panels:
        notes.append(f"{max_panels} of {len(labels)} {', '.join(stacked)} maps are shown, the strongest first")
        strength = np.nansum(np.abs(values), axis=(0, *range(2, values.ndim)))
        order = np.argsort(-strength, kind="stable")[:max_panels]
        values, labels = values[:, order], [labels[panel] for panel in order]
    block = Block(
        form,
        values,
        axes,
        tuple(labels),
        tuple(label_of_row(attribution, part, sample, count) for sample in chosen),
        tuple(
            image_of(attribution, part, sample, count) if with_image and form == "map" else None for sample in chosen
        ),
        tuple(notes),
        scale_label,
    )
    if axes:
        return block
    # One value for each sample: a single bar chart over the samples.
    return replace(block, values=values.reshape(1, 1, -1), axes=("sample",), samples=("",), images=(None,))


def values_by_sample(attribution: Attribution, part: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values in double precision with the sample axis first."""
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


def _form(
    attribution: Attribution, dims: tuple[str, ...]
) -> tuple[Literal["map", "picture", "lines", "bars"], tuple[str, ...]]:
    """How values with these axes are drawn, and which axes one panel has."""
    if set(IMAGE) <= set(dims):
        return ("picture" if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION else "map"), IMAGE
    others = tuple(name for name in dims[1:] if name != "channel")
    if len(others) > 1:
        return "map", others[-2:]
    if "channel" not in dims:
        return "bars", others
    return ("lines", others) if others else ("bars", ("channel",))


def _choose_samples(samples: Sequence[int] | None, max_samples: int, count: int) -> list[int]:
    if samples is None:
        return list(range(min(count, max_samples)))
    chosen = [int(sample) for sample in samples]
    if not chosen or not all(0 <= sample < count for sample in chosen):
        raise PlotError(f"samples={samples!r} must name at least one of the {count} samples, counted from 0.")
    return chosen


def image_of(attribution: Attribution, part: int, sample: int, count: int) -> np.ndarray | None:
    """The input image behind a map as height, width and three colours between 0 and 1; None if there is none."""
    positions = [part] if is_of_inputs(attribution) else range(len(attribution.inputs))
    for position in positions:
        if position >= len(attribution.inputs):
            continue
        values, dims = attribution.inputs[position], attribution.input_dims[position]
        others = [name for name in dims if name not in ("sample", "channel", *IMAGE)]
        if others or not {"sample", *IMAGE} <= set(dims) or values.shape[dims.index("sample")] != count:
            continue
        order = [dims.index(name) for name in ("sample", *IMAGE, "channel") if name in dims]
        image = np.asarray(values.transpose(order)[sample], dtype=np.float64)
        image = image[..., None] if image.ndim == 2 else image
        if image.shape[-1] != 3:
            image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
        return unit_range(image)
    return None
