"""Columns of a table, drawn as bars under their names and cells: for each sample its own, the strongest on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import values_by_sample
from cfi_matplotlib.cells import is_of_features, labels_of, width_of_labels
from cfi_matplotlib.colors import NEGATIVE, OTHERS, POSITIVE
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap
from cfi_matplotlib.letters import dress
from cfi_matplotlib.scales import NOT_FINITE
from cfi_matplotlib.selection import choose_samples

_ROW, _BARS = 0.26, 2.2  # inches: the height of a row, and the least width of the bars
_UNNAMED = 30  # features without names that are drawn by their positions; more are a profile


def is_table(attribution: Attribution) -> bool:
    """Whether there is a value for each sample and feature, and the features have names or are few."""
    named = attribution.part_names[0] is not None
    return is_of_features(attribution) and (named or attribution.parts[0][0].shape[1] <= _UNNAMED)


def draw_table(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 8,
    max_features: int = 12,
    show_cells: bool = True,
    title: str | None = None,
    width: float = 4.5,
) -> Figure:
    """Draws a bar for each column, sorted by size, labelled with its name and the sample's cell.

    Samples stand side by side, up to three in a row, on one scale. What is beyond `max_features` is summed in one bar.

    Args:
        attribution: What to draw: axes `sample` and `feature`.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_features: Most columns that get a bar of their own.
        show_cells: Whether cells are written behind the names.
        title: Replaces the title, which tells method, toolset, target and route.
        width: Of the bars of one sample with their labels, in inches; more where names and cells are long.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: The values are no features, there is no such sample, no finite value, or an option does not fit.
    """
    if not is_of_features(attribution):
        raise PlotError("Bars take one value for each sample and feature; other axes have other plotters.")
    if not (width >= 2 and max_features > 0 and max_samples > 0):
        raise PlotError("width must be at least 2 inches, max_features and max_samples above 0.")
    values, _ = values_by_sample(attribution, 0)
    chosen, _ = choose_samples(samples, max_samples, len(values))
    if not np.isfinite(values[chosen]).any():
        raise PlotError("None of the values is finite (all are NaN or infinite).")
    labels = [labels_of(attribution, sample, show_cells=show_cells) for sample in chosen]
    width = max(width, max(width_of_labels(one, 8) for one in labels) + _BARS)
    columns = min(len(chosen), 3)
    lines, bars = -(-len(chosen) // columns), min(values.shape[1], max_features + 1)
    text = wrap(heading_of(attribution) if title is None else title, columns * width)
    names = [wrap(label_of_sample(attribution, sample, len(values)), _BARS, points=9) for sample in chosen]
    above = 0.15 * max(name.count("\n") for name in names)  # what further lines above the bars take
    size = (columns * width, lines * (bars * _ROW + 0.75 + above) + 0.2 * (text.count("\n") + 2))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    axes = list(figure.subplots(lines, columns, squeeze=False, sharex=True).flat)
    for unused in axes[len(chosen) :]:
        unused.set_axis_off()
    ends: list[float] = []
    for axis, sample, own, name in zip(axes, chosen, labels, names, strict=False):
        ends += draw_bars(axis, values[sample], own, max_features)
        axis.set_title(name, fontsize=9, parse_math=False)
        axis.tick_params(labelsize=8, labelbottom=True)
    low, high = min(ends), max(ends)
    room = 0.34 * (high - low) or 1.0  # for the numbers beside the bars
    axes[0].set_xlim(
        low - room * (1 if low < 0 or not high else 0.1), high + room * (1 if high > 0 or not low else 0.1)
    )
    if samples is None and len(values) > max_samples:
        figure.supxlabel(f"the first {max_samples} of {len(values)} samples are shown", fontsize=8, color="0.35")
    return dress(figure)


def draw_bars(axis: Axes, values: np.ndarray, labels: Sequence[str], most: int) -> list[float]:
    """The bars of one sample, the strongest on top.

    Returns:
        The lowest and the highest end of a bar, 0 among them.
    """
    order = sorted(range(len(values)), key=lambda place: -abs(np.nan_to_num(values[place], nan=np.inf)))
    kept, rest = (order, []) if len(order) <= most + 1 else (order[:most], order[most:])
    shown = [float(values[place]) for place in kept] + ([float(values[rest].sum())] if rest else [])
    texts = [labels[place] for place in kept] + ([f"sum of {len(rest)} others"] if rest else [])
    colors = [_color(value) for value in shown[: len(kept)]] + ([OTHERS] if rest else [])
    places = np.arange(len(shown))
    axis.barh(places, np.where(np.isfinite(shown), shown, 0.0), color=colors, height=0.72)
    for place, value in zip(places, shown, strict=True):
        text, side = (f"{value:+.3g}", np.sign(value) if np.isfinite(value) else 1) if value else ("0", 1)
        at = (value if np.isfinite(value) else 0.0, place)
        color = "0.2" if np.isfinite(value) else NOT_FINITE
        put: dict[str, Any] = {"xytext": (3 * side, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axis.annotate(text, at, ha="left" if side > 0 else "right", color=color, **put)
    axis.set_yticks(places, texts, parse_math=False)
    axis.invert_yaxis()
    axis.axvline(0.0, color="0.3", linewidth=0.8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if not np.any(shown):
        axis.text(0.5, 0.5, "all values are zero", transform=axis.transAxes, ha="center", color="#b00020", fontsize=9)
    known = [value for value in shown if np.isfinite(value)]
    return [min(0.0, *known, 0.0), max(0.0, *known, 0.0)]


def _color(value: float) -> str:
    return NOT_FINITE if not np.isfinite(value) else POSITIVE if value > 0 else NEGATIVE
