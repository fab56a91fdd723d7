"""Images, time series and feature vectors, drawn with matplotlib alone.

A figure has a tile for each sample, and in it the panels of each array of the attribution (one per input, or one per
layer). The maps of one sample and array share a colour scale.

`matplotlib.pyplot` is never used, so that no global state of the user's changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import Block, Choice, arrange
from cfi_matplotlib.composites import put_together
from cfi_matplotlib.grids import Column, Row, draw_rows
from cfi_matplotlib.heading import heading_of, label_of_part, name_of, with_names
from cfi_matplotlib.images import notes_on_maps, panels_of_maps, panels_of_pictures
from cfi_matplotlib.kinds import draw_by_kind, is_mixed, split
from cfi_matplotlib.panels import Panel
from cfi_matplotlib.series import panel_of_series
from cfi_matplotlib.style import Interpolation, Method, Sign, Style, views_of


def plot(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 8,
    images: Any = None,
    target_names: Any = None,
    method: Method | Sequence[Method] | None = None,
    sign: Sign | Sequence[Sign] | None = None,
    outlier_perc: float = 2.0,
    cmap: str | Colormap | None = None,
    alpha_overlay: float = 0.8,
    interpolation: Interpolation | None = None,
    channels: Literal["sum", "each"] | None = None,
    max_panels: int | None = None,
    show_input: bool = True,
    show_colorbar: bool = True,
    title: str | None = None,
    panel_size: float | None = None,
) -> Figure:
    """Draws an attribution.

    Values with the axes `height` and `width` become maps, over the picture that was explained where there is one; a map
    of another resolution is stretched over the whole picture. Results of a feature visualization are shown as the
    images they are. All else is drawn by the plotter of its kind, which has options of its own (docs/pictures.md):
    series behind their values ("series"), tokens with names as text ("text"), tables as bars ("table") or, of more than
    `max_samples` samples, as a beeswarm ("beeswarm"), videos and volumes as frames or slices ("volume"), inputs of
    different kinds each in its own way. Series without inputs become lines, features without names a profile, any
    other two axes a plain map.

    Options that Captum's `visualize_image_attr` has mean what they mean there.

    Args:
        attribution: What to draw.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        images: The original pictures, one for each sample, whatever the model makes of them first: an array or tensor
            (colours first or last, bytes or numbers up to 1), or a list of arrays or PIL images, which may differ in
            size. They must show what the model saw: what was cropped for the model is cropped here, too. For a model
            of several image inputs a dict of them, by name or position. None shows the inputs as the model got them: in
            grey where these do not tell which colours they are, as after a mean was taken off.
        target_names: Names of the classes by index (a list, an array or a dict), where the model does not know them.
        method: How maps are drawn, or a list of several ways side by side: `"heat_map"`, `"blended_heat_map"` (over the
            picture in grey), `"original_image"`, `"masked_image"` (the picture, darker the weaker the values are) or
            `"alpha_scaling"` (the picture, more transparent the weaker they are). None blends a coarse map (at most
            half as many values along a side as the model got pixels), and draws a heat map of a finer one.
        sign: Which values are shown: `"all"`, `"positive"`, `"negative"` or `"absolute_value"`; a list goes with that
            of the methods. None shows all, and absolute values where a method shows no sign.
        outlier_perc: The strongest values that together make up this percentage of the sum of absolute values get the
            colour of the end of the scale, whose number has a "≥" (or "≤") then.
        cmap: A matplotlib colour map or its name; None takes a diverging one, symmetric around zero, for values of
            which some are negative, and otherwise a sequential one that starts at zero.
        alpha_overlay: Opacity of the strongest values over the picture; weaker ones are less opaque, and zero leaves
            the picture as it is.
        interpolation: Of maps that are coarser than their picture: `"bilinear"`, or `"nearest"`, which shows each value
            as a rectangle. None is bilinear over a picture, and nearest in a heat map; the figure says so.
        channels: `"sum"` adds up the channels, `"each"` draws one map for each. None adds up those of an input and
            draws each of a layer.
        max_panels: Most maps (or lines) drawn for one sample and array: the strongest ones (largest sum of absolute
            values over the samples drawn). None draws 11 of one sample, and 5 where there are more samples. The figure
            says how many there are.
        show_input: Whether the picture is drawn beside the maps.
        show_colorbar: Whether to draw the colour scale. Over a picture it shows each value's colour over dark to
            bright.
        title: Replaces the title, which tells method, toolset, target, layer and route.
        panel_size: Width of a square panel in inches; None: smaller the more there are.

    Returns:
        A figure that is not registered with pyplot; `figure.savefig(path)` writes it.

    Raises:
        PlotError: There is nothing to draw (no values, or none that is finite), the axes cannot be drawn,
            or an option does not fit.
    """
    _check_numbers(channels, max_panels, max_samples, panel_size)
    style = Style(views_of(method, sign), outlier_perc, cmap, alpha_overlay, interpolation, show_colorbar, show_input)
    attribution = with_names(attribution, target_names)
    of_maps = {"method": method, "sign": sign, "interpolation": interpolation, "images": images}
    drawn = draw_by_kind(
        attribution,
        samples=samples,
        max_samples=max_samples,
        channels=channels,
        max_panels=max_panels,
        outlier_perc=outlier_perc,
        cmap=cmap,
        show_input=show_input,
        show_colorbar=show_colorbar,
        title=title,
    )
    if drawn is not None:
        _refuse(attribution, of_maps)
        return drawn
    if is_mixed(attribution):
        _refuse(attribution, of_maps)
        return _plot_apart(attribution, samples, max_samples, title)
    choice = Choice(samples, max_samples, channels, max_panels, images)
    blocks = [arrange(attribution, part, choice) for part in range(len(attribution.parts))]
    _check_blocks(attribution, blocks)
    if not any(block.form == "map" for block in blocks):
        _refuse(attribution, of_maps)
    if not any(picture for block in blocks for picture in block.pictures):
        _refuse(attribution, {"images": images})
    rows = [
        Row(
            next(block.samples[row] for block in blocks if row < len(block.samples)),
            [Column(block.name, _panels(block, row, style)) for block in blocks if row < len(block.samples)],
        )
        for row in range(max(len(block.samples) for block in blocks))
    ]
    notes = chain.from_iterable((*block.notes, *_notes(block, style)) for block in blocks)
    return draw_rows(
        rows, heading_of(attribution) if title is None else title, "; ".join(dict.fromkeys(notes)), panel_size
    )


def _plot_apart(attribution: Attribution, samples: Sequence[int] | None, max_samples: int, title: str | None) -> Figure:
    figures = [
        plot(one, samples=samples, max_samples=max_samples, title=label_of_part(attribution, part))
        for part, one in enumerate(split(attribution))
    ]
    return put_together(figures, heading_of(attribution) if title is None else title)


def _panels(block: Block, row: int, style: Style) -> list[Panel]:
    if block.form == "map":
        return panels_of_maps(block, row, style)
    return panels_of_pictures(block, row) if block.form == "picture" else [panel_of_series(block, row)]


def _notes(block: Block, style: Style) -> list[str]:
    if block.form == "picture" and block.values.shape[-1] == 3:
        return ["the three channels are shown as red, green and blue"]
    return list(notes_on_maps(block, style)) if block.form == "map" else []


def _check_numbers(channels: str | None, max_panels: int | None, max_samples: int, panel_size: float | None) -> None:
    if channels not in (None, "sum", "each"):
        raise PlotError(f'channels={channels!r} must be "sum" or "each".')
    if (max_panels is not None and max_panels < 1) or max_samples < 1:
        raise PlotError(f"max_panels={max_panels} and max_samples={max_samples} must be at least 1.")
    if panel_size is not None and not panel_size > 0:
        raise PlotError(f"panel_size={panel_size} must be above 0.")


def _check_blocks(attribution: Attribution, blocks: Sequence[Block]) -> None:
    if not any(np.isfinite(block.values).any() for block in blocks):
        raise PlotError(
            f"Cannot draw {name_of(attribution)}: none of its values is finite (all are NaN or infinite). "
            "Look for an overflow in the method, for example by explaining the logit of a smaller score."
        )


def _refuse(attribution: Attribution, options: Mapping[str, Any]) -> None:
    """Raises PlotError where something is asked of maps, and there are none."""
    given = [f"{name}=" for name, value in options.items() if value is not None]
    if given:
        dims = " and ".join(str(dims) for _, dims in attribution.parts)
        raise PlotError(
            f"{' and '.join(given)} say how maps of height and width are drawn, and the axes are {dims}. "
            f"Leave them out."
        )
