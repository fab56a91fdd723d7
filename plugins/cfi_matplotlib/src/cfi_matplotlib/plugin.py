"""What this plugin registers; imports no matplotlib."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import PlotterSpec, WriterSpec


@hookimpl
def cfi_plotters() -> list[PlotterSpec]:
    """Images, series, feature vectors; text and tables, which the first one draws too, with options of their own."""
    return [
        PlotterSpec(name="matplotlib", implementation="cfi_matplotlib.plotting:plot"),
        PlotterSpec(name="text", implementation="cfi_matplotlib.text:draw_text", accepts=("token",)),
        PlotterSpec(name="table", implementation="cfi_matplotlib.table:draw_table", accepts=("sample", "feature")),
    ]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """Pictures, and pages with one."""
    return [
        WriterSpec(
            name="picture", suffixes=(".png", ".svg", ".pdf"), implementation="cfi_matplotlib.files:write_picture"
        ),
        WriterSpec(name="page", suffixes=(".html",), implementation="cfi_matplotlib.files:write_page"),
    ]
