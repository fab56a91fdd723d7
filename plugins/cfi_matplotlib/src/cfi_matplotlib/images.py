"""Heat maps and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import SubFigure

from cfi_matplotlib.blocks import IMAGE, Block
from cfi_matplotlib.remarks import annotate
from cfi_matplotlib.scales import scale_of
from cfi_matplotlib.style import Style


def draw_maps(
    cell: SubFigure,
    axes: Sequence[Axes],
    panels: np.ndarray,
    image: np.ndarray | None,
    block: Block,
    style: Style,
) -> None:
    """Heat maps on one colour scale, over the image if there is one."""
    # One kind of colour map for all rows of a figure, so that they can be compared.
    colors, norm, extend = scale_of(panels, style, signed=bool((block.values < 0).any()))
    alpha = style.alpha if image is not None and style.overlay else 1.0
    for axis, panel, label in zip(axes, panels, block.labels, strict=True):
        extent = None
        smooth = False
        if image is not None and style.overlay:
            height, width = image.shape[:2]
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            smooth = panel.shape != (height, width)
            grey = image @ (0.299, 0.587, 0.114)
            if norm.vmin:
                # The middle of a diverging map is white: small dark values must stand out from the image, too.
                grey = 0.35 + 0.65 * grey
            axis.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="nearest")
        axis.imshow(
            np.ma.masked_invalid(panel),
            cmap=colors,
            norm=norm,
            alpha=alpha,
            extent=extent,
            interpolation="bilinear" if smooth else "nearest",
            aspect="equal" if block.axes == IMAGE else "auto",
        )
        axis.set_title(label, fontsize=8, parse_math=False)
        annotate(axis, panel)
        if block.axes == IMAGE:
            axis.set_xticks([])
            axis.set_yticks([])
        else:
            axis.set_ylabel(block.axes[0], fontsize=8)
            axis.set_xlabel(block.axes[1], fontsize=8)
            axis.tick_params(labelsize=7)
    if style.colorbar:
        bar = cell.colorbar(
            ScalarMappable(norm, colors), ax=list(axes), alpha=alpha, extend=extend, shrink=0.9, aspect=18, pad=0.02
        )
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
        bar.set_label(block.scale_label, fontsize=8)


def draw_picture(axis: Axes, image: np.ndarray, label: str) -> None:
    """An image whose values lie between 0 and 1, under its label."""
    axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axis.set_title(label, fontsize=8, parse_math=False)
    axis.set_xticks([])
    axis.set_yticks([])
