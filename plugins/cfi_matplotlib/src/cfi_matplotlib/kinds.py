"""What is no image: each kind of data has a drawing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.specs import Kind
from cfi_matplotlib.beeswarm import draw_beeswarm
from cfi_matplotlib.heading import is_of_inputs
from cfi_matplotlib.pictures import IMAGE
from cfi_matplotlib.table import draw_table, is_table
from cfi_matplotlib.text import draw_text, is_text
from cfi_matplotlib.timelines import draw_series, is_series
from cfi_matplotlib.volumes import draw_volume, is_volume


def draw_by_kind(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None,
    max_samples: int,
    channels: Literal["sum", "each"] | None,
    max_panels: int | None,
    outlier_perc: float,
    cmap: str | Colormap | None,
    show_input: bool,
    show_colorbar: bool,
    title: str | None,
) -> Figure | None:
    """Draws texts, series, videos, volumes and tables; None of what is something else.

    The options are those of `plot`, as far as they mean something here. A visualized feature is an input, not the
    values of one.
    """
    if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION:
        return None
    if is_text(attribution):
        return draw_text(attribution, samples=samples, max_samples=max_samples, cmap=cmap, title=title)
    if is_series(attribution):
        return draw_series(
            attribution,
            samples=samples,
            max_samples=max_samples,
            max_panels=max_panels,
            channels=channels or "each",
            outlier_perc=outlier_perc,
            cmap=cmap,
            show_colorbar=show_colorbar,
            title=title,
        )
    if is_volume(attribution):
        return draw_volume(
            attribution,
            samples=samples,
            max_samples=min(max_samples, 4),
            show_input=show_input,
            outlier_perc=outlier_perc,
            cmap=cmap,
            show_colorbar=show_colorbar,
            title=title,
        )
    if is_table(attribution) and samples is None and len(attribution.parts[0][0]) > max_samples:
        return draw_beeswarm(attribution, title=title)
    if is_table(attribution):
        return draw_table(attribution, samples=samples, max_samples=max_samples, title=title)
    return None


def is_mixed(attribution: Attribution) -> bool:
    """Whether there are several arrays, some of which are no images and have a drawing of their own."""
    return len(attribution.parts) > 1 and any(map(_is_drawn_apart, split(attribution)))


def split(attribution: Attribution) -> list[Attribution]:
    """Each array of an attribution as one of its own, with the input or the layer that it belongs to."""
    found = []
    for part, ((values, dims), names) in enumerate(zip(attribution.parts, attribution.part_names, strict=True)):
        own = slice(part, part + 1) if is_of_inputs(attribution) else slice(None)
        layers = attribution.layer
        found.append(
            replace(
                attribution,
                values=values,
                dims=dims,
                feature_names=names,
                inputs=attribution.inputs[own],
                input_dims=attribution.input_dims[own],
                layer=layers[part] if isinstance(layers, tuple) and part < len(layers) else layers,
            )
        )
    return found


def _is_drawn_apart(attribution: Attribution) -> bool:
    dims = set(attribution.parts[0][1])
    return not set(IMAGE) <= dims and (is_series(attribution) or is_table(attribution) or is_text(attribution))
