"""Time series behind their attributions: the series as it is, on bands (or as a line) of the colours of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import values_by_sample
from cfi_matplotlib.colors import colormap_of, limit_of
from cfi_matplotlib.heading import heading_of, is_of_inputs, label_of_sample, wrap
from cfi_matplotlib.letters import cut, dress, known
from cfi_matplotlib.remarks import warning_of
from cfi_matplotlib.selection import choose_samples, cut_note, strongest

TIME = ("position", "time", "step", "frame")
_PANELS = 12  # of a figure, where nothing is said
_LINES = 3  # of the input behind one channel of a layer


def is_series(attribution: Attribution) -> bool:
    """Whether every array goes along one axis of time (besides samples and channels), and so does an input of it."""
    return all(
        _time_of(dims) is not None and _series_behind(attribution, part) is not None
        for part, (_, dims) in enumerate(attribution.parts)
    )


def draw_series(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 8,
    max_panels: int | None = None,
    channels: Literal["sum", "each"] = "each",
    color: Literal["bands", "line"] = "bands",
    outlier_perc: float = 2.0,
    cmap: str | Colormap | None = None,
    show_colorbar: bool = True,
    title: str | None = None,
    width: float = 8.0,
    panel_height: float = 1.15,
) -> Figure:
    """Draws series and their attributions on one axis of time.

    Each channel of an input has a panel: its series in black, in front of bands in the colours of the values. Values
    without a channel axis lie behind each channel. Of a layer, whose axis of time may be coarser, each step is as wide
    as the part of the input that it stands for, if all are equally wide; its channels have a panel each, with the
    input's series in front (several of them each on a scale of its own).

    Args:
        attribution: What to draw: an axis of time (`position`), and inputs that have one.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_panels: Most channels drawn of one sample and array, the strongest (largest sum of absolute values over the
            samples drawn) in the order of the model; None: as many as leave the figure readable.
        channels: `"each"` has a panel for each channel, `"sum"` one for their sum.
        color: `"bands"` behind the series, or the `"line"` of the series itself in colours.
        outlier_perc: The strongest values that hold this percentage of the sum of all absolute values have the
            scale's last colour, as in Captum.
        cmap: A matplotlib colour map, or its name; None takes a diverging one for values of which some are negative.
        show_colorbar: Whether to draw the colour scale, which the panels of a sample share.
        title: Replaces the title, which tells method, toolset, target, layer and route.
        width: Of the figure in inches.
        panel_height: In inches.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: There is no series, no finite value, no such sample, or an option does not fit.
    """
    _check(attribution, max_samples, max_panels, channels, color, outlier_perc, width, panel_height)
    rows, notes = _rows(attribution, samples, max_samples, max_panels, channels)
    if not any(np.isfinite(panel.values).any() for row in rows for panel in row.panels):
        raise PlotError("None of the values is finite (all are NaN or infinite).")
    signed = any((panel.values < 0).any() for row in rows for panel in row.panels)
    colors = colormap_of(cmap, signed=signed, on_white=color == "bands")
    heights = [len(row.panels) * panel_height + 0.55 for row in rows]
    text = wrap(heading_of(attribution) if title is None else title, width)
    note = wrap("; ".join(notes), width, points=8)
    above = 0.2 * (text.count("\n") + 1) + 0.1
    size = (width, sum(heights) + above + 0.17 * (note.count("\n") + 1) * bool(note) + 0.1)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    cells = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for cell, row in zip(cells, rows, strict=True):
        draw_row(cell, row, colors, outlier_perc, signed=signed, lines=color == "line", show_colorbar=show_colorbar)
    if note:
        figure.supxlabel(note, fontsize=8, color="0.35", parse_math=False)
    return dress(figure)


@dataclass(frozen=True)
class Panel:
    """One channel of one sample.

    Attributes:
        label: Stands above it.
        values: Along the axis of time, of as many steps as the attribution has.
        series: The series in front of it, of as many steps as the input has: one, or several on scales of their own.
    """

    label: str
    values: np.ndarray
    series: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Row:
    """One sample.

    Attributes:
        label: Which one.
        axis: Name of the axis of time.
        ticks: Names of the points in time, or None where they are counted.
        panels: Its channels.
    """

    label: str
    axis: str
    ticks: tuple[str, ...] | None
    panels: tuple[Panel, ...]


def rows_of(
    attribution: Attribution, samples: Sequence[int], max_panels: int, channels: str
) -> tuple[list[Row], list[str]]:
    """The given samples of an attribution, each with its strongest channels, and what must be told of them."""
    return _rows(attribution, samples, len(samples), max_panels, channels)


def draw_row(
    cell: SubFigure,
    row: Row,
    colors: Colormap,
    outlier_perc: float = 2.0,
    *,
    signed: bool,
    lines: bool = False,
    show_colorbar: bool = True,
    limit: tuple[float, str] | None = None,
    room: int = 0,
) -> None:
    """The panels of one sample, one below the other, on one colour scale, which may be given.

    There is room for as many panels as another one beside it has.
    """
    together = np.concatenate([panel.values for panel in row.panels])
    end, extend = limit or limit_of(together, outlier_perc)
    norm = Normalize(-end if signed else 0.0, end)
    grid = cell.subplots(max(len(row.panels), room), 1, squeeze=False, sharex=True)[:, 0]
    axes = list(grid[: len(row.panels)])
    axes[-1].tick_params(labelbottom=True)
    for unused in grid[len(axes) :]:
        unused.set_axis_off()
    cell.suptitle(row.label, fontsize=9, parse_math=False)
    for axis, panel in zip(axes, row.panels, strict=True):
        _draw_panel(axis, panel, colors, norm, lines=lines)
    _name_time(axes[-1], row, len(row.panels[0].series[0]))
    if show_colorbar:
        bar = cell.colorbar(ScalarMappable(norm, colors), ax=axes, extend=extend, aspect=6 + 7 * len(axes), pad=0.015)
        bar.locator = MaxNLocator(5 if len(axes) > 1 else 3, symmetric=signed)
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


# What is drawn.


def _time_of(dims: Sequence[str]) -> str | None:
    others = [name for name in dims if name not in ("sample", "channel")]
    return others[0] if len(others) == 1 and others[0] in TIME else None


def _series_behind(attribution: Attribution, part: int) -> np.ndarray | None:
    """The input that an array belongs to as (sample, channel, time); the first series among them behind a layer."""
    values, dims = attribution.parts[part]
    count = values.shape[dims.index("sample")] if "sample" in dims else 1
    places = [part] if is_of_inputs(attribution) else range(len(attribution.inputs))
    for place in places:
        if place >= len(attribution.inputs) or place >= len(attribution.input_dims):
            continue
        series, own = attribution.inputs[place], attribution.input_dims[place]
        time = _time_of(own)
        if time is None or series.ndim != len(own) or "sample" not in own or series.dtype.kind not in "fiub":
            continue
        if series.shape[own.index("sample")] == count:
            order = [own.index(name) for name in ("sample", "channel", time) if name in own]
            ordered = np.asarray(series.transpose(order), np.float64)
            return ordered if "channel" in own else ordered[:, None]
    return None


def _rows(
    attribution: Attribution,
    samples: Sequence[int] | None,
    max_samples: int,
    max_panels: int | None,
    channels: str,
) -> tuple[list[Row], list[str]]:
    count = len(values_by_sample(attribution, 0)[0])
    chosen, notes = choose_samples(samples, max_samples, count)
    most = max_panels or min(max(_PANELS // len(chosen) // len(attribution.parts), 1), 4)
    found: list[list[Panel]] = [[] for _ in chosen]
    for part in range(len(attribution.parts)):
        panels, told = _panels(attribution, part, chosen, most, channels)
        notes += told
        for row, more in zip(found, panels, strict=True):
            row += more
    dims = attribution.parts[0][1]
    axis = _time_of(attribution.input_dims[0] if attribution.input_dims else dims) or str(_time_of(dims))
    labels = [label_of_sample(attribution, sample, count) for sample in chosen]
    ticks = _names_along(attribution, 0, axis)
    return [Row(label, axis, ticks, tuple(row)) for label, row in zip(labels, found, strict=True)], notes


def _panels(
    attribution: Attribution, part: int, chosen: Sequence[int], most: int, channels: str
) -> tuple[list[list[Panel]], list[str]]:
    """The panels of each chosen sample of one array, and what must be told of them."""
    values, dims = values_by_sample(attribution, part)
    series = _series_behind(attribution, part)
    assert series is not None  # is_series has seen to it
    values, series, notes, prefix = values[chosen], series[chosen], [], _prefix(attribution, part)
    broken = int(np.isnan(series).sum())
    if broken:
        notes.append(f"{broken} of {series.size} numbers of the input are missing, where the line is broken")
    steps, length = values.shape[dims.index(str(_time_of(dims)))], series.shape[-1]
    if steps != length:
        notes.append(f"{steps} steps{prefix and ' of' + prefix} are stretched evenly over the {length} of the input")
    if "channel" in dims:
        values = values.transpose([0, dims.index("channel"), dims.index(str(_time_of(dims)))])
        if channels == "sum" and values.shape[1] > 1:
            notes.append(f"the colours are sums over {values.shape[1]} channels")
            values = values.sum(1, keepdims=True)
    else:
        values = values[:, None]
    own = is_of_inputs(attribution) and values.shape[1] == series.shape[1]
    behind_each = values.shape[1] == 1 and is_of_inputs(attribution)
    shown = series.shape[1] if behind_each else values.shape[1]
    strength = np.abs(values).sum((0, 2)) if not behind_each else -np.arange(shown, dtype=float)
    kept = strongest(strength, most)
    notes += cut_note(len(kept), shown, "channels", "the first" if behind_each else "the strongest")
    names = _names_along(attribution, part, "channel")
    rows = []
    for sample_values, sample_series in zip(values, series, strict=True):
        row = []
        for channel in kept:
            one = sample_values[0 if behind_each else channel]
            lines = (sample_series[channel],) if own or behind_each else tuple(sample_series[:_LINES])
            label = names[channel] if names and (own or behind_each) else f"channel {channel}"
            alone = shown == 1 and not names
            row.append(Panel(" · ".join(filter(None, [prefix.strip(), "" if alone else label])), one, lines))
        rows.append(row)
    if not (own or behind_each) and series.shape[1] > 1:
        count = min(series.shape[1], _LINES)
        which = "the" if count == series.shape[1] else f"the first {count} of"
        notes.append(f"{which} {series.shape[1]} channels of the input are in front, each on a scale of its own")
    return rows, notes


def _prefix(attribution: Attribution, part: int) -> str:
    if is_of_inputs(attribution):
        return f" input {part}" if len(attribution.parts) > 1 else ""
    layers = attribution.layer
    name = layers[part] if isinstance(layers, tuple) and part < len(layers) else layers
    return f" layer {name}" if isinstance(name, str) else ""


def _names_along(attribution: Attribution, part: int, axis: str) -> tuple[str, ...] | None:
    """The names of the channels or points in time, where the features that have names lie along that axis."""
    names, (values, dims) = attribution.part_names[part], attribution.parts[part]
    if names is None or dims[-1] != axis or not isinstance(names[0], str) or len(names) != values.shape[-1]:
        return None
    return tuple(map(str, names))


# How it is drawn.


def _draw_panel(axis: Axes, panel: Panel, colors: Colormap, norm: Normalize, *, lines: bool) -> None:
    length = len(panel.series[0])
    shown = [_unit(one) for one in panel.series] if len(panel.series) > 1 else [panel.series[0]]
    low, high = _range(shown)
    axis.set_xlim(-0.5, length - 0.5)
    axis.set_ylim(low, high)
    values = np.ma.masked_invalid(panel.values)
    if lines:
        _draw_colored(axis, shown, values, colors, norm)
    else:
        # Values as they are: each step as wide as the part of the input that it stands for.
        extent = (-0.5, length - 0.5, low, high)
        axis.imshow(values[None], cmap=colors, norm=norm, extent=extent, aspect="auto", interpolation="nearest")
        casing: Any = [Stroke(linewidth=2.6, foreground="white", alpha=0.7), Normal()]
        for one, shade in zip(shown, ("black", "0.4", "0.6"), strict=False):
            axis.plot(one, color=shade, linewidth=1.1, path_effects=casing, marker="." if length == 1 else None)
    axis.set_title(cut(panel.label, 100), fontsize=8, loc="left", pad=2, parse_math=False)
    axis.tick_params(labelsize=7)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    if len(panel.series) > 1:
        axis.set_yticks([])
    _warn(axis, panel.values)


def _draw_colored(
    axis: Axes, shown: Sequence[np.ndarray], values: np.ndarray, colors: Colormap, norm: Normalize
) -> None:
    """The series as lines whose colour at each point in time is that of the value there."""
    for one in shown:
        points = np.column_stack([np.arange(len(one)), one])
        middles = (points[:-1] + points[1:]) / 2
        ends = np.concatenate([points[:1], middles, points[-1:]])
        segments = np.stack([ends[:-1], points, ends[1:]], axis=1)
        steps = np.minimum(np.arange(len(one)) * len(values) // len(one), len(values) - 1)
        drawn = LineCollection(list(segments), cmap=colors, norm=norm, linewidths=2.2, capstyle="round")
        drawn.set_array(values[steps])
        axis.add_collection(drawn, autolim=False)


def _name_time(axis: Axes, row: Row, length: int) -> None:
    axis.set_xlabel(row.axis, fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    if row.ticks is not None and len(row.ticks) == length:
        places = np.unique(np.linspace(0, length - 1, min(length, 7)).round().astype(int))
        axis.xaxis.set_major_locator(FixedLocator(places.tolist()))
        axis.set_xticklabels([known(cut(row.ticks[i], 14)) for i in places], parse_math=False)


def _warn(axis: Axes, values: np.ndarray) -> None:
    warning = warning_of(values)
    if warning:
        box = {"facecolor": "white", "edgecolor": "#b00020", "alpha": 0.9, "pad": 2}
        put: dict[str, Any] = {"transform": axis.transAxes, "ha": "right", "va": "top", "fontsize": 7, "bbox": box}
        axis.text(0.995, 0.95, warning, color="#b00020", **put)


def _unit(series: np.ndarray) -> np.ndarray:
    finite = series[np.isfinite(series)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    return (series - low) / ((high - low) or 1.0)


def _range(series: Sequence[np.ndarray]) -> tuple[float, float]:
    """From the lowest to the highest, with a margin."""
    finite = np.concatenate([one[np.isfinite(one)] for one in series])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.08 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


def _check(
    attribution: Attribution,
    max_samples: int,
    max_panels: int | None,
    channels: str,
    color: str,
    outlier_perc: float,
    width: float,
    panel_height: float,
) -> None:
    if not is_series(attribution):
        raise PlotError(
            "There is no series to draw: values and inputs need one axis of time (position) besides samples and "
            f"channels; the values have the axes {'; '.join(str(dims) for _, dims in attribution.parts)}."
        )
    if max_samples < 1 or (max_panels is not None and max_panels < 1):
        raise PlotError(f"max_samples={max_samples} and max_panels={max_panels} must be at least 1.")
    if channels not in ("sum", "each"):
        raise PlotError(f'channels={channels!r} must be "sum" or "each".')
    if color not in ("bands", "line"):
        raise PlotError(f'color={color!r} must be "bands" or "line".')
    if not (isinstance(outlier_perc, Real) and 0 <= outlier_perc < 100):
        raise PlotError(f"outlier_perc={outlier_perc!r} must be at least 0 and below 100.")
    if not (width >= 3 and panel_height >= 0.4):
        raise PlotError("width must be at least 3 inches, panel_height at least 0.4.")
