"""Attributions as files of pictures."""

from __future__ import annotations

from pathlib import Path

from cfi_core import Attribution
from cfi_matplotlib.plotting import plot


def write_png(attribution: Attribution, path: Path) -> None:
    """Draws the attribution into a `.png` file.

    Args:
        attribution: What to draw.
        path: File to write; an existing file is replaced.

    Raises:
        PlotError: It cannot be drawn.
    """
    plot(attribution).savefig(path, format="png", dpi=150)
