"""How maps over images shall be drawn: the options, checked. Those that Captum has mean what they mean there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import matplotlib
from matplotlib.colors import Colormap

from cfi_core.errors import PlotError

Method = Literal["heat_map", "blended_heat_map", "original_image", "masked_image", "alpha_scaling"]
Sign = Literal["all", "positive", "negative", "absolute_value"]
Interpolation = Literal["nearest", "bilinear"]

METHODS: tuple[str, ...] = get_args(Method)
SIGNS: tuple[str, ...] = get_args(Sign)
WITHOUT_SIGN = ("masked_image", "alpha_scaling")
"""What shows strength only."""


@dataclass(frozen=True)
class View:
    """One way in which a map is drawn.

    Attributes:
        method: One of `METHODS`; None: over the picture where it is finer than the map, else a heat map.
        sign: One of `SIGNS`.
    """

    method: str | None
    sign: str

    @property
    def words(self) -> str:
        """The method in words."""
        return (self.method or "").replace("_", " ")

    @property
    def label(self) -> str:
        """Method and sign in words."""
        return ", ".join(filter(None, (self.words, self.sign_in_words.split(" ")[0])))

    @property
    def sign_in_words(self) -> str:
        """Empty for all values."""
        return {"all": "", "absolute_value": "absolute values"}.get(self.sign, f"{self.sign} values only")


@dataclass(frozen=True)
class Style:
    """The options that matter once it is settled what is drawn; each is described at `plot`.

    Raises:
        PlotError: One of them does not fit.
    """

    views: tuple[View, ...] = (View(None, "all"),)
    outlier_perc: float = 2.0
    cmap: str | Colormap | None = None
    alpha_overlay: float = 0.8
    interpolation: str | None = None
    show_colorbar: bool = True
    show_input: bool = True

    def __post_init__(self) -> None:
        if not (isinstance(self.outlier_perc, Real) and 0 <= self.outlier_perc < 100):
            raise PlotError(f"outlier_perc={self.outlier_perc!r} must be at least 0 and below 100.")
        if not (isinstance(self.alpha_overlay, Real) and 0 < self.alpha_overlay <= 1):
            raise PlotError(f"alpha_overlay={self.alpha_overlay!r} must be above 0 and at most 1.")
        if self.interpolation not in (None, *get_args(Interpolation)):
            raise PlotError(f'interpolation={self.interpolation!r} must be "nearest" or "bilinear".')
        if isinstance(self.cmap, str) and self.cmap not in matplotlib.colormaps:
            raise PlotError(
                f"cmap={self.cmap!r} is not a matplotlib colour map; list(matplotlib.colormaps) names them."
            )
        if not isinstance(self.cmap, str | Colormap | None):
            raise PlotError(f"cmap={self.cmap!r} must be the name of a matplotlib colour map, or one.")


def views_of(method: str | Sequence[str] | None, sign: str | Sequence[str] | None) -> tuple[View, ...]:
    """Each method with its sign.

    Raises:
        PlotError: A method or a sign is none of those that there are, or they do not go together.
    """
    methods: list[str | None] = [method] if isinstance(method, str | None) else list(method)
    signs: list[str | None] = [sign] * len(methods) if isinstance(sign, str | None) else list(sign)
    if len(methods) == 1:
        methods *= len(signs)
    if not methods or len(signs) != len(methods):
        raise PlotError(f"method={method!r} and sign={sign!r}: pass as many signs as methods, or one for all.")
    return tuple(_view(*pair) for pair in zip(methods, signs, strict=True))


def _view(method: str | None, sign: str | None) -> View:
    if method not in (None, *METHODS):
        raise PlotError(f"method={method!r} is none of {', '.join(map(repr, METHODS))}.")
    if sign not in (None, *SIGNS):
        raise PlotError(f"sign={sign!r} is none of {', '.join(map(repr, SIGNS))}.")
    if method in WITHOUT_SIGN and sign == "all":
        raise PlotError(
            f"sign='all': method={method!r} shows how strong values are, not their sign. "
            f"Pass sign='positive', 'negative' or 'absolute_value'."
        )
    return View(method, sign or ("absolute_value" if method in WITHOUT_SIGN else "all"))
