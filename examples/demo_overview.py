"""All pictures of the demo in one: the one that README.md shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread


def write_overview(path: Path, pictures: Sequence[Path], *, columns: int = 4) -> Path:
    """Writes all pictures side by side into one.

    Args:
        path: Where to.
        pictures: The files.
        columns: Pictures in a row.
    """
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(4.5 * columns, 6.5 * rows), layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.set_axis_off()
    for axis, picture in zip(figure.axes, pictures, strict=False):
        axis.imshow(imread(picture))
    figure.savefig(path, dpi=150)
    return path
