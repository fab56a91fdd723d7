"""Colour scales: which colours stand for which values, and up to where."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from cfi_matplotlib.style import Style

NOT_FINITE = "#ff00ff"
_BLUE, _RED = ("#2166ac", "#4393c3", "#92c5de"), ("#f4a582", "#d6604d", "#b2182b")  # as in RdBu, without its dark ends
_SIGNED = LinearSegmentedColormap.from_list("signed", (*_BLUE, "#f7f7f7", *_RED))
_NEGATIVE = LinearSegmentedColormap.from_list("negative", (*_BLUE, "#f7f7f7"))
_DEEP = "#0f5fc0", "#cc0f1c"
_STRONG = matplotlib.colormaps["inferno"]
# Over a picture opacity tells how strong a value is: white and black would hide it.
_SIGNED_OVER = LinearSegmentedColormap.from_list(
    "signed over a picture", [(0, _DEEP[0]), (0.5, "#5aa7dd"), (0.5, "#f08a6a"), (1, _DEEP[1])]
)
_NEGATIVE_OVER = LinearSegmentedColormap.from_list("negative over a picture", (_DEEP[0], "#5aa7dd"))
_STRONG_OVER = LinearSegmentedColormap.from_list("inferno without black", _STRONG(np.linspace(0.2, 0.97, 256)))


@dataclass(frozen=True, eq=False)
class Scale:
    """Colours of values.

    Attributes:
        colors: The colour map.
        low: The value of its first colour.
        high: The value of its last one.
        below: Whether there are values below `low`; they have its colour.
        above: Whether there are values above `high`.
    """

    colors: Colormap
    low: float
    high: float
    below: bool
    above: bool

    @property
    def norm(self) -> Normalize:
        """From values to places on the colour map."""
        return Normalize(self.low, self.high, clip=True)

    def color(self, values: np.ndarray) -> np.ndarray:
        """Red, green and blue, each between 0 and 1, of any number of values; pink where they are not finite."""
        return np.asarray(self.colors(self.norm(np.ma.masked_invalid(values))))[..., :3]

    def strength(self, values: np.ndarray) -> np.ndarray:
        """How strong values are, from 0 to 1 at the end of the scale; 1 where they are not finite."""
        share = np.abs(values) / max(abs(self.low), abs(self.high))
        return np.nan_to_num(share, nan=1.0, posinf=1.0).clip(0, 1)


def scale_of(values: np.ndarray, sign: str, style: Style, *, signed: bool, over: bool = False) -> Scale:
    """The scale of values that a sign has left over.

    Values with both signs have a diverging map about zero, others one that begins at zero. Negative ones keep the
    colours that they have beside positive ones.

    Args:
        values: Of all panels that share it, in any shape.
        sign: What `of_sign` left over.
        style: The options.
        signed: Whether the scale has both signs; the values alone do not tell where several scales are to be alike.
        over: Whether the colours lie over a picture.
    """
    finite = values[np.isfinite(values)]
    limit = threshold(np.abs(finite), 100 - style.outlier_perc) or 1.0
    low, high = (-limit, 0.0) if sign == "negative" else (-limit if signed else 0.0, limit)
    given = matplotlib.colormaps[style.cmap] if isinstance(style.cmap, str) else style.cmap
    if given is not None:
        colors = given.reversed() if sign == "negative" else given
    elif sign == "negative":
        colors = _NEGATIVE_OVER if over else _NEGATIVE
    elif signed:
        colors = _SIGNED_OVER if over else _SIGNED
    else:
        colors = _STRONG_OVER if over else _STRONG
    below, above = bool((finite < low).any()), bool((finite > high).any())
    return Scale(colors.with_extremes(bad=NOT_FINITE), low, high, below, above)


def of_sign(values: np.ndarray, sign: str) -> np.ndarray:
    """The values, those of the other sign as zero, or without their sign."""
    if sign == "absolute_value":
        return np.abs(values)
    return {"positive": np.maximum, "negative": np.minimum}[sign](values, 0.0) if sign != "all" else values


def threshold(strengths: np.ndarray, percent: float) -> float:
    """The smallest strength up to which the strengths sum up to that part of their sum, as in Captum's pictures.

    So the strongest values are outliers by their share of the whole, not by their number: one bright value among a
    few is none. 0 where all are zero, or there are none.
    """
    ordered = np.sort(strengths, axis=None).astype(np.float64)
    if not ordered.size or not ordered[-1] > 0:
        return 0.0
    sums = np.cumsum(ordered / ordered[-1])
    place = min(int(np.searchsorted(sums, sums[-1] * percent / 100)), ordered.size - 1)
    # Where rounding or zeros alone lie below.
    return float(ordered[place] or ordered[-1])


def unit_range(image: np.ndarray) -> np.ndarray:
    """The values stretched to 0…1, whatever range the model takes; a constant image is mid-grey."""
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        return np.full(image.shape, 0.5)
    return np.nan_to_num((image - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
