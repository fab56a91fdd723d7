"""Colour scales: which colours stand for which values."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, Normalize

from cfi_matplotlib.style import Style

_DIVERGING, _SEQUENTIAL, _NOT_FINITE = "RdBu_r", "inferno", "#ff00ff"


def scale_of(panels: np.ndarray, style: Style, *, signed: bool) -> tuple[Colormap, Normalize, str]:
    """Colour map, range and pointed ends of the colour scale of some panels."""
    finite = panels[np.isfinite(panels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    limit = 0.0
    if finite.size:
        # "higher" takes a value that occurs, so that the few values of a coarse map are not clipped.
        limit = float(np.percentile(np.abs(finite), style.clip_percentile, method="higher"))
    limit = limit or max(abs(low), abs(high)) or 1.0
    # Negative values are blue also where all are negative: a bright patch always speaks for the target.
    colors = matplotlib.colormaps[style.colormap or (_DIVERGING if signed else _SEQUENTIAL)]
    norm = Normalize(-limit if signed else 0.0, limit)
    below, above = low < -limit, high > limit
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    return colors.with_extremes(bad=_NOT_FINITE), norm, extend


def unit_range(image: np.ndarray) -> np.ndarray:
    """The values stretched to 0…1, whatever range the model takes; a constant image is mid-grey."""
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        return np.full(image.shape, 0.5)
    return np.nan_to_num((image - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
