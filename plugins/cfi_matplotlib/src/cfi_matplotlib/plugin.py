"""What this plugin registers; imports no matplotlib."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import PlotterSpec, WriterSpec

_FEATURES, _PLANE = ("sample", "feature"), ("height", "width")


@hookimpl
def cfi_plotters() -> list[PlotterSpec]:
    """What draws everything, then what it draws single kinds with, with options of their own; comparisons, checks."""
    return [
        PlotterSpec(name="matplotlib", implementation="cfi_matplotlib.plotting:plot"),
        PlotterSpec(name="text", implementation="cfi_matplotlib.text:draw_text", accepts=("token",)),
        PlotterSpec(name="table", implementation="cfi_matplotlib.table:draw_table", accepts=_FEATURES),
        PlotterSpec(name="waterfall", implementation="cfi_matplotlib.waterfall:draw_waterfall", accepts=_FEATURES),
        PlotterSpec(name="beeswarm", implementation="cfi_matplotlib.beeswarm:draw_beeswarm", accepts=_FEATURES),
        PlotterSpec(name="series", implementation="cfi_matplotlib.timelines:draw_series"),
        PlotterSpec(name="volume", implementation="cfi_matplotlib.volumes:draw_volume", accepts=_PLANE),
        PlotterSpec(name="making", implementation="cfi_matplotlib.making:draw_making", accepts=_PLANE),
        PlotterSpec(name="side-by-side", implementation="cfi_matplotlib.comparisons:side_by_side", several=True),
        PlotterSpec(name="curves", implementation="cfi_matplotlib.curves:draw_checks", draws="checks"),
    ]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """Pictures, pages with one, and moving ones."""
    return [
        WriterSpec(
            name="picture", suffixes=(".png", ".svg", ".pdf"), implementation="cfi_matplotlib.files:write_picture"
        ),
        WriterSpec(name="page", suffixes=(".html",), implementation="cfi_matplotlib.files:write_page"),
        WriterSpec(name="gif", suffixes=(".gif",), implementation="cfi_matplotlib.making:write_gif"),
    ]
