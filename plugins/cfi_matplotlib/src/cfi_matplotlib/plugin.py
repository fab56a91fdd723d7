"""What this plugin registers; imports no matplotlib."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import PlotterSpec, WriterSpec


@hookimpl
def cfi_plotters() -> list[PlotterSpec]:
    """Images, series and feature vectors."""
    return [PlotterSpec(name="matplotlib", implementation="cfi_matplotlib.plotting:plot")]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """Pictures."""
    return [WriterSpec(name="png", suffixes=(".png",), implementation="cfi_matplotlib.plotting:write_png")]
