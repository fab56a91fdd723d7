"""Columns of a table, drawn as bars under their names and cells: for each sample its own, the strongest on top."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap

_POSITIVE, _NEGATIVE, _NOT_FINITE, _OTHERS = "#b2182b", "#2166ac", "#ff00ff", "0.6"
_ROW, _LABELS = 0.26, 24  # inches; letters of a name or a cell


def is_table(attribution: Attribution) -> bool:
    """Whether there is one array with a value for each sample and feature, and the features have names."""
    dims, names = [dims for _, dims in attribution.parts], attribution.part_names
    return dims == [("sample", "feature")] and names[0] is not None


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
        attribution: What to draw: axes `sample` and `feature`, and names of the features.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_features: Most columns that get a bar of their own.
        show_cells: Whether cells are written behind the names.
        title: Replaces the title, which tells method, toolset, target and route.
        width: Of the bars of one sample with their labels, in inches.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: There are no features with names, no such sample, no finite value, or an option does not fit.
    """
    if not is_table(attribution):
        raise PlotError("There are no columns with names to draw: pass a data frame as inputs, or feature_names=.")
    if not (width >= 2 and max_features > 0 and max_samples > 0):
        raise PlotError("width must be at least 2 inches, max_features and max_samples above 0.")
    values = attribution.parts[0][0]
    chosen = list(range(len(values)))[:max_samples] if samples is None else list(samples)
    if not chosen or any(not 0 <= one < len(values) for one in chosen):
        raise PlotError(f"samples={samples!r} must name some of the {len(values)} samples, from 0 on.")
    if not np.isfinite(values[chosen]).any():
        raise PlotError("None of the values is finite (all are NaN or infinite).")
    columns = min(len(chosen), 3)
    lines, bars = -(-len(chosen) // columns), min(values.shape[1], max_features + 1)
    text = wrap(heading_of(attribution) if title is None else title, columns * width)
    size = (columns * width, lines * (bars * _ROW + 0.75) + 0.2 * (text.count("\n") + 2))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    axes = list(figure.subplots(lines, columns, squeeze=False, sharex=True).flat)
    for unused in axes[len(chosen) :]:
        unused.set_axis_off()
    for axis, sample in zip(axes, chosen, strict=False):
        labels = _labels(attribution, sample, show_cells)
        _draw_bars(axis, values[sample], labels, max_features)
        axis.set_title(label_of_sample(attribution, sample, len(values)), fontsize=9, parse_math=False)
        axis.tick_params(labelsize=8, labelbottom=True)
    if samples is None and len(values) > max_samples:
        figure.supxlabel(f"the first {max_samples} of {len(values)} samples are shown", fontsize=8, color="0.35")
    return figure


def _labels(attribution: Attribution, sample: int, show_cells: bool) -> list[str]:
    """The names of the columns, with the sample's cells."""
    known: Any = attribution.part_names[0]
    names = known if isinstance(known[0], str) else known[sample]
    cells = next(iter(attribution.inputs), None)
    if not show_cells or cells is None or cells.shape != attribution.parts[0][0].shape:
        return [_shorten(name) for name in names]
    return [f"{_shorten(name)} = {_cell(cell)}" for name, cell in zip(names, cells[sample], strict=True)]


def _cell(cell: Any) -> str:
    """A cell in words: missing ones, dates without hours, numbers with four digits."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell):
        return "missing"
    if isinstance(cell, float | np.floating):
        return f"{cell:.0f}" if 1e3 <= abs(float(cell)) < 1e9 else f"{cell:.4g}"
    text = str(cell)
    return f"“{_shorten(text)}”" if " " in text and isinstance(cell, str) else _shorten(text.removesuffix(" 00:00:00"))


def _shorten(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LABELS else f"{plain[: _LABELS - 1]}…"


def _draw_bars(axis: Axes, values: np.ndarray, labels: Sequence[str], most: int) -> None:
    order = sorted(range(len(values)), key=lambda place: -abs(np.nan_to_num(values[place], nan=np.inf)))
    kept, rest = (order, []) if len(order) <= most + 1 else (order[:most], order[most:])
    shown = [float(values[place]) for place in kept] + ([float(values[rest].sum())] if rest else [])
    texts = [labels[place] for place in kept] + ([f"sum of {len(rest)} others"] if rest else [])
    colors = [_color(value) for value in shown[: len(kept)]] + ([_OTHERS] if rest else [])
    places = np.arange(len(shown))
    axis.barh(places, np.where(np.isfinite(shown), shown, 0.0), color=colors, height=0.72)
    for place, value in zip(places, shown, strict=True):
        text, side = (f"{value:+.3g}", np.sign(value) if np.isfinite(value) else 1) if value else ("0", 1)
        at = (value if np.isfinite(value) else 0.0, place)
        color = "0.2" if np.isfinite(value) else _NOT_FINITE
        put: dict[str, Any] = {"xytext": (3 * side, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axis.annotate(text, at, ha="left" if side > 0 else "right", color=color, **put)
    axis.set_yticks(
        places, [textwrap.shorten(text, 2 * _LABELS + 6, placeholder="…") for text in texts], parse_math=False
    )
    axis.invert_yaxis()
    axis.axvline(0.0, color="0.3", linewidth=0.8)
    axis.margins(x=0.18)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if not np.any(shown):
        axis.text(0.5, 0.5, "all values are zero", transform=axis.transAxes, ha="center", color="#b00020", fontsize=9)


def _color(value: float) -> str:
    return _NOT_FINITE if not np.isfinite(value) else _POSITIVE if value > 0 else _NEGATIVE
