"""How an attribution shall be drawn: the options of the plotter, checked."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib

from cfi_core.errors import PlotError


@dataclass(frozen=True)
class Style:
    """The options that matter once it is settled what is drawn."""

    overlay: bool
    show_input: bool
    alpha: float
    clip_percentile: float
    colormap: str | None
    colorbar: bool


def check_options(
    channels: str,
    max_panels: int,
    max_samples: int,
    clip_percentile: float,
    alpha: float,
    panel_size: float,
    colormap: str | None,
) -> None:
    """Raises PlotError where an option does not fit."""
    if channels not in ("sum", "each"):
        raise PlotError(f'channels={channels!r} must be "sum" or "each".')
    if max_panels < 1 or max_samples < 1:
        raise PlotError(f"max_panels={max_panels} and max_samples={max_samples} must be at least 1.")
    if not 0 < clip_percentile <= 100:
        raise PlotError(f"clip_percentile={clip_percentile} must be above 0 and at most 100.")
    if not 0 < alpha <= 1:
        raise PlotError(f"alpha={alpha} must be above 0 and at most 1.")
    if not panel_size > 0:
        raise PlotError(f"panel_size={panel_size} must be above 0.")
    if colormap is not None and colormap not in matplotlib.colormaps:
        raise PlotError(f"colormap={colormap!r} is not a matplotlib colour map; list(matplotlib.colormaps) names them.")
