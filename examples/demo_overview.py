"""All pictures of the demo in one: the one that README.md shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

WIDTH = 4.5  # inches, of a picture


def write_overview(path: Path, pictures: Sequence[Path], *, columns: int = 4) -> Path:
    """Writes all pictures side by side into one; a row is as high as the highest picture in it.

    Args:
        path: Where to.
        pictures: The files.
        columns: Pictures in a row.
    """
    images = [imread(picture) for picture in pictures]
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(WIDTH * len(image) / len(image[0]) for image in row) for row in rows]
    figure = Figure(figsize=(WIDTH * columns, sum(heights)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image)
        axis.set_anchor("N")
    figure.savefig(path, dpi=150)
    return path
