"""What this plugin registers; imports no matplotlib."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import PlotterSpec, WriterSpec


@hookimpl
def cfi_plotters() -> list[PlotterSpec]:
    """Images, series and feature vectors; and text, which the first one draws too, with options of its own."""
    return [
        PlotterSpec(name="matplotlib", implementation="cfi_matplotlib.plotting:plot"),
        PlotterSpec(name="text", implementation="cfi_matplotlib.text:draw_text", accepts=("token",)),
    ]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """Pictures."""
    return [WriterSpec(name="png", suffixes=(".png",), implementation="cfi_matplotlib.plotting:write_png")]
