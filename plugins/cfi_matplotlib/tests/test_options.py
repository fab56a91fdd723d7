"""Options of kinds that nobody promised to take: they are refused by name, and none is rounded to what it is near."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot

DIMS = {
    "images": ("sample", "height", "width"),
    "series": ("sample", "channel", "position"),
    "tables": ("sample", "feature"),
    "volumes": ("sample", "channel", "depth", "height", "width"),
    "tokens": ("sample", "token"),
}


def made(kind):
    shape = (2, 4, 5, 6, 7)[: len(DIMS[kind])]
    return Attribution(np.ones(shape), DIMS[kind], "saliency", "press", feature_names=tuple("abcdefg"[: shape[-1]]))


@pytest.mark.parametrize("samples", [1, "a", [0.7], ["0"], [None], [], [2], [-1]])
@pytest.mark.parametrize("kind", DIMS)
def test_samples_are_positions(kind, samples):
    with pytest.raises(PlotError, match=r"samples=.*must name at least one of the 2 samples"):
        plot(made(kind), samples=samples)


@pytest.mark.parametrize("samples", [(1,), range(1, 2), np.array([1]), [np.int64(1)]])
@pytest.mark.parametrize("kind", DIMS)
def test_positions_may_be_of_numpy(kind, samples):
    plot(made(kind), samples=samples)


@pytest.mark.parametrize("share", ["2", None, float("nan"), 100, -1])
@pytest.mark.parametrize("kind", ["images", "series"])
def test_shares_are_numbers(kind, share):
    with pytest.raises(PlotError, match=r"outlier_perc=.*must be at least 0"):
        plot(made(kind), outlier_perc=share)


def test_opacities_are_numbers():
    with pytest.raises(PlotError, match="alpha_overlay='1'"):
        plot(made("images"), alpha_overlay="1")
