"""Panels on a grid: how many in a line, and how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cfi_matplotlib.blocks import Block
from cfi_matplotlib.style import Style

_MAX_COLUMNS = 6


@dataclass(frozen=True)
class Layout:
    """Panels of one row of a block on a grid; sizes in inches."""

    lines: int
    columns: int
    width: float
    height: float

    @staticmethod
    def of(block: Block, style: Style, panel_size: float) -> Layout:
        """The grid for the panels, and for the input if it is shown."""
        if block.form in ("lines", "bars"):
            return Layout(1, 1, 2.2 * panel_size, panel_size + 0.3)
        image = block.images[0]
        shown = len(block.labels) + (image is not None and style.show_input)
        columns = min(shown, _MAX_COLUMNS)
        lines = math.ceil(shown / columns)
        height, width = block.values.shape[2:4] if image is None else image.shape[:2]
        panel_height = panel_size * min(max(height / width, 0.4), 2.5)
        has_scale = block.form == "map" and style.colorbar
        return Layout(lines, columns, columns * panel_size + 0.8 * has_scale, lines * (panel_height + 0.2) + 0.3)
