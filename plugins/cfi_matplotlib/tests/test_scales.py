"""Where colour scales end."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_matplotlib.scales import of_sign, scale_of, threshold
from cfi_matplotlib.style import Style


def by_hand(strengths, percent):
    """Captum's rule, value by value: the first whose running sum reaches that part of the whole."""
    ordered, running = sorted(strengths), 0.0
    for value in ordered:
        running += value
        if running >= sum(ordered) * percent / 100 * (1 - 1e-12):
            return value
    raise AssertionError


@pytest.mark.parametrize("percent", [50, 90, 98, 99.9, 100])
def test_the_strongest_are_cut_by_their_share_of_the_sum(percent):
    strengths = np.random.default_rng(1).gamma(0.5, size=400)
    assert threshold(strengths, percent) == pytest.approx(by_hand(strengths, percent))


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [([1.0], 1.0), ([0.0, 0.0, 3.0], 3.0), ([2.0] * 9, 2.0), ([0.0, 0.0], 0.0), ([], 0.0), ([1e-300, 3e-300], 3e-300)],
)
def test_thresholds_of_few_and_of_small_values(strengths, expected):
    assert threshold(np.array(strengths), 98) == expected


def test_zero_percent_cuts_nothing():
    values = np.random.default_rng(2).normal(size=(30, 40))
    scale = scale_of(values, "all", Style(outlier_perc=0), signed=True)
    assert (scale.high, scale.below, scale.above) == (np.abs(values).max(), False, False)


def test_the_ends_and_what_lies_beyond_them():
    values = np.array([*[1.0] * 98, 2.0, -1.0])
    scale = scale_of(values, "all", Style(outlier_perc=2), signed=True)
    assert (scale.low, scale.high, scale.below, scale.above) == (-1.0, 1.0, False, True)
    scale = scale_of(of_sign(values, "negative"), "negative", Style(), signed=False)
    assert (scale.low, scale.high) == (-1.0, 0.0)
    scale = scale_of(np.zeros(4), "all", Style(), signed=False)
    assert (scale.low, scale.high) == (0.0, 1.0)


def test_the_middle_of_a_signed_scale_is_pale_and_a_positive_one_starts_in_the_dark():
    signed = scale_of(np.array([-1.0, 1.0]), "all", Style(), signed=True).color(np.array([0.0]))[0]
    assert np.ptp(signed) < 0.02
    assert signed.min() > 0.9
    positive = scale_of(np.array([0.0, 1.0]), "all", Style(), signed=False).color(np.array([0.0]))[0]
    assert positive.sum() < 0.1
