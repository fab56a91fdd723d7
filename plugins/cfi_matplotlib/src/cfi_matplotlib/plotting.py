"""Images, time series and feature vectors, drawn with matplotlib alone.

A figure reads as a table: one row for each sample, one block of columns for each array of the
attribution (one per input, or one per layer). The maps in one row of a block share a colour scale.

`matplotlib.pyplot` is never used, so that no global state of the user's changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import Block, arrange
from cfi_matplotlib.grids import Layout
from cfi_matplotlib.heading import heading_of_picture, name_of, wrap
from cfi_matplotlib.images import draw_maps, draw_picture
from cfi_matplotlib.remarks import annotate
from cfi_matplotlib.scales import unit_range
from cfi_matplotlib.series import draw_bars, draw_lines
from cfi_matplotlib.style import Style, check_options
from cfi_matplotlib.table import draw_table, is_table
from cfi_matplotlib.text import draw_text, is_text


def plot(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 8,
    channels: Literal["sum", "each"] = "sum",
    max_panels: int = 11,
    overlay: bool = True,
    show_input: bool = True,
    alpha: float = 0.6,
    clip_percentile: float = 99.5,
    colormap: str | None = None,
    colorbar: bool = True,
    title: str | None = None,
    panel_size: float = 2.4,
) -> Figure:
    """Draws an attribution.

    Values with the axes `height` and `width` become heat maps, over the input in grey where there is
    an input image; a map of another resolution is stretched over the whole input. Results of a feature
    visualization are shown as the images they are. Values with one axis besides sample and channel
    become lines (with a channel axis) or bars (without). Any other two axes become a plain map. Tokens with names
    become text on the colours of their values (`cfi_matplotlib.text.draw_text`, the plotter "text", has its options),
    features with names bars, sorted, by their names and cells (`cfi_matplotlib.table.draw_table`, the plotter "table").

    Args:
        attribution: What to draw.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        channels: `"sum"` adds up the channels of an input attribution, `"each"` draws one map for each.
            The channels of a layer are always drawn one by one.
        max_panels: Most maps (or lines) drawn for one sample and array. The strongest ones (largest sum of
            absolute values over the samples drawn) are taken, and the figure says how many there are.
        overlay: Whether heat maps lie over the input.
        show_input: Whether the input is drawn beside the maps.
        alpha: Opacity of a heat map over the input.
        clip_percentile: The colour scale ends at this percentile of the absolute values, so that single
            outliers do not darken everything else; the colour bar is pointed where values lie beyond it.
        colormap: Name of a matplotlib colour map; None takes a diverging one, symmetric around zero, for
            values of which some are negative, and otherwise a sequential one that starts at zero.
        colorbar: Whether to draw the colour scale.
        title: Replaces the title, which tells method, toolset, target, layer and route.
        panel_size: Width of one panel in inches.

    Returns:
        A figure that is not registered with pyplot; `figure.savefig(path)` writes it.

    Raises:
        PlotError: There is nothing to draw (no values, or none that is finite), the axes cannot be drawn,
            or an option does not fit.
    """
    check_options(channels, max_panels, max_samples, clip_percentile, alpha, panel_size, colormap)
    if is_text(attribution):
        return draw_text(attribution, samples=samples, max_samples=max_samples, colormap=colormap, title=title)
    if is_table(attribution):
        return draw_table(attribution, samples=samples, max_samples=max_samples, title=title)
    blocks = [
        arrange(attribution, part, samples, max_samples, channels, max_panels, overlay or show_input)
        for part in range(len(attribution.parts))
    ]
    _check_values(attribution, blocks)
    style = Style(overlay, show_input, alpha, clip_percentile, colormap, colorbar)
    layouts = [Layout.of(block, style, panel_size) for block in blocks]
    widths = [layout.width for layout in layouts]
    rows = max(len(block.samples) for block in blocks)
    width = max(sum(widths), 2.2 * panel_size)
    heading = wrap(heading_of_picture(attribution) if title is None else title, width, points=10)
    notes = wrap("; ".join(dict.fromkeys(note for block in blocks for note in block.notes)), width, points=8)
    height = rows * max(layout.height for layout in layouts) + 0.2 * (heading.count("\n") + 2) + (0.3 if notes else 0)

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=10, parse_math=False)
    cells = figure.subfigures(rows, len(blocks), squeeze=False, width_ratios=widths)
    for column, (block, layout) in enumerate(zip(blocks, layouts, strict=True)):
        for row in range(len(block.samples)):
            _draw_row(cells[row, column], block, row, layout, style)
    if notes:
        figure.supxlabel(notes, fontsize=8, color="0.35", parse_math=False)
    return figure


def _check_values(attribution: Attribution, blocks: Sequence[Block]) -> None:
    if not any(np.isfinite(block.values).any() for block in blocks):
        raise PlotError(
            f"Cannot draw {name_of(attribution)}: none of its values is finite (all are NaN or infinite). "
            "Look for an overflow in the method, for example by explaining the logit of a smaller score."
        )


def _draw_row(cell: SubFigure, block: Block, row: int, layout: Layout, style: Style) -> None:
    cell.suptitle(block.samples[row], fontsize=9, parse_math=False)
    axes = list(cell.subplots(layout.lines, layout.columns, squeeze=False).flat)
    panels, image = block.values[row], block.images[row]
    if block.form == "lines":
        draw_lines(axes[0], panels, block)
    elif block.form == "bars":
        draw_bars(axes[0], panels[0], block)
    else:
        if image is not None and style.show_input:
            draw_picture(axes.pop(0), image, "input")
        for unused in axes[len(panels) :]:
            unused.set_axis_off()
        axes = axes[: len(panels)]
        if block.form == "picture":
            for axis, panel, label in zip(axes, panels, block.labels, strict=True):
                draw_picture(axis, unit_range(panel), label)
                annotate(axis, panel)
                axis.set_xlabel(f"values from {np.nanmin(panel):.3g} to {np.nanmax(panel):.3g}", fontsize=7)
        else:
            draw_maps(cell, axes, panels, image, block, style)
