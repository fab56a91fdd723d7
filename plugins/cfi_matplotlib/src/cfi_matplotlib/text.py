"""Tokens, drawn as the text that they make: each on a background of the colour of its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.colors import colormap_of
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap
from cfi_matplotlib.letters import families, known
from cfi_matplotlib.selection import choose_samples
from cfi_matplotlib.words import Piece, is_right_to_left, read_tokens

_COLORS = "RdBu_r"
_MARGIN, _BAR = 0.15, 1.7  # in inches
_LONGEST = 400  # letters of a token
_LEADING = 1.75  # from line to line, in letters


def is_text(attribution: Attribution) -> bool:
    """Whether every array has one value (or one for each number of the embedding) for each token, and their names."""
    pairs = zip(attribution.parts, attribution.part_names, strict=True)
    return all(names is not None and set(dims) <= {"sample", "token", "embedding"} for (_, dims), names in pairs)


def draw_text(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 8,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    width: float = 8.0,
    font_size: float = 11.0,
) -> Figure:
    """Draws tokens as text, each on the colour of its value; the samples one below the other, each with its scale.

    Markers of sub-words are left out, so that words read as they were written. Values of an embedding are summed.
    Padding without values is drawn once.

    Args:
        attribution: What to draw: axes `token` and `sample`, and names of the tokens.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        cmap: A matplotlib colour map, or its name, whose middle stands for zero.
        title: Replaces the title, which tells method, toolset, target and route.
        width: In inches.
        font_size: In points.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: There are no tokens with names, or an option does not fit.
    """
    if not is_text(attribution):
        raise PlotError("There are no tokens with names to draw as text: pass a tokenizer as feature_names=.")
    if not (width >= 3 and font_size > 0 and max_samples > 0):
        raise PlotError("width must be at least 3 inches, font_size and max_samples above 0.")
    figure = Figure(figsize=(width, 1), dpi=100)
    FigureCanvasAgg(figure)
    page = _Page(figure, width, font_size)
    rows = [page.lay_out(row) for row in _rows(attribution, samples, max_samples)]
    heading = page.wrap(title if title is not None else heading_of(attribution))
    notes = _notes(attribution, samples, max_samples)
    _draw(page, heading, rows, notes, colormap_of(cmap or _COLORS, signed=True))
    return figure


def draw_texts(
    attributions: Sequence[Attribution],
    titles: Sequence[str],
    *,
    samples: Sequence[int],
    heading: str = "",
    notes: Sequence[str] = (),
    cmap: str | Colormap | None = None,
    width: float = 8.0,
    font_size: float = 11.0,
) -> Figure:
    """Draws the tokens of several attributions: for each sample, the same text below itself, under each one's title.

    Args:
        attributions: With named tokens.
        titles: One for each.
        samples: Positions of the samples.
        heading: Stands above the figure.
        notes: Stand below it.
        cmap: A matplotlib colour map, or its name, whose middle stands for zero.
        width: In inches.
        font_size: In points.

    Returns:
        A figure that is not registered with pyplot.
    """
    figure = Figure(figsize=(width, 1), dpi=100)
    FigureCanvasAgg(figure)
    page = _Page(figure, width, font_size)
    laid = []
    for sample in samples:
        for attribution, title in zip(attributions, titles, strict=True):
            rows = _rows(attribution, [sample], 1)
            laid += [page.lay_out(replace(row, label=" · ".join(filter(None, [row.label, title])))) for row in rows]
    colors = colormap_of(cmap or _COLORS, signed=True)
    _draw(page, page.wrap(heading) if heading else [], laid, "; ".join(notes), colors)
    return figure


@dataclass(frozen=True)
class _Row:
    """One sample: its label, its tokens and their values."""

    label: str
    pieces: list[Piece]
    values: np.ndarray


@dataclass(frozen=True)
class _Placed:
    """A piece on a line: what is written, where it begins and how wide it is, in inches."""

    piece: Piece
    text: str
    line: int
    left: float
    width: float


@dataclass(frozen=True)
class _Laid:
    """A row whose pieces have their places."""

    row: _Row
    placed: list[_Placed]
    lines: int


def _rows(attribution: Attribution, samples: Sequence[int] | None, max_samples: int) -> list[_Row]:
    rows, several = [], len(attribution.parts) > 1
    inputs = list(attribution.values) if isinstance(attribution.values, dict) else range(len(attribution.parts))
    for (array, dims), names, which in zip(attribution.parts, attribution.part_names, inputs, strict=True):
        values = np.asarray(array, np.float64)
        if "embedding" in dims:
            values = values.sum(dims.index("embedding"))
        values = values if "sample" in dims else values[None]
        chosen, _ = choose_samples(samples, max_samples, len(values))
        for sample in chosen:
            tokens = names if isinstance(names[0], str) else names[sample]  # type: ignore[index]
            label = label_of_sample(attribution, sample, len(values)) + (f" · {which}" if several else "")
            rows.append(_Row(label, read_tokens(tokens, values[sample]), values[sample]))  # type: ignore[arg-type]
    return rows


class _Page:
    """Measures text, and breaks it into lines."""

    def __init__(self, figure: Figure, width: float, font_size: float) -> None:
        self.figure, self.width, self.font_size = figure, width, font_size
        self.line = _LEADING * font_size / 72
        canvas: Any = figure.canvas  # whose renderer matplotlib's types do not know
        self._renderer = canvas.get_renderer()
        self._widths: dict[str, float] = {}

    def measure(self, text: str) -> float:
        """Width of a text in inches."""
        if text not in self._widths:
            artist = self.figure.text(0, 0, text, **self.style)
            self._widths[text] = artist.get_window_extent(self._renderer).width / self.figure.dpi
            artist.remove()
        return self._widths[text]

    @property
    def style(self) -> dict[str, Any]:
        """Of all text."""
        return {"fontsize": self.font_size, "fontfamily": families(), "parse_math": False}

    def lay_out(self, row: _Row) -> _Laid:
        """The pieces on lines that end where a word does, from the right where the script is written so."""
        space, room = 0.35 * self.font_size / 72, self.width - 2 * _MARGIN
        backwards = is_right_to_left(row.pieces)
        placed: list[_Placed] = []
        left, line = 0.0, 0
        for word in _words(row.pieces):
            texts = [self.fit(known(piece.text), room) for piece in word]
            widths = [self.measure(text) + 0.02 for text in texts]
            gap = space if word[0].space and left else 0.0
            if left and left + gap + sum(widths) > room:
                left, gap, line = 0.0, 0.0, line + 1
            left += gap
            for piece, text, width in zip(word, texts, widths, strict=True):
                if left and left + width > room:  # a word that is longer than a line
                    left, line = 0.0, line + 1
                placed.append(_Placed(piece, text, line, room - left - width if backwards else left, width))
                left += width
        return _Laid(row, placed, line + 1)

    def fit(self, text: str, room: float) -> str:
        """A text that is longer than a line without its end."""
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        while len(text) > 2 and self.measure(text) + 0.02 > room:
            text = text[: int(0.9 * len(text)) - 1] + "…"
        return text

    def wrap(self, text: str) -> list[str]:
        """Words on lines of the page."""
        return wrap(text, self.width - 2 * _MARGIN, points=self.font_size).split("\n")


def _words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if piece.space or not words:
            words.append([])
        words[-1].append(piece)
    return words


def _draw(page: _Page, heading: Sequence[str], rows: Sequence[_Laid], notes: str, colors: Colormap) -> None:
    line, figure = page.line, page.figure
    heights = [(1.3 + laid.lines + 0.6) * line for laid in rows]
    height = 2 * _MARGIN + len(heading) * line + sum(heights) + (line if notes else 0)
    figure.set_size_inches(page.width, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(height, 0))
    axes.set_axis_off()
    top = _MARGIN
    for text in heading:
        axes.text(page.width / 2, top + line / 2, known(text), ha="center", va="center", **page.style)
        top += line
    for laid, tall in zip(rows, heights, strict=True):
        _draw_row(page, axes, laid, top, height, colors)
        top += tall
    if notes:
        small = {**page.style, "fontsize": 0.8 * page.font_size}
        axes.text(page.width / 2, top + line / 2, notes, ha="center", va="center", color="0.35", **small)


def _draw_row(page: _Page, axes: Axes, laid: _Laid, top: float, height: float, colors: Colormap) -> None:
    values, line, small = laid.row.values, page.line, {**page.style, "fontsize": 0.85 * page.font_size}
    finite = values[np.isfinite(values)]
    limit = float(np.abs(finite).max()) if finite.size else 0.0
    limit = limit or 1.0
    warning = _warning(values)
    axes.text(_MARGIN, top + line / 2, known(laid.row.label), va="center", color="0.35", **small)
    if warning:
        axes.text(page.width / 2, top + line / 2, warning, ha="center", va="center", color="#b00020", **small)
    _draw_scale(page, limit, colors, top, height)
    for placed in laid.placed:
        piece, middle = placed.piece, top + (1.3 + placed.line + 0.5) * line
        colour = colors(np.ma.masked_invalid(0.5 + 0.5 * values[piece.position] / limit))
        corner = (_MARGIN + placed.left, middle - 0.45 * line)
        axes.add_patch(Rectangle(corner, placed.width, 0.9 * line, facecolor=colour, linewidth=0))
        bright = float(np.dot(colour[:3], (0.299, 0.587, 0.114))) > 0.5
        shade = ("0.45" if piece.special else "black") if bright else "white"
        place = _MARGIN + placed.left + placed.width / 2
        axes.text(place, middle, placed.text, ha="center", va="center", color=shade, **page.style)


def _draw_scale(page: _Page, limit: float, colors: Colormap, top: float, height: float) -> None:
    left, line = page.width - _MARGIN - _BAR, page.line
    place = (left / page.width, 1 - (top + 0.45 * line) / height, _BAR / page.width, 0.3 * line / height)
    scale, cell = ScalarMappable(Normalize(-limit, limit), colors), page.figure.add_axes(place, label="<colorbar>")
    bar = page.figure.colorbar(scale, cax=cell, orientation="horizontal")
    bar.set_ticks([-limit, 0, limit], labels=[f"{-limit:.2g}", "0", f"{limit:.2g}"])
    bar.ax.tick_params(labelsize=0.65 * page.font_size, pad=1, length=2)
    bar.outline.set_linewidth(0.4)


def _notes(attribution: Attribution, samples: Sequence[int] | None, max_samples: int) -> str:
    notes = []
    (values, dims), *_ = attribution.parts
    count = values.shape[dims.index("sample")] if "sample" in dims else 1
    if samples is None and count > max_samples:
        notes.append(f"the first {max_samples} of {count} samples are shown")
    if any("embedding" in dims for _, dims in attribution.parts):
        notes.append("sum over embedding")
    return "; ".join(notes)


def _warning(values: np.ndarray) -> str:
    broken = int(values.size - np.isfinite(values).sum())
    if broken:
        return f"{broken} of {values.size} values are not finite"
    return "" if values.any() else "all values are zero"
