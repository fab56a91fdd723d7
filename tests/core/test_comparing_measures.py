"""Measures of two attributions against slow forms of their own, and what is done to axes that differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.comparing.measures import Comparable, make_comparable, measure, ranks

RANDOM = np.random.default_rng(0)
ZEROS, ONES = np.zeros(10), np.ones(10)
SOME = RANDOM.normal(size=10)


def attribution(values: np.ndarray, *dims: str, layer: str | None = None) -> Attribution:
    return Attribution(values=values, dims=("sample", *dims), method_key="m", toolset="t", layer=layer)


def comparable(*both: Attribution, **arguments: Any) -> Comparable:
    found = make_comparable(*both, **arguments)
    assert isinstance(found, Comparable)
    return found


def slow_rank(values: np.ndarray) -> list[float]:
    return [sum(other < value for other in values) + (sum(values == value) - 1) / 2 for value in values]


@pytest.mark.parametrize("values", [SOME, RANDOM.integers(0, 3, 20).astype(float), ONES, np.array([2.0])])
def test_equal_values_share_their_mean_rank(values: np.ndarray) -> None:
    np.testing.assert_allclose(ranks(values), slow_rank(values))


def test_rank_correlation_is_that_of_ranks() -> None:
    one, other = RANDOM.normal(size=(2, 50)).round(1)
    expected = np.corrcoef(slow_rank(one), slow_rank(other))[0, 1]
    assert measure(one, other).rank == pytest.approx(expected)


def test_difference_cosine_and_overlap() -> None:
    found = measure(np.array([3.0, 4.0, 0, 0]), np.array([3.0, 0, 0, 4.0]), top=0.5)
    assert found.difference == pytest.approx(np.sqrt(32) / 5)
    assert found.cosine == pytest.approx(9 / 25)
    assert found.overlap == 0.5


@pytest.mark.parametrize(
    ("one", "other", "difference", "cosine", "rank", "overlap"),
    [
        (ZEROS, ZEROS, 0, 1, 1, 1),
        (ZEROS, SOME, 1, 0, 0, 0.1),  # all tie for the one place: chance
        (ONES, ONES, 0, 1, 1, 1),
        (ONES, 3 * ONES, 2 / 3, 1, 1, 1),
        (SOME, -SOME, 2, -1, -1, 1),
        (1e300 * SOME, 1e300 * SOME, 0, 1, 1, 1),
        (1e-300 * SOME, 1e-300 * SOME, 0, 1, 1, 1),
    ],
)
def test_values_where_formulas_fail(
    one: np.ndarray, other: np.ndarray, difference: float, cosine: float, rank: float, overlap: float
) -> None:
    found = measure(one, other)
    expected = (difference, cosine, rank, overlap)
    assert (found.difference, found.cosine, found.rank, found.overlap) == pytest.approx(expected)


def test_ties_for_the_last_place_share_it() -> None:
    one, other = np.array([5.0, 2, 2, 1]), np.array([5.0, 2, 0, 0])
    assert measure(one, other, top=0.5).overlap == pytest.approx((1 + 0.5) / 2)


def test_axes_are_matched_by_name() -> None:
    values = RANDOM.normal(size=(2, 3, 4, 5))
    first = attribution(values, "channel", "height", "width")
    last = attribution(np.moveaxis(values, 1, -1), "height", "width", "channel")
    found = comparable(first, last)
    assert found.difference == 0 and found.done == ()


def test_channels_of_one_alone_are_summed_over_and_told() -> None:
    values = RANDOM.normal(size=(2, 3, 4, 5))
    found = comparable(attribution(values, "channel", "height", "width"), attribution(values.sum(1), "height", "width"))
    assert found.difference < 1e-12 and found.done == ("summed over channel",)


def test_channels_that_are_all_equal_are_taken_once() -> None:
    """As occlusion gives them whose windows hold all channels."""
    values = RANDOM.normal(size=(2, 4, 5))
    repeated = np.repeat(values[:, None], 3, axis=1)
    found = comparable(attribution(repeated, "channel", "height", "width"), attribution(values, "height", "width"))
    assert found.difference == 0 and "taken once" in found.done[0]


def test_a_coarse_map_is_stretched_linearly_and_told() -> None:
    coarse = attribution(np.array([[0.0, 1.0]]), "position")
    fine = attribution(np.array([[0.0, 0.25, 0.75, 1.0]]), "position")
    found = comparable(coarse, fine)
    np.testing.assert_allclose(found.first[0], fine.values)
    assert found.done == ("position stretched from 2 to 4, linearly",)


def test_channels_of_two_layers_are_not_the_same_ones() -> None:
    values = RANDOM.normal(size=(2, 3, 4, 5))
    one, other = (attribution(values, "channel", "height", "width", layer=name) for name in ("a", "b"))
    assert comparable(one, other).done == ("summed over channel",)
    assert comparable(one, other, same_model=False).done == ()  # what corresponds is called otherwise there


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (attribution(np.ones((2, 3)), "feature"), attribution(np.ones((2, 4)), "feature")),
        (attribution(np.ones((2, 3)), "feature"), attribution(np.ones((2, 3)), "unit", layer="a")),
        (attribution(np.ones((2, 3, 3)), "height", "width"), attribution(np.ones((3, 3, 3)), "height", "width")),
        (attribution(np.ones((2, 3)), "feature"), attribution(np.ones((2, 3, 4)), "height", "width")),
    ],
)
def test_what_does_not_go_together_is_said(one: Attribution, other: Attribution) -> None:
    assert "do not go with" in str(make_comparable(one, other))


def test_several_arrays_are_one_row() -> None:
    parts = (np.array([[1.0, 2.0]]), np.array([[3.0]]))
    dims = (("sample", "feature"), ("sample", "feature"))
    one = Attribution(values=parts, dims=dims, method_key="m", toolset="t")
    other = Attribution(values=(parts[0], -parts[1]), dims=dims, method_key="m", toolset="t")
    assert comparable(one, other).difference == pytest.approx(6 / np.sqrt(14))
    assert "1 arrays of values stand against 2" in str(make_comparable(attribution(parts[0], "feature"), one))


def test_no_sample_hides_behind_another() -> None:
    one, other = np.array([[1e6, 0], [1e-3, 0]]), np.array([[1e6, 0], [0, 1e-3]])
    found = comparable(attribution(one, "feature"), attribution(other, "feature"))
    assert found.difference == pytest.approx(np.sqrt(2)) and found.measure().difference < 1e-8
    assert [each.difference for each in found.measure_each()] == pytest.approx([0, np.sqrt(2)])
