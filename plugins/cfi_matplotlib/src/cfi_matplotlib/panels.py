"""Panels: what is drawn into axes, how large it is, and the colour bar behind it. They know nothing of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Bar:
    """Which colours stand for which values.

    Attributes:
        colors: Values from the lowest to the highest, lightness of the picture from black to white (one where it does
            not matter), and red, green, blue (and opacity).
        low: The lowest value.
        high: The highest one.
        below: Whether lower ones have its colour, too.
        above: Whether higher ones have the colour of the highest.
        label: Stands beside it.
    """

    colors: np.ndarray
    low: float
    high: float
    below: bool
    above: bool
    label: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture or chart.

    Attributes:
        draw: Draws it into axes.
        shape: Height and width, in any unit: how high it is for its width.
        label: Stands above it.
        bar: Stands behind it.
        is_chart: Whether it has numbers on its axes, and is as wide as two pictures.
    """

    draw: Callable[[Axes], None]
    shape: tuple[float, float]
    label: str = ""
    bar: Bar | None = None
    is_chart: bool = False
