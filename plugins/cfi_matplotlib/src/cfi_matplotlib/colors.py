"""Colours of what is no image: on white paper, where zero is white and the sign is seen."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap

from cfi_core.errors import PlotError
from cfi_matplotlib.scales import NOT_FINITE, threshold

POSITIVE, NEGATIVE, OTHERS = "#b2182b", "#2166ac", "0.6"
_PALE = "#f7f7f7"


def colormap_of(name: str | Colormap | None, *, signed: bool, on_white: bool = True) -> Colormap:
    """The colour map (of that name), or one of zero in white; on lines, where white is not seen, in grey.

    Raises:
        PlotError: matplotlib has no such colour map.
    """
    if isinstance(name, Colormap):
        return name.with_extremes(bad=NOT_FINITE)
    if name is not None and name not in matplotlib.colormaps:
        raise PlotError(f"cmap={name!r} is not a matplotlib colour map; list(matplotlib.colormaps) names them.")
    if name is not None:
        return matplotlib.colormaps[name].with_extremes(bad=NOT_FINITE)
    zero = _PALE if on_white else "#c4c4c4"
    # Paler than images, so that what stands in front can be read.
    ends = ("#4393c3", "#92c5de", zero, "#f4a582", "#d6604d") if on_white else (NEGATIVE, zero, POSITIVE)
    shown = ends if signed else ends[len(ends) // 2 :]
    return LinearSegmentedColormap.from_list("values", shown).with_extremes(bad=NOT_FINITE)


def limit_of(values: np.ndarray, outlier_perc: float) -> tuple[float, str]:
    """The largest size that the scale tells apart, and at which ends it is pointed."""
    finite = values[np.isfinite(values)]
    limit = threshold(np.abs(finite), 100 - outlier_perc) or 1.0
    below, above = bool((finite < -limit).any()), bool((finite > limit).any())
    return limit, "both" if below and above else "min" if below else "max" if above else "neither"
