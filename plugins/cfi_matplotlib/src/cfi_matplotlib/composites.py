"""Figures that hold other figures: what is drawn in ways that have no cells in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_matplotlib.heading import wrap
from cfi_matplotlib.letters import dress

_DPI, _WIDE = 150, 13  # pixels of an inch, and inches


def put_together(figures: Sequence[Figure], heading: str, notes: Sequence[str] = ()) -> Figure:
    """The figures as pictures in one, each in its own size: side by side where there is room, else stacked."""
    drawn = [_picture_of(figure) for figure in figures]
    heights, widths = zip(*(picture.shape[:2] for picture in drawn), strict=True)
    beside = sum(widths) <= _WIDE * _DPI
    width, height = (sum(widths), max(heights)) if beside else (max(widths), sum(heights))
    figure = start_figure(heading, notes, width / _DPI, height / _DPI)
    if beside:
        axes = figure.subplots(1, len(drawn), squeeze=False, width_ratios=widths).flat
    else:
        axes = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights).flat
    for axis, picture in zip(axes, drawn, strict=True):
        axis.imshow(picture, interpolation="antialiased")
        # In one scale: what is smaller leaves room.
        axis.set_xlim(0, picture.shape[1] if beside else width)
        axis.set_ylim(height if beside else picture.shape[0], 0)
        axis.set_axis_off()
    return dress(figure)


def start_figure(heading: str, notes: Sequence[str], width: float, height: float) -> Figure:
    """A figure with heading and notes, and room of so many inches between them."""
    text, note = wrap(heading, width), wrap("; ".join(notes), width, points=8)
    above = 0.2 * (text.count("\n") + 1) + 0.15 if text else 0.1
    below = 0.17 * (note.count("\n") + 1) + 0.05 if note else 0.0
    figure = Figure(figsize=(width, height + above + below), layout="constrained")
    FigureCanvasAgg(figure)
    if text:
        figure.suptitle(text, fontsize=10, parse_math=False)
    if note:
        figure.supxlabel(note, fontsize=8, color="0.35", parse_math=False)
    return figure


def _picture_of(figure: Figure) -> np.ndarray:
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
