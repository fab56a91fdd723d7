"""The curves of checks: deletion and insertion with their chance line, the cascade of randomised layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_core import Check, Checks
from cfi_core.errors import PlotError

_COLORS = ("#0072B2", "#D55E00", "#009E73")
_CHANCE = "0.45"
_MOST_SAMPLES = 20
_MOST_NAMES = 10
_LONGEST = 18


def draw_checks(
    checks: Checks, *, title: str | None = None, panel_size: float = 3.4, show_samples: bool = True
) -> Figure:
    """Draws a panel for each check that has curves: the mean over the samples, and thin lines for each of them.

    Args:
        checks: What to draw.
        title: Replaces the title.
        panel_size: Width of a panel in inches.
        show_samples: Whether each sample has a line, where there are at most 20.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: No check has curves, or `panel_size` is no size.
    """
    drawn = [one for one in checks.found.values() if one.curves]
    if not drawn:
        raise PlotError("No check that ran has a curve to draw.")
    if not panel_size > 0:
        raise PlotError(f"panel_size={panel_size} must be above 0.")
    figure = Figure(figsize=(panel_size * len(drawn), panel_size * 0.85 + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    made = checks.attribution
    name = f"{made.method_key} by {made.toolset}" if title is None else title
    figure.suptitle(name, fontsize=11, parse_math=False)
    for axis, one in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _draw(axis, one, show_samples)
    return figure


def _draw(axis: Axes, check: Check, show_samples: bool) -> None:
    words = all(isinstance(place, str) for place in check.places)
    places = np.arange(len(check.places)) if words else np.asarray(check.places, float)
    colors = iter(_COLORS * len(check.curves))
    for curve in check.curves:
        color = _CHANCE if curve.is_reference else next(colors)
        if show_samples and not curve.is_reference and 1 < len(curve.values) <= _MOST_SAMPLES:
            axis.plot(places, curve.values.T, color=color, alpha=0.25, linewidth=0.7)
        mean = [_mean(column) for column in curve.values.T]
        style = {"linestyle": "--"} if curve.is_reference else {"marker": "o", "markersize": 3} if words else {}
        axis.plot(places, mean, color=color, linewidth=1.8, label=curve.name, **style)
    if words:
        _name_layers(axis, check)
    against = "" if check.chance is None else f", {check.reference_is} {check.chance:.3g}"
    axis.set_title(f"{check.name}: {check.score:.3g}{against}\n{check.better} is better", fontsize=9, parse_math=False)
    axis.set_xlabel(check.place, fontsize=8)
    axis.set_ylabel("rank correlation" if words else "explained output", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False)


def _name_layers(axis: Axes, check: Check) -> None:
    """Zero is chance; of many layers every second one, or fewer, has its name."""
    axis.axhline(0, color=_CHANCE, linestyle="--", linewidth=1.2, label=check.reference_is)
    axis.set_ylim(min(-0.25, *(float(np.nanmin(curve.values, initial=0)) for curve in check.curves)) - 0.02, 1.05)
    shown = np.arange(0, len(check.places), -(-len(check.places) // _MOST_NAMES))
    names = [str(check.places[place]) for place in shown]
    names = [name if len(name) <= _LONGEST else f"…{name[-_LONGEST:]}" for name in names]
    turned: dict[str, Any] = (
        {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    )
    axis.set_xticks(shown, names, parse_math=False, **turned)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
