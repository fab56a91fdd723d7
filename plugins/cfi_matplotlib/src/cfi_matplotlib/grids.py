"""Panels on a page: each sample is a tile, in which its panels flow from line to line; tiles stand on a grid.

Everything is placed in inches, from the top left, so that no text is cut off and nothing lies over anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_matplotlib.heading import wrap
from cfi_matplotlib.letters import families, known, width_of
from cfi_matplotlib.panels import Bar, Panel

_MARGIN, _GAP, _LINE_GAP, _TILE_GAP = 0.15, 0.12, 0.1, 0.35
_COLUMNS = 6  # most pictures in a line
_CHART_LEFT, _CHART_BOTTOM = 0.6, 0.45  # for numbers and names on the axes
_BAR_GAP, _BAR, _BROAD_BAR, _LOWEST_BAR = 0.08, 0.13, 0.32, 0.3
_NARROWEST, _WIDEST = 4.8, 13.0
_NARROWEST_PANEL = 0.4  # has room for its label
_SHAPE = 1.4  # width for height that a figure of many tiles comes near to
_HEADING, _SAMPLE, _LABEL, _NOTE, _TICK = 10.0, 9.0, 8.0, 8.0, 7.0  # points


@dataclass(frozen=True)
class Column:
    """One array of the attribution for a sample: its panels under its name."""

    name: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Row:
    """A sample: its columns under its label."""

    label: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class _Text:
    text: str
    left: float  # of the middle
    top: float
    points: float


@dataclass(frozen=True)
class _Placed:
    panel: Panel
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class _Tile:
    """What belongs to a sample, placed from the tile's own corner."""

    width: float
    height: float
    texts: list[_Text]
    placed: list[_Placed]


def draw_rows(rows: Sequence[Row], heading: str, notes: str, panel_size: float | None) -> Figure:
    """Draws the rows into a figure of its own, which fits them.

    Args:
        rows: The samples.
        heading: Stands above; it is broken where it is too long.
        notes: Stand below.
        panel_size: Width of a square panel in inches; None: smaller the more there are.
    """
    size = _Size.of(rows, panel_size)
    tiles = [_tile(row, size) for row in rows]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    across = _tiles_in_a_line(len(tiles), width, height)
    inner = across * width + (across - 1) * _TILE_GAP
    page = max(inner + 2 * _MARGIN, _NARROWEST)
    heading, notes = wrap(heading, page - 2 * _MARGIN, points=_HEADING), wrap(notes, page - 2 * _MARGIN, points=_NOTE)
    top = _MARGIN + _height(heading, _HEADING) + (0.08 if heading else 0)
    lines = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    heights = [max(tile.height for tile in line) for line in lines]
    below = _height(notes, _NOTE) + (0.1 if notes else 0)
    total = top + sum(heights) + _LINE_GAP * len(lines) + below + _MARGIN / 2

    figure = Figure(figsize=(page, total))
    FigureCanvasAgg(figure)
    sheet = _Sheet(figure, page, total)
    if heading:
        figure.suptitle(_known(heading), y=1 - _MARGIN / total, va="top", **_style(_HEADING))
    for line, tall in zip(lines, heights, strict=True):
        left = (page - len(line) * width - (len(line) - 1) * _TILE_GAP) / 2 if len(lines) == 1 else (page - inner) / 2
        for tile in line:
            sheet.put(tile, left + (width - tile.width) / 2, top)
            left += width + _TILE_GAP
        top += tall + _LINE_GAP
    if notes:
        sheet.write(_Text(notes, page / 2, total - _MARGIN / 2 - _height(notes, _NOTE), _NOTE), color="0.35")
    return figure


class _Sheet:
    """A figure that takes inches from its top left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def put(self, tile: _Tile, left: float, top: float) -> None:
        """The texts and panels of a tile."""
        for text in tile.texts:
            self.write(_Text(text.text, left + text.left, top + text.top, text.points))
        for placed in tile.placed:
            axis = self.axes(left + placed.left, top + placed.top, placed.width, placed.height)
            placed.panel.draw(axis)
            if placed.panel.bar is not None:
                bar, at = placed.panel.bar, left + placed.left + placed.width + _BAR_GAP
                tall = max(placed.height - _foot(bar), _LOWEST_BAR)
                _draw_bar(self.axes(at, top + placed.top, _bar_width(bar), tall, "<colorbar>"), bar, tall)

    def axes(self, left: float, top: float, width: float, height: float, label: str = "") -> Axes:
        """Axes with that corner and size."""
        place = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(place, label=label)

    def write(self, text: _Text, color: str = "black") -> None:
        """A text, centred, whose first line begins there."""
        at = (text.left / self.width, 1 - text.top / self.height)
        self.figure.text(*at, _known(text.text), ha="center", va="top", color=color, **_style(text.points))


def _style(points: float) -> dict[str, Any]:
    return {"fontsize": points, "fontfamily": families(), "linespacing": 1.2, "parse_math": False}


def _known(text: str) -> str:
    return "\n".join(map(known, text.split("\n")))


def _tiles_in_a_line(count: int, width: float, height: float) -> int:
    """As many as bring the figure near to the shape of a screen."""

    def off(across: int) -> float:
        shape = across * (width + _TILE_GAP) / (-(-count // across) * (height + _LINE_GAP))
        return max(shape / _SHAPE, _SHAPE / shape)

    fitting = [across for across in range(1, count + 1) if across * (width + _TILE_GAP) <= _WIDEST]
    return min(fitting, key=off, default=1)


def _tile(row: Row, size: _Size) -> _Tile:
    """The columns beside each other, as far as there is room, under the label of the sample."""
    columns = [_flow(column, size) for column in row.columns]
    lines: list[list[_Tile]] = []
    for column in columns:
        if not lines or _across([*lines[-1], column]) > _WIDEST:
            lines.append([])
        lines[-1].append(column)
    width = max(_across(line) for line in lines)
    label = wrap(row.label, max(width, 2.0), points=_SAMPLE)
    texts = [_Text(label, width / 2, 0.0, _SAMPLE)] if label else []
    placed, top = [], _height(label, _SAMPLE) + (0.05 if label else 0)
    for line in lines:
        left = (width - _across(line)) / 2
        for column in line:
            texts += [_Text(one.text, left + one.left, top + one.top, one.points) for one in column.texts]
            placed += [replace(one, left=left + one.left, top=top + one.top) for one in column.placed]
            left += column.width + _TILE_GAP
        top += max(column.height for column in line) + _LINE_GAP
    return _Tile(width, top - _LINE_GAP, texts, placed)


def _across(tiles: Sequence[_Tile]) -> float:
    return sum(tile.width for tile in tiles) + _TILE_GAP * (len(tiles) - 1)


def _flow(column: Column, size: _Size) -> _Tile:
    """The panels in lines, below the column's name."""
    lines: list[list[Panel]] = []
    for panel in column.panels:
        if not lines or len(lines[-1]) == _COLUMNS or panel.is_chart:
            lines.append([])
        lines[-1].append(panel)
    width = max(sum(size.width(panel) for panel in line) + _GAP * (len(line) - 1) for line in lines)
    name = wrap(column.name, width, points=_SAMPLE)
    texts = [_Text(name, width / 2, 0.0, _SAMPLE)] if name else []
    placed, top = [], _height(name, _SAMPLE) + (0.05 if name else 0)
    for line in lines:
        labels = [wrap(panel.label, size.box(panel)[0], points=_LABEL) for panel in line]
        above = max(_height(label, _LABEL) for label in labels)
        above += 0.03 if above else 0
        left = 0.0
        for panel, label in zip(line, labels, strict=True):
            across, down = size.box(panel)
            inset = _CHART_LEFT if panel.is_chart else 0.0
            if label:
                at = top + above - 0.03 - _height(label, _LABEL)
                texts.append(_Text(label, left + inset + across / 2, at, _LABEL))
            placed.append(_Placed(panel, left + inset, top + above, across, down))
            left += size.width(panel) + _GAP
        top += above + max(map(size.height, line)) + _LINE_GAP
    return _Tile(width, top - _LINE_GAP, texts, placed)


@dataclass(frozen=True)
class _Size:
    """How large panels are, in inches.

    Attributes:
        side: Width of a square one.
        numbers: Width of what stands beside colour bars; the same for all, so that panels stand below each other.
    """

    side: float
    numbers: float

    @staticmethod
    def of(rows: Sequence[Row], side: float | None) -> _Size:
        """The same for all rows; smaller the more panels there are."""
        panels = [panel for row in rows for column in row.columns for panel in column.panels]
        most = max(sum(len(column.panels) for column in row.columns) for row in rows)
        fitting = 2.5 if most <= 3 and len(rows) <= 2 else 1.9 if most <= 4 and len(rows) <= 8 else 1.5
        return _Size(side or fitting, max((_text_width(panel.bar) for panel in panels if panel.bar), default=0.0))

    def box(self, panel: Panel) -> tuple[float, float]:
        """Width and height of what is drawn: a tall picture is not much higher than a square one, a flat one wider."""
        if panel.is_chart:
            return 2 * self.side - _CHART_LEFT + _GAP, 2 * self.side * panel.shape[0] / panel.shape[1]
        aspect = panel.shape[0] / panel.shape[1]
        width = self.side * min(1.0, 1.5 / aspect) * min(max(1.0, 0.5 / aspect), 2.4)
        return max(width, _NARROWEST_PANEL), max(width * aspect, 0.15)

    def width(self, panel: Panel) -> float:
        """With what stands beside it."""
        beside = 0.0 if panel.bar is None else _BAR_GAP + _bar_width(panel.bar) + self.numbers
        return self.box(panel)[0] + (_CHART_LEFT if panel.is_chart else 0) + beside

    def height(self, panel: Panel) -> float:
        """With what stands below it; a bar has room for its numbers."""
        height = self.box(panel)[1] + (_CHART_BOTTOM if panel.is_chart else 0)
        return height if panel.bar is None else max(height, _LOWEST_BAR + _foot(panel.bar))


def _height(text: str, points: float) -> float:
    return (text.count("\n") + 1) * 1.25 * points / 72 if text else 0.0


# Colour bars.


def _bar_width(bar: Bar) -> float:
    return _BAR if bar.colors.shape[1] == 1 else _BROAD_BAR


def _foot(bar: Bar) -> float:
    """Room for the words below a bar in two dimensions."""
    return 0.0 if bar.colors.shape[1] == 1 else 0.22


def _text_width(bar: Bar) -> float:
    return max(width_of(text, _TICK) for text in _ticks(bar)[1]) + 0.12 + (0.17 if bar.label else 0)


def _ticks(bar: Bar) -> tuple[list[float], list[str]]:
    """Both ends and the middle; beyond an end that is pointed there are further values."""
    middle = 0.0 if bar.low < 0 < bar.high else (bar.low + bar.high) / 2
    texts = [f"{value:.3g}".replace("-", "−") for value in (bar.low, middle, bar.high)]
    texts[0] = f"≤ {texts[0]}" if bar.below else texts[0]
    texts[2] = f"≥ {texts[2]}" if bar.above else texts[2]
    return [bar.low, middle, bar.high], texts


def _draw_bar(axis: Axes, bar: Bar, tall: float) -> None:
    axis.imshow(bar.colors, extent=(0, 1, bar.low, bar.high), origin="lower", aspect="auto", interpolation="nearest")
    axis.yaxis.tick_right()
    axis.yaxis.set_label_position("right")
    values, texts = _ticks(bar)
    axis.set_yticks(values if tall > 0.5 else values[::2], texts if tall > 0.5 else texts[::2])
    axis.tick_params(labelsize=_TICK, length=2, pad=2)
    axis.set_xticks([])
    if bar.label:
        axis.set_ylabel(bar.label, fontsize=_LABEL, labelpad=3)
    if bar.colors.shape[1] > 1:
        axis.set_xlabel("over dark\nto bright", fontsize=5.5, labelpad=2, linespacing=1.0)
    for spine in axis.spines.values():
        spine.set_linewidth(0.5)
