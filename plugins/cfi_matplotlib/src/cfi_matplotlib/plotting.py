"""Images, time series and feature vectors, drawn with matplotlib alone.

A figure reads as a table: one row for each sample, one block of columns for each array of the
attribution (one per input, or one per layer). The maps in one row of a block share a colour scale.

`matplotlib.pyplot` is never used, so that no global state of the user's changes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_core.specs import Kind
from cfi_matplotlib.heading import wrap
from cfi_matplotlib.table import draw_table, is_table
from cfi_matplotlib.text import draw_text, is_text

_IMAGE = ("height", "width")
_POSITIVE, _NEGATIVE, _WARNING = "#b2182b", "#2166ac", "#b00020"
_DIVERGING, _SEQUENTIAL, _NOT_FINITE = "RdBu_r", "inferno", "#ff00ff"
_MAX_COLUMNS = 6


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
    _check_options(channels, max_panels, max_samples, clip_percentile, alpha, panel_size, colormap)
    if is_text(attribution):
        return draw_text(attribution, samples=samples, max_samples=max_samples, colormap=colormap, title=title)
    if is_table(attribution):
        return draw_table(attribution, samples=samples, max_samples=max_samples, title=title)
    blocks = [
        _arrange(attribution, part, samples, max_samples, channels, max_panels, overlay or show_input)
        for part in range(len(attribution.parts))
    ]
    _check_values(attribution, blocks)
    style = _Style(overlay, show_input, alpha, clip_percentile, colormap, colorbar)
    layouts = [_Layout.of(block, style, panel_size) for block in blocks]
    widths = [layout.width for layout in layouts]
    rows = max(len(block.samples) for block in blocks)
    width = max(sum(widths), 2.2 * panel_size)
    heading = wrap(_heading(attribution) if title is None else title, width, points=10)
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


def write_png(attribution: Attribution, path: Path) -> None:
    """Draws the attribution into a `.png` file.

    Args:
        attribution: What to draw.
        path: File to write; an existing file is replaced.

    Raises:
        PlotError: It cannot be drawn.
    """
    plot(attribution).savefig(path, format="png", dpi=150)


@dataclass(frozen=True)
class _Style:
    """The options that matter once it is settled what is drawn."""

    overlay: bool
    show_input: bool
    alpha: float
    clip_percentile: float
    colormap: str | None
    colorbar: bool


# What is drawn: from an array with named axes to panels.


@dataclass(frozen=True)
class _Block:
    """One array of the attribution, arranged into rows (samples) of panels.

    Attributes:
        form: How a panel is drawn.
        values: Sample, panel, then the axes of one panel.
        axes: Names of the axes of one panel.
        labels: One for each panel.
        samples: One label for each row.
        images: The input of each row (height, width, 3 colours between 0 and 1), or None.
        notes: What the reader must know about what was left out.
        scale_label: Stands beside the colour scale.
    """

    form: Literal["map", "picture", "lines", "bars"]
    values: np.ndarray
    axes: tuple[str, ...]
    labels: tuple[str, ...]
    samples: tuple[str, ...]
    images: tuple[np.ndarray | None, ...]
    notes: tuple[str, ...] = ()
    scale_label: str = ""


def _arrange(
    attribution: Attribution,
    part: int,
    samples: Sequence[int] | None,
    max_samples: int,
    channels: str,
    max_panels: int,
    with_image: bool,
) -> _Block:
    """Arranges one array of the attribution into panels; nothing is drawn yet."""
    values, dims = _with_sample_axis(attribution, part)
    count = len(values)
    chosen = _choose_samples(samples, max_samples, count)
    notes = [f"the first {len(chosen)} of {count} samples are shown"] if samples is None and len(chosen) < count else []
    form, axes = _form(attribution, dims)
    stacked = tuple(name for name in dims[1:] if name not in axes)
    values = values.transpose([dims.index(name) for name in ("sample", *stacked, *axes)])
    sizes = values.shape[1 : 1 + len(stacked)]
    values = values.reshape(count, math.prod(sizes), *values.shape[1 + len(stacked) :])[chosen]
    labels = [_panel_label(stacked, index) for index in np.ndindex(sizes)]

    scale_label = ""
    if form == "picture" and stacked == ("channel",) and len(labels) == 3:
        # Colours become the last axis of a single panel.
        values, labels = np.moveaxis(values, 1, -1)[:, None], [""]
    elif form == "map" and stacked == ("channel",) and _of_inputs(attribution) and channels == "sum":
        scale_label = "sum over channels" if len(labels) > 1 else ""
        values, labels = values.sum(axis=1, keepdims=True), [""]
    elif len(labels) > max_panels:
        notes.append(f"{max_panels} of {len(labels)} {', '.join(stacked)} maps are shown, the strongest first")
        strength = np.nansum(np.abs(values), axis=(0, *range(2, values.ndim)))
        order = np.argsort(-strength, kind="stable")[:max_panels]
        values, labels = values[:, order], [labels[panel] for panel in order]
    block = _Block(
        form,
        values,
        axes,
        tuple(labels),
        tuple(_row_label(attribution, part, sample, count) for sample in chosen),
        tuple(_image(attribution, part, sample, count) if with_image and form == "map" else None for sample in chosen),
        tuple(notes),
        scale_label,
    )
    if axes:
        return block
    # One value for each sample: a single bar chart over the samples.
    return replace(block, values=values.reshape(1, 1, -1), axes=("sample",), samples=("",), images=(None,))


def _with_sample_axis(attribution: Attribution, part: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values in double precision with the sample axis first."""
    values, dims = attribution.parts[part]
    if values.ndim != len(dims) or len(set(dims)) != len(dims):
        raise PlotError(f"Cannot draw {_name(attribution)}: {values.ndim} axes are named {dims}.")
    if values.size == 0:
        raise PlotError(f"Cannot draw {_name(attribution)}: its shape {values.shape} holds no values.")
    if values.dtype.kind not in "fiub":
        raise PlotError(f"Cannot draw {_name(attribution)}: its values are {values.dtype}, not real numbers.")
    values = np.asarray(values, dtype=np.float64)
    if "sample" not in dims:
        return values[None], ("sample", *dims)
    position = dims.index("sample")
    return np.moveaxis(values, position, 0), ("sample", *dims[:position], *dims[position + 1 :])


def _form(
    attribution: Attribution, dims: tuple[str, ...]
) -> tuple[Literal["map", "picture", "lines", "bars"], tuple[str, ...]]:
    """How values with these axes are drawn, and which axes one panel has."""
    if set(_IMAGE) <= set(dims):
        return ("picture" if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION else "map"), _IMAGE
    others = tuple(name for name in dims[1:] if name != "channel")
    if len(others) > 1:
        return "map", others[-2:]
    if "channel" not in dims:
        return "bars", others
    return ("lines", others) if others else ("bars", ("channel",))


def _choose_samples(samples: Sequence[int] | None, max_samples: int, count: int) -> list[int]:
    if samples is None:
        return list(range(min(count, max_samples)))
    chosen = [int(sample) for sample in samples]
    if not chosen or not all(0 <= sample < count for sample in chosen):
        raise PlotError(f"samples={samples!r} must name at least one of the {count} samples, counted from 0.")
    return chosen


def _image(attribution: Attribution, part: int, sample: int, count: int) -> np.ndarray | None:
    """The input image behind a map as height, width and three colours between 0 and 1; None if there is none."""
    positions = [part] if _of_inputs(attribution) else range(len(attribution.inputs))
    for position in positions:
        if position >= len(attribution.inputs):
            continue
        values, dims = attribution.inputs[position], attribution.input_dims[position]
        others = [name for name in dims if name not in ("sample", "channel", *_IMAGE)]
        if others or not {"sample", *_IMAGE} <= set(dims) or values.shape[dims.index("sample")] != count:
            continue
        order = [dims.index(name) for name in ("sample", *_IMAGE, "channel") if name in dims]
        image = np.asarray(values.transpose(order)[sample], dtype=np.float64)
        image = image[..., None] if image.ndim == 2 else image
        if image.shape[-1] != 3:
            image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
        return _unit_range(image)
    return None


def _unit_range(image: np.ndarray) -> np.ndarray:
    """The values stretched to 0…1, whatever range the model takes; a constant image is mid-grey."""
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        return np.full(image.shape, 0.5)
    return np.nan_to_num((image - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)


# Words.


def _name(attribution: Attribution) -> str:
    return f"the {attribution.method_key} attribution of {attribution.toolset}"


def _of_inputs(attribution: Attribution) -> bool:
    """Whether the values have the axes of the inputs, although the method may look at a layer (a neuron's inputs)."""
    return attribution.layer is None or attribution.provenance.get("kind") in ("attribution", "neuron")


def _heading(attribution: Attribution) -> str:
    facts = []
    if attribution.target is not None and _targets(attribution.target) is None:
        facts.append(f"target {_target_label(attribution.target)}")
    if isinstance(attribution.layer, str):
        facts.append(f"layer {attribution.layer}")
    if attribution.provenance.get("neuron") is not None:
        facts.append(f"unit {attribution.provenance['neuron']}")
    facts.append(f"route {' → '.join(attribution.route)}" if attribution.route else "native")
    return f"{attribution.method_key} · {attribution.toolset}\n{' · '.join(facts)}"


def _targets(target: Any) -> list[Any] | None:
    """The targets of the single samples, where the user gave one for each; a tuple is one target of all."""
    values = target.tolist() if hasattr(target, "tolist") else target
    return values if isinstance(values, list) else None


def _target_label(target: Any) -> str:
    text = getattr(target, "__name__", type(target).__name__) if callable(target) else str(target)
    return textwrap.shorten(text, 40, placeholder="…")


def _row_label(attribution: Attribution, part: int, sample: int, count: int) -> str:
    facts = [f"sample {sample}"] if count > 1 else []
    targets = _targets(attribution.target)
    if targets is not None and len(targets) == count:
        facts.append(f"target {_target_label(targets[sample])}")
    if len(attribution.parts) > 1:
        layers = attribution.layer
        facts.append(layers[part] if isinstance(layers, tuple) and part < len(layers) else f"input {part}")
    return " · ".join(facts)


def _panel_label(stacked: tuple[str, ...], index: tuple[int, ...]) -> str:
    return ", ".join(f"{name} {position}" for name, position in zip(stacked, index, strict=True))


# Checks.


def _check_options(
    channels: str,
    max_panels: int,
    max_samples: int,
    clip_percentile: float,
    alpha: float,
    panel_size: float,
    colormap: str | None,
) -> None:
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


def _check_values(attribution: Attribution, blocks: Sequence[_Block]) -> None:
    if not any(np.isfinite(block.values).any() for block in blocks):
        raise PlotError(
            f"Cannot draw {_name(attribution)}: none of its values is finite (all are NaN or infinite). "
            "Look for an overflow in the method, for example by explaining the logit of a smaller score."
        )


def _warning(values: np.ndarray) -> str:
    """What a reader of a panel must not overlook."""
    broken = int(values.size - np.isfinite(values).sum())
    if broken:
        return f"{broken} of {values.size} values are not finite"
    return "" if values.any() else "all values are zero"


# How it is drawn.


@dataclass(frozen=True)
class _Layout:
    """Panels of one row of a block on a grid; sizes in inches."""

    lines: int
    columns: int
    width: float
    height: float

    @staticmethod
    def of(block: _Block, style: _Style, panel_size: float) -> _Layout:
        """The grid for the panels, and for the input if it is shown."""
        if block.form in ("lines", "bars"):
            return _Layout(1, 1, 2.2 * panel_size, panel_size + 0.3)
        image = block.images[0]
        shown = len(block.labels) + (image is not None and style.show_input)
        columns = min(shown, _MAX_COLUMNS)
        lines = math.ceil(shown / columns)
        height, width = block.values.shape[2:4] if image is None else image.shape[:2]
        panel_height = panel_size * min(max(height / width, 0.4), 2.5)
        has_scale = block.form == "map" and style.colorbar
        return _Layout(lines, columns, columns * panel_size + 0.8 * has_scale, lines * (panel_height + 0.2) + 0.3)


def _draw_row(cell: SubFigure, block: _Block, row: int, layout: _Layout, style: _Style) -> None:
    cell.suptitle(block.samples[row], fontsize=9, parse_math=False)
    axes = list(cell.subplots(layout.lines, layout.columns, squeeze=False).flat)
    panels, image = block.values[row], block.images[row]
    if block.form == "lines":
        _draw_lines(axes[0], panels, block)
    elif block.form == "bars":
        _draw_bars(axes[0], panels[0], block)
    else:
        if image is not None and style.show_input:
            _draw_picture(axes.pop(0), image, "input")
        for unused in axes[len(panels) :]:
            unused.set_axis_off()
        axes = axes[: len(panels)]
        if block.form == "picture":
            for axis, panel, label in zip(axes, panels, block.labels, strict=True):
                _draw_picture(axis, _unit_range(panel), label)
                _annotate(axis, panel)
                axis.set_xlabel(f"values from {np.nanmin(panel):.3g} to {np.nanmax(panel):.3g}", fontsize=7)
        else:
            _draw_maps(cell, axes, panels, image, block, style)


def _draw_maps(
    cell: SubFigure,
    axes: Sequence[Axes],
    panels: np.ndarray,
    image: np.ndarray | None,
    block: _Block,
    style: _Style,
) -> None:
    """Heat maps on one colour scale, over the image if there is one."""
    # One kind of colour map for all rows of a figure, so that they can be compared.
    colors, norm, extend = _scale(panels, style, signed=bool((block.values < 0).any()))
    alpha = style.alpha if image is not None and style.overlay else 1.0
    for axis, panel, label in zip(axes, panels, block.labels, strict=True):
        extent = None
        smooth = False
        if image is not None and style.overlay:
            height, width = image.shape[:2]
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            smooth = panel.shape != (height, width)
            grey = image @ (0.299, 0.587, 0.114)
            if norm.vmin:
                # The middle of a diverging map is white: small dark values must stand out from the image, too.
                grey = 0.35 + 0.65 * grey
            axis.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="nearest")
        axis.imshow(
            np.ma.masked_invalid(panel),
            cmap=colors,
            norm=norm,
            alpha=alpha,
            extent=extent,
            interpolation="bilinear" if smooth else "nearest",
            aspect="equal" if block.axes == _IMAGE else "auto",
        )
        axis.set_title(label, fontsize=8, parse_math=False)
        _annotate(axis, panel)
        if block.axes == _IMAGE:
            axis.set_xticks([])
            axis.set_yticks([])
        else:
            axis.set_ylabel(block.axes[0], fontsize=8)
            axis.set_xlabel(block.axes[1], fontsize=8)
            axis.tick_params(labelsize=7)
    if style.colorbar:
        bar = cell.colorbar(
            ScalarMappable(norm, colors), ax=list(axes), alpha=alpha, extend=extend, shrink=0.9, aspect=18, pad=0.02
        )
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
        bar.set_label(block.scale_label, fontsize=8)


def _scale(panels: np.ndarray, style: _Style, *, signed: bool) -> tuple[Colormap, Normalize, str]:
    """Colour map, range and pointed ends of the colour scale of some panels."""
    finite = panels[np.isfinite(panels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    limit = 0.0
    if finite.size:
        # "higher" takes a value that occurs, so that the few values of a coarse map are not clipped.
        limit = float(np.percentile(np.abs(finite), style.clip_percentile, method="higher"))
    limit = limit or max(abs(low), abs(high)) or 1.0
    # Negative values are blue also where all are negative: a bright patch always speaks for the target.
    colors = matplotlib.colormaps[style.colormap or (_DIVERGING if signed else _SEQUENTIAL)]
    norm = Normalize(-limit if signed else 0.0, limit)
    below, above = low < -limit, high > limit
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    return colors.with_extremes(bad=_NOT_FINITE), norm, extend


def _draw_picture(axis: Axes, image: np.ndarray, label: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axis.set_title(label, fontsize=8, parse_math=False)
    axis.set_xticks([])
    axis.set_yticks([])


def _draw_lines(axis: Axes, panels: np.ndarray, block: _Block) -> None:
    for values, label in zip(panels, block.labels, strict=True):
        axis.plot(values, label=label, linewidth=1.0)
    axis.axhline(0.0, color="0.6", linewidth=0.6)
    axis.set_xlabel(block.axes[0], fontsize=8)
    axis.tick_params(labelsize=7)
    if len(panels) > 1:
        axis.legend(fontsize=6, ncols=1 + len(panels) // 7)
    _annotate(axis, panels)


def _draw_bars(axis: Axes, values: np.ndarray, block: _Block) -> None:
    # Two filled step lines, since single bars are slow to draw for thousands of features.
    edges = np.arange(len(values) + 1) - 0.5
    axis.stairs(np.where(values > 0, values, 0.0), edges, fill=True, color=_POSITIVE)
    axis.stairs(np.where(values < 0, values, 0.0), edges, fill=True, color=_NEGATIVE)
    axis.axhline(0.0, color="0.6", linewidth=0.6)
    axis.set_xlabel(block.axes[0], fontsize=8)
    axis.set_xlim(edges[0], edges[-1])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axis.tick_params(labelsize=7)
    _annotate(axis, values)


def _annotate(axis: Axes, values: np.ndarray) -> None:
    """Writes into the panel what must not be overlooked."""
    warning = _warning(values)
    if warning:
        axis.text(
            0.5,
            0.5,
            textwrap.fill(warning, 18),
            transform=axis.transAxes,
            ha="center",
            va="center",
            fontsize=8,
            color=_WARNING,
            bbox={"facecolor": "white", "edgecolor": _WARNING, "alpha": 0.9, "pad": 2},
        )
