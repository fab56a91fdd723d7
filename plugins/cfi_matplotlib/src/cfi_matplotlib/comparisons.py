"""Several attributions of the same samples in one figure: a row for each sample, a column for each attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure

from cfi_core import Attribution
from cfi_core.display import offer_figure
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import Block, Choice, arrange, is_difference, values_by_sample
from cfi_matplotlib.cells import is_of_features, labels_of, width_of_labels
from cfi_matplotlib.colors import NEGATIVE, POSITIVE, colormap_of, limit_of
from cfi_matplotlib.composites import put_together, start_figure
from cfi_matplotlib.differences import common_heading, titles_of
from cfi_matplotlib.heading import label_of_sample, with_names, wrap
from cfi_matplotlib.images import notes_on_maps, panel_of_picture, panels_of_maps
from cfi_matplotlib.letters import dress
from cfi_matplotlib.panels import Bar, Panel
from cfi_matplotlib.pictures import IMAGE
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.remarks import annotate
from cfi_matplotlib.scales import NOT_FINITE
from cfi_matplotlib.selection import choose_samples
from cfi_matplotlib.style import Interpolation, Method, Sign, Style, views_of
from cfi_matplotlib.text import draw_texts, is_text
from cfi_matplotlib.timelines import draw_row, is_series, rows_of

_ROW = 0.26  # inches of a feature
Scale = Literal["cell", "column", "figure"]


def side_by_side(
    attributions: Sequence[Attribution],
    titles: Sequence[str] | None = None,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 6,
    images: Any = None,
    target_names: Any = None,
    scale: Scale = "column",
    method: Method | None = None,
    sign: Sign | None = None,
    interpolation: Interpolation | None = None,
    show_input: bool = True,
    alpha_overlay: float = 0.8,
    outlier_perc: float = 2.0,
    cmap: str | Colormap | None = None,
    show_colorbar: bool = True,
    max_features: int = 12,
    title: str | None = None,
    panel_size: float = 1.9,
) -> Figure:
    """Draws several attributions of the same samples beside each other: by methods, toolsets, targets, models, layers.

    Above each column stands what differs, above the figure what all have in common. Images have the input in a column
    of its own, their channels are summed; series have panels on one axis of time; features are in one order for all
    columns, which is that of their size in relation to the largest of each; texts stand below each other. What is
    none of these, or of different kinds, is drawn by each one's own plotter.

    Args:
        attributions: Two or more (or one), of as many samples each.
        titles: One for each; None: what tells them apart.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        images: The pictures that the inputs were made of, as `plot` takes them.
        target_names: Names of classes by index.
        scale: What shares a colour scale (or an axis of bars): each `"cell"` has its own, each `"column"` (attributions
            of different methods have different units), or the whole `"figure"`.
        method: How maps are drawn, as in `plot`; None: over the picture where they are coarser than it.
        sign: Which values of maps are drawn, as in `plot`.
        interpolation: How coarse maps are stretched, as in `plot`.
        show_input: Whether images have a column of inputs.
        alpha_overlay: Opacity of a heat map over the input.
        outlier_perc: The strongest values that hold this percentage of the sum of all absolute values have the scale's
            last colour.
        cmap: A matplotlib colour map, or its name; None takes a diverging one for values of which some are negative.
        show_colorbar: Whether to draw the colour scales.
        max_features: Most features drawn of a table.
        title: Replaces the title, which tells what all have in common.
        panel_size: Width of a picture in inches; series, tables and texts are wider.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: There is no attribution, they have different numbers of samples, a title is missing, there is no
            such sample, no finite value, or an option does not fit.
    """
    given = tuple(with_names(one, target_names) if isinstance(one, Attribution) else one for one in attributions)
    _check(given, scale, max_samples, max_features, panel_size)
    heads, count = titles_of(given, titles), _count(given)
    chosen, notes = choose_samples(samples, max_samples, count)
    table = _Table(given, heads, chosen, notes, title if title is not None else common_heading(given))
    style = Style(views_of(method, sign), outlier_perc, cmap, alpha_overlay, interpolation, show_colorbar, show_input)
    look = _Look(scale, style, show_input)
    figure = _draw(table, look, images, max_features, panel_size)
    dress(figure)
    offer_figure(figure)
    return figure


def _draw(table: _Table, look: _Look, images: Any, max_features: int, size: float) -> Figure:
    """In the way of the kind that all are of."""
    given = table.attributions
    if all(map(_is_image, given)):
        return _images(table, look, images, size)
    if images is not None:
        raise PlotError("images= are the pictures behind maps of height and width, and not all attributions are such.")
    if all(map(is_series, given)):
        return _series(table, look, size)
    if all(map(is_of_features, given)) and len({one.parts[0][0].shape for one in given}) == 1:
        return _features(table, look, max_features, size)
    if all(map(is_text, given)):
        return draw_texts(
            given, table.heads, samples=table.samples, heading=table.heading, notes=table.notes, cmap=look.cmap
        )
    figures = [plot(one, samples=table.samples, title=head) for one, head in zip(given, table.heads, strict=True)]
    return put_together(figures, table.heading, table.notes)


@dataclass(frozen=True)
class _Table:
    """What is drawn."""

    attributions: tuple[Attribution, ...]
    heads: list[str]
    samples: list[int]
    notes: list[str]
    heading: str

    def label(self, row: int) -> str:
        """Which sample: of the first attribution, as far as all are of one target."""
        count = _count(self.attributions)
        labels = {label_of_sample(one, self.samples[row], count) for one in self.attributions}
        return labels.pop() if len(labels) == 1 else f"sample {self.samples[row]}" if count > 1 else ""


@dataclass(frozen=True)
class _Look:
    """How it is drawn."""

    scale: Scale
    style: Style
    show_input: bool

    @property
    def outlier_perc(self) -> float:
        return self.style.outlier_perc

    @property
    def cmap(self) -> str | Colormap | None:
        return self.style.cmap

    def limits(self, cells: list[list[np.ndarray]]) -> list[list[tuple[float, str]]]:
        """For each row and column, where the scale ends and at which ends it is pointed."""
        columns = list(zip(*cells, strict=True))
        together = [np.concatenate([cell.ravel() for cell in column]) for column in columns]
        if self.scale == "figure":
            return [[limit_of(np.concatenate(together), self.outlier_perc)] * len(columns)] * len(cells)
        if self.scale == "column":
            return [[limit_of(one, self.outlier_perc) for one in together]] * len(cells)
        return [[limit_of(cell, self.outlier_perc) for cell in row] for row in cells]


def _need_finite(cells: list[list[np.ndarray]]) -> None:
    if not any(np.isfinite(cell).any() for row in cells for cell in row):
        raise PlotError("None of the values is finite (all are NaN or infinite).")


# Images.


def _is_image(attribution: Attribution) -> bool:
    dims = [set(dims) for _, dims in attribution.parts]
    return len(dims) == 1 and set(IMAGE) <= dims[0] <= {"sample", "channel", *IMAGE}


def _images(table: _Table, look: _Look, images: Any, size: float) -> Figure:
    choice = Choice(table.samples, len(table.samples), "sum", None, images)
    blocks = [arrange(one, 0, choice) for one in table.attributions]
    _need_finite([[block.values for block in blocks]])
    columns = [_cells(block, look, blocks) for block in blocks]
    inputs = _inputs(blocks) if look.show_input else []
    heads = list(table.heads)
    if inputs:
        columns, heads = [inputs, *columns], [inputs[0].label, *heads]
    notes = [note for block in blocks for note in (*block.notes, *notes_on_maps(block, look.style))]
    notes += [block.scale_label for block in blocks if block.scale_label]
    return _draw_columns(replace(table, heads=heads, notes=[*table.notes, *dict.fromkeys(notes)]), look, columns, size)


def _inputs(blocks: Sequence[Block]) -> list[Panel]:
    """A picture for each sample, of the first attribution that has one; none where one is missing."""
    rows = range(len(blocks[0].pictures))
    found = [next((block.pictures[row] for block in blocks if block.pictures[row]), None) for row in rows]
    panels = [panel_of_picture(picture) for picture in found if picture is not None]
    return panels if len(panels) == len(found) else []


def _draw_columns(table: _Table, look: _Look, columns: list[list[Panel]], size: float) -> Figure:
    ratio = min(max(max(cell.shape[0] / cell.shape[1] for column in columns for cell in column), 0.4), 2.0)
    labels = [wrap(label, size * ratio, points=8) for label in map(table.label, range(len(table.samples)))]
    heads = [wrap(head, size - 0.1, points=8) for head in table.heads]
    bars = look.style.show_colorbar and look.scale != "cell"
    lines = [size * ratio + 0.08 + 0.15 * (look.scale == "cell")] * len(table.samples) + [0.35] * bars
    side = max(label.count("\n") + 1 if label else 0 for label in labels) * 0.16
    above = 0.16 * max(head.count("\n") + 1 for head in heads)
    width = max(len(columns) * (size + 0.1) + side, 3.5)
    figure = start_figure(table.heading, table.notes, width, sum(lines) + above)
    grid = figure.subplots(len(lines), len(columns), squeeze=False, height_ratios=lines)
    for axes, column, head in zip(grid.T, columns, heads, strict=True):
        for axis, cell in zip(axes, column, strict=False):
            cell.draw(axis)
            axis.set_box_aspect(cell.shape[0] / cell.shape[1])
            if look.scale == "cell" and cell.bar is not None:
                axis.set_xlabel(f"{cell.bar.low:.2g} to {cell.bar.high:.2g}", fontsize=7)
        axes[0].set_title(head, fontsize=8, parse_math=False)
        if bars:
            _draw_bar(axes[-1], column[-1].bar)
    for axis, label in zip(grid[:, 0], labels, strict=False):
        axis.set_ylabel(label, fontsize=8, parse_math=False)
    return figure


def _cells(block: Block, look: _Look, blocks: Sequence[Block]) -> list[Panel]:
    """The panels of a column, each with its colour bar, on the scale that they share."""
    style = replace(look.style, show_input=False, show_colorbar=True)
    shared = {"cell": None, "column": block.values, "figure": np.concatenate([one.values.ravel() for one in blocks])}
    if look.scale == "figure":
        block = replace(block, is_difference=any(one.is_difference for one in blocks))
    return [panels_of_maps(block, row, style, shared[look.scale])[-1] for row in range(len(block.values))]


def _draw_bar(axis: Axes, bar: Bar | None) -> None:
    """A colour bar that lies below a column; nothing below pictures."""
    axis.set_label("<colorbar>")
    if bar is None:
        axis.set_axis_off()
        return
    colors = np.swapaxes(bar.colors, 0, 1)
    axis.imshow(colors, extent=(bar.low, bar.high, 0, 1), origin="lower", aspect="auto", interpolation="nearest")
    axis.set_box_aspect(0.07)
    axis.set_anchor("N")
    ends = [bar.low, 0.0, bar.high] if bar.low < 0 < bar.high else [bar.low, bar.high]
    texts = [f"{end:.2g}" for end in ends]
    texts[0], texts[-1] = "≤ " * bar.below + texts[0], "≥ " * bar.above + texts[-1]
    axis.set_xticks(ends, texts, fontsize=7)
    axis.set_yticks([])


# Series.


def _series(table: _Table, look: _Look, size: float) -> Figure:
    most = min(max(12 // len(table.samples), 1), 4)
    found = [rows_of(one, table.samples, most, "each") for one in table.attributions]
    rows, notes = [one for one, _ in found], dict.fromkeys(note for _, more in found for note in more)
    cells = [
        [np.concatenate([panel.values for panel in of_one[row].panels]) for of_one in rows]
        for row in range(len(table.samples))
    ]
    _need_finite(cells)
    limits, width = look.limits(cells), max(2 * size, 3.5)
    heights = [max(len(of_one[row].panels) for of_one in rows) * 1.0 + 0.75 for row in range(len(table.samples))]
    told = replace(table, notes=[*table.notes, *notes])
    figure = start_figure(told.heading, told.notes, width * len(rows), sum(heights))
    grid = figure.subfigures(len(table.samples), len(rows), squeeze=False, height_ratios=heights)
    for row in range(len(table.samples)):
        for column, of_one in enumerate(rows):
            cell: SubFigure = grid[row, column]
            shown = (
                [line[column] for line in cells] if look.scale != "figure" else [one for line in cells for one in line]
            )
            whose = table.attributions if look.scale == "figure" else [table.attributions[column]]
            signed = any(map(is_difference, whose)) or any((one < 0).any() for one in shown)
            colors = colormap_of(look.cmap, signed=signed)
            limit = None if look.scale == "cell" else limits[row][column]
            room = max(len(other[row].panels) for other in rows)
            draw_row(cell, of_one[row], colors, look.outlier_perc, signed=signed, limit=limit, room=room)
            label = [table.label(row)] if len(table.samples) > 1 or column == 0 else [""]
            head = wrap(table.heads[column], width - 0.3, points=9) if row == 0 else ""
            cell.suptitle("\n".join(filter(None, [head, *label])), fontsize=9, parse_math=False)
    return figure


# Tables.


def _features(table: _Table, look: _Look, most: int, size: float) -> Figure:
    arrays = [values_by_sample(one, 0)[0] for one in table.attributions]
    cells = [[array[sample] for array in arrays] for sample in table.samples]
    _need_finite(cells)
    labels = [labels_of(table.attributions[0], sample) for sample in table.samples]
    bars, width = min(cells[0][0].size, most + 1), max(size, 1.6)
    head = [wrap(one, width, points=8) for one in table.heads]
    room, above = max(width_of_labels(one, 8) for one in labels) + 0.2, 0.16 * max(one.count("\n") + 1 for one in head)
    height = len(cells) * (bars * _ROW + 0.5) + above
    figure = start_figure(table.heading, table.notes, max(room + width * len(head), 3.5), height)
    grid = figure.subplots(len(cells), len(head), squeeze=False)
    for row, of_sample in enumerate(cells):
        order, rest = _order(of_sample, most)
        names = [labels[row][place] for place in order] + ([f"sum of {len(rest)} others"] if rest else [])
        for column, values in enumerate(of_sample):
            ends = [abs(value).max(initial=0) for value in _shown(cells, look.scale, row, column)]
            _draw_features(grid[row, column], values, order, rest, names if column == 0 else None, max(ends) or 1.0)
        label = table.label(row) if len(cells) > 1 else ""
        for column, text in enumerate(head):
            shown = "\n".join(filter(None, [text if row == 0 else "", label if column == 0 else ""]))
            grid[row, column].set_title(shown, fontsize=8, parse_math=False)
    return figure


def _order(values: Sequence[np.ndarray], most: int) -> tuple[list[int], list[int]]:
    """The features by their size in relation to the largest of each attribution, and those that are summed."""
    sizes = [np.abs(np.nan_to_num(one, nan=np.inf, posinf=np.inf)) for one in values]
    relative = [one / (one[np.isfinite(one)].max(initial=0) or 1.0) for one in sizes]
    order = [int(place) for place in np.argsort(-np.max(relative, axis=0), kind="stable")]
    return (order, []) if len(order) <= most + 1 else (order[:most], order[most:])


def _shown(cells: list[list[np.ndarray]], scale: Scale, row: int, column: int) -> list[np.ndarray]:
    """The finite values that share the axis of a cell."""
    chosen = {
        "cell": [cells[row][column]],
        "column": [line[column] for line in cells],
        "figure": [cell for line in cells for cell in line],
    }[scale]
    return [cell[np.isfinite(cell)] for cell in chosen]


def _draw_features(
    axis: Axes, values: np.ndarray, order: list[int], rest: list[int], names: list[str] | None, end: float
) -> None:
    shown = np.array([*values[order], *([values[rest].sum()] if rest else [])])
    colors = [NOT_FINITE if not np.isfinite(one) else POSITIVE if one > 0 else NEGATIVE for one in shown]
    if rest:
        colors[-1] = "0.6"
    end = max(end, np.abs(shown[np.isfinite(shown)]).max(initial=0))
    axis.barh(np.arange(len(shown)), np.where(np.isfinite(shown), shown, 0), color=colors, height=0.72)
    for place, value in enumerate(shown):
        forward = not value < 0
        put: dict[str, Any] = {"xytext": (3 if forward else -3, 0), "textcoords": "offset points", "va": "center"}
        at = (value if np.isfinite(value) else 0.0, place)
        axis.annotate(f"{value:+.2g}" if value else "0", at, ha="left" if forward else "right", fontsize=6, **put)
    axis.axvline(0.0, color="0.3", linewidth=0.8)
    low = -end if (shown < 0).any() else 0.0
    axis.set_xlim(low - 0.35 * end * (low < 0), end * 1.35)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_yticks(np.arange(len(shown)), names or [""] * len(shown), fontsize=8, parse_math=False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=7)
    axis.locator_params(axis="x", nbins=4)
    axis.spines[["top", "right", "left"]].set_visible(False)
    if not np.any(shown):
        annotate(axis, shown)


# Checks.


def _count(attributions: Sequence[Attribution]) -> int:
    values, dims = attributions[0].parts[0]
    return values.shape[dims.index("sample")] if "sample" in dims else 1


def _check(
    attributions: Sequence[Attribution],
    scale: str,
    max_samples: int,
    max_features: int,
    panel_size: float,
) -> None:
    if not attributions or not all(isinstance(one, Attribution) for one in attributions):
        raise PlotError("side_by_side takes a sequence of attributions, one or more.")
    counts = [_count([one]) for one in attributions]
    if len(set(counts)) > 1:
        raise PlotError(
            f"The attributions have {', '.join(map(str, counts))} samples: rows are the same samples in all."
        )
    if scale not in ("cell", "column", "figure"):
        raise PlotError(f'scale={scale!r} must be "cell", "column" or "figure".')
    if max_samples < 1 or max_features < 1:
        raise PlotError(f"max_samples={max_samples} and max_features={max_features} must be at least 1.")
    if not panel_size > 0:
        raise PlotError(f"panel_size={panel_size} must be above 0.")
