"""What the reader of a panel must not overlook."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes

_WARNING = "#b00020"


def warning_of(values: np.ndarray) -> str:
    """That some values are not finite, or that all are zero; empty where nothing is to be said."""
    broken = int(values.size - np.isfinite(values).sum())
    if broken:
        return f"{broken} of {values.size} values are not finite"
    return "" if values.any() else "all values are zero"


def annotate(axis: Axes, values: np.ndarray) -> None:
    """Writes into the panel what must not be overlooked."""
    write_into(axis, warning_of(values))


def write_into(axis: Axes, warning: str) -> None:
    """Writes a warning to the foot of a panel."""
    if warning:
        axis.text(
            0.5,
            0.03,
            textwrap.fill(warning, 24),
            transform=axis.transAxes,
            ha="center",
            va="bottom",
            fontsize=7,
            color=_WARNING,
            bbox={"facecolor": "white", "edgecolor": _WARNING, "alpha": 0.9, "pad": 2},
        )
