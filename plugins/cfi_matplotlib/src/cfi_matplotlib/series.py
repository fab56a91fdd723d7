"""Lines and bars: values with one axis besides those of samples and channels."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cfi_matplotlib.blocks import Block
from cfi_matplotlib.panels import Panel
from cfi_matplotlib.remarks import annotate

_POSITIVE, _NEGATIVE = "#b2182b", "#2166ac"


def panel_of_series(block: Block, row: int) -> Panel:
    """Lines or bars, as the block says."""
    values = block.values[row]

    def draw(axis: Axes) -> None:
        if block.form == "lines":
            draw_lines(axis, values, block)
        else:
            draw_bars(axis, values[0], block)

    return Panel(draw, (1, 2), is_chart=True)


def draw_lines(axis: Axes, panels: np.ndarray, block: Block) -> None:
    """A line for each panel, on common axes."""
    for values, label in zip(panels, block.labels, strict=True):
        axis.plot(values, label=label, linewidth=1.0)
    axis.axhline(0.0, color="0.6", linewidth=0.6)
    axis.set_xlabel(block.axes[0], fontsize=8)
    axis.tick_params(labelsize=7)
    if len(panels) > 1:
        axis.legend(fontsize=6, ncols=1 + len(panels) // 7)
    annotate(axis, panels)


def draw_bars(axis: Axes, values: np.ndarray, block: Block) -> None:
    """A bar for each value, red above zero and blue below."""
    # Two filled step lines, since single bars are slow to draw for thousands of features.
    edges = np.arange(len(values) + 1) - 0.5
    axis.stairs(np.where(values > 0, values, 0.0), edges, fill=True, color=_POSITIVE)
    axis.stairs(np.where(values < 0, values, 0.0), edges, fill=True, color=_NEGATIVE)
    axis.axhline(0.0, color="0.6", linewidth=0.6)
    axis.set_xlabel(block.axes[0], fontsize=8)
    axis.set_xlim(edges[0], edges[-1])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axis.tick_params(labelsize=7)
    annotate(axis, values)
