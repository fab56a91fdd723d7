"""Many samples of a table: a point for each sample and feature, where its value is, in the colour of its cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import values_by_sample
from cfi_matplotlib.cells import cells_of, is_of_features, names_of, width_of_labels
from cfi_matplotlib.colors import colormap_of
from cfi_matplotlib.heading import heading_of, wrap
from cfi_matplotlib.letters import dress
from cfi_matplotlib.selection import choose_samples

_ROW = 0.42  # inches
_BINS = 80  # across the values: points in one of them are stacked
_PLAIN = "0.45"


def draw_beeswarm(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_features: int = 12,
    cmap: str | Colormap | None = None,
    show_colorbar: bool = True,
    title: str | None = None,
    width: float = 5.0,
) -> Figure:
    """Draws a point for each sample in the row of each feature, the features with the largest mean size on top.

    A point lies at its value; its colour tells whether the sample's cell is low or high among those of that feature
    (from the 5th to the 95th percentile). Cells that are no numbers are grey.

    Args:
        attribution: What to draw: axes `sample` and `feature`.
        samples: Positions of the samples to draw; None draws all.
        max_features: Most features that get a row of their own; all others together have the last one.
        cmap: A matplotlib colour map, or its name, from low to high cells.
        show_colorbar: Whether the colours are explained.
        title: Replaces the title, which tells method, toolset, target and route.
        width: Of the rows in inches; the names come on top of it.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: The values are no features, there is no such sample or no finite value, or an option does not fit.
    """
    if not is_of_features(attribution):
        raise PlotError("A beeswarm takes one value for each sample and feature; other axes have other plotters.")
    if not (width >= 2 and max_features > 0):
        raise PlotError("width must be at least 2 inches, max_features above 0.")
    values, _ = values_by_sample(attribution, 0)
    chosen, notes = choose_samples(samples, len(values), len(values))
    values, cells = values[chosen], cells_of(attribution)
    if not np.isfinite(values).any():
        raise PlotError("None of the values is finite (all are NaN or infinite).")
    broken = int((~np.isfinite(values)).sum())
    notes += [f"{broken} of {values.size} values are not finite and not shown"] if broken else []
    notes += ["all values are zero"] if not broken and not values.any() else []
    colors = colormap_of(cmap or _colormap(), signed=False).with_extremes(bad=_PLAIN)
    sizes = np.abs(np.where(np.isfinite(values), values, 0)).mean(0)
    order = np.argsort(-sizes, kind="stable")
    kept, rest = (order, order[:0]) if len(order) <= max_features + 1 else np.split(order, [max_features])
    known = names_of(attribution)
    names = [f"{known[place]}" for place in kept] + ([f"sum of {len(rest)} others"] if len(rest) else [])
    columns = [(values[:, place], None if cells is None else _numbers(cells[chosen, place])) for place in kept]
    columns += [(values[:, rest].sum(1), None)] if len(rest) else []

    wide = width + width_of_labels(names, 9) + 0.9 * show_colorbar
    text = wrap(f"{heading_of(attribution) if title is None else title}\n{len(chosen)} samples", wide)
    height = len(names) * _ROW + 0.6 + 0.2 * (text.count("\n") + 2) + 0.2 * bool(notes)
    figure = Figure(figsize=(wide, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    axis = figure.subplots()
    for row, (column, numbers) in enumerate(columns):
        _draw_swarm(axis, row, column, numbers, colors)
    _finish(axis, names, [float(np.nanmean(np.abs(column))) for column, _ in columns])
    if show_colorbar and any(numbers is not None for _, numbers in columns):
        _explain_colors(figure, axis, colors)
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=8, color="0.35", parse_math=False)
    return dress(figure)


def _colormap() -> Colormap:
    return LinearSegmentedColormap.from_list("cells", ("#0c7bdc", "#8a6fc0", "#d81b60"))


def _numbers(cells: np.ndarray) -> np.ndarray | None:
    """The cells between 0 and 1, low to high; None where they are no numbers, NaN where one is missing."""
    try:
        numbers = np.array([float("nan") if cell is None else float(cell) for cell in cells])
    except (TypeError, ValueError):
        return None
    finite = numbers[np.isfinite(numbers)]
    if not finite.size or finite.min() == finite.max():
        return None
    low, high = np.percentile(finite, (5, 95))
    low, high = (low, high) if low < high else (finite.min(), finite.max())
    return np.clip((numbers - low) / (high - low), 0, 1)


def _draw_swarm(axis: Axes, row: int, values: np.ndarray, numbers: np.ndarray | None, colors: Colormap) -> None:
    finite = np.isfinite(values)
    offsets = spread(values[finite])
    shades: Any = _PLAIN
    if numbers is not None:
        shades = colors(np.ma.masked_invalid(numbers[finite]))
    axis.scatter(values[finite], row + offsets, s=11, c=shades, alpha=0.85, linewidths=0, rasterized=finite.sum() > 500)


def spread(values: np.ndarray) -> np.ndarray:
    """How far each point is moved aside, at most 0.4, so that points of nearly one value can be told apart."""
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    bins = np.round((values - low) / ((high - low) or 1.0) * _BINS).astype(int)
    places = np.zeros(len(values))
    for one in np.unique(bins):
        members = np.flatnonzero(bins == one)
        ranks = np.arange(len(members))
        places[members] = np.where(ranks % 2, (ranks + 1) // 2, -(ranks // 2))
    most = np.abs(places).max(initial=0)
    return places * min(0.09, 0.4 / most if most else 0.0)


def _finish(axis: Axes, names: Sequence[str], sizes: Sequence[float]) -> None:
    axis.axvline(0.0, color="0.4", linewidth=0.8, zorder=0)
    for row in range(len(names)):
        axis.axhline(row, color="0.85", linewidth=0.5, linestyle=":", zorder=0)
    axis.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axis.set_ylim(len(names) - 0.45, -0.55)
    axis.margins(x=0.06)
    if not any(sizes):
        axis.set_xlim(-1, 1)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(names)), [f"{size:.3g}" for size in sizes], fontsize=7, color="0.35")
    right.tick_params(length=0)
    axis.annotate("mean size", (1, 1), (3, 2), "axes fraction", "offset points", fontsize=7, color="0.35")
    axis.spines[["top", "left", "right"]].set_visible(False)
    right.spines["right"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("value of the attribution", fontsize=8)


def _explain_colors(figure: Figure, axis: Axes, colors: Colormap) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colors), ax=axis, aspect=40, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"], fontsize=8)
    bar.set_label("cell", fontsize=8, labelpad=-8)
    bar.outline.set_visible(False)
