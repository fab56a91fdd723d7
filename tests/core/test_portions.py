"""A model of a fixed number of samples, run on any other number of them: right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cfi_core.errors import InputError
from cfi_core.framework.portions import Portions, one_size

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Exported:
    """A function that takes so many samples and no others, and remembers what it was given."""

    def __init__(self, function: Callable[..., Any], size: int) -> None:
        self.function, self.size = function, size
        self.given: list[dict[str, np.ndarray]] = []

    def __call__(self, feeds: dict[str, np.ndarray]) -> list[Any]:
        assert {len(array) for array in feeds.values()} == {self.size}
        self.given.append(dict(feeds))
        outputs = self.function(**feeds)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]


def in_portions(function: Callable[..., Any], size: int = 2, *, leave_out: bool = False) -> tuple[Exported, Portions]:
    model = Exported(function, size)
    return model, Portions(model, size, leave_out=leave_out)


# what can be computed apart


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_samples_gives_what_each_of_them_gives(count: int, size: int) -> None:
    model, run = in_portions(lambda x: (x**2, x.sum(1)), size)
    square, total = run({"x": X[:count]})
    np.testing.assert_array_equal(square, X[:count] ** 2)
    np.testing.assert_array_equal(total, X[:count].sum(1))
    assert all(feeds["x"].dtype == np.float32 for feeds in model.given)


def test_the_last_portion_is_filled_up_with_its_last_sample() -> None:
    model, run = in_portions(lambda x: x, 2)
    run({"x": X[:3]})
    np.testing.assert_array_equal(model.given[-2]["x"], X[:2])
    np.testing.assert_array_equal(model.given[-1]["x"], X[[2, 2]])


def test_several_inputs_are_cut_at_the_same_samples() -> None:
    factors = np.array([[2.0], [-1.0], [0.5], [3.0], [7.0]])
    _, run = in_portions(lambda x, y: x * y, 2)
    np.testing.assert_allclose(run({"x": X, "y": factors})[0], X * factors, rtol=1e-6)


def test_integers_words_and_undefined_values_are_compared_too() -> None:
    def look_up(token: np.ndarray) -> tuple[np.ndarray, ...]:
        undefined = np.where(token[:, :1] > 3, np.nan, token[:, :1].astype(float))
        return token * 10, np.array(["odd" if row.sum() % 2 else "even" for row in token]), undefined

    tokens = np.array([[1, 2], [3, 5], [4, 4]])
    _, run = in_portions(look_up, 2)
    tens, words, undefined = run({"token": tokens})
    np.testing.assert_array_equal(tens, tokens * 10)
    assert words.tolist() == ["odd", "even", "even"]
    np.testing.assert_array_equal(undefined, [[1], [3], [np.nan]])


def test_that_samples_are_apart_is_found_out_once() -> None:
    model, run = in_portions(lambda x: -x, 2)
    run({"x": X})
    first = len(model.given)
    run({"x": X})
    assert (first, len(model.given) - first) == (5 + 3, 3)


def test_of_samples_that_are_all_alike_nothing_is_concluded() -> None:
    """Whole numbers that are all equal show no influence of one sample on another, so the next call looks again."""

    def without_mean(token: np.ndarray) -> np.ndarray:
        return token - token.mean(0, keepdims=True)

    _, run = in_portions(without_mean, 2)
    alike = np.full((3, 9), 7)
    np.testing.assert_array_equal(run({"token": alike})[0], np.zeros((3, 9)))
    with pytest.raises(InputError, match="one sample changes the result of another"):
        run({"token": np.arange(27).reshape(3, 9)})


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        (2, np.array([[1, 2], [3, 4], [5, 6]])),
        (2, np.array([7, 7, 7, 8, 7])),
        (4, np.array([3, 5, 9, 1, 4])),
        (4, np.array([[0, 0, 0], [1, 2, 3], [4, 4, 4], [2, 2, 2], [9, 9, 9]])),
        (3, np.array([[True], [False], [True], [True]])),
    ],
)
def test_whole_numbers_that_touch_each_other_are_refused(size: int, tokens: np.ndarray) -> None:
    _, run = in_portions(lambda token: token - token.mean(0, keepdims=True), size)
    with pytest.raises(InputError, match="one sample changes the result of another"):
        run({"token": tokens})


# what needs no portions


def test_a_model_of_any_number_of_samples_is_run_once_as_it_is() -> None:
    given: list[Any] = []
    feeds = {"x": X}
    result = Portions(lambda feeds: given.append(feeds) or ["outputs"], None)(feeds)  # type: ignore[func-returns-value]
    assert result == ["outputs"] and len(given) == 1 and given[0] is feeds


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": X[:2]},
        {"x": X[:2], "y": X},  # of which the model itself tells what it thinks of
        {"x": X[:3], "y": X},
        {"x": X, "scale": np.float32(3)},
        {"x": X, "empty": X[:0]},
    ],
    ids=["its own size", "one of its own size", "of two sizes", "a number", "an empty one"],
)
def test_inputs_that_are_no_portions_reach_the_model_as_they_are(feeds: dict[str, np.ndarray]) -> None:
    given: list[Any] = []
    Portions(lambda feeds: given.append(feeds) or [], 2)(feeds)  # type: ignore[func-returns-value]
    assert len(given) == 1 and given[0] is feeds


# what cannot be computed apart


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0, keepdims=True),
        lambda x: x * np.arange(1, len(x) + 1)[:, None],
        lambda x: x - x[:1],
        lambda x: np.cumsum(x, axis=0),
        lambda x: x[::-1],
        lambda x: x + np.roll(x, 1, axis=0),
    ],
    ids=["mean", "position", "first", "sum so far", "order", "neighbour"],
)
def test_samples_that_touch_each_other_are_refused(function: Callable[..., Any]) -> None:
    _, run = in_portions(function, 3)
    with pytest.raises(InputError, match=r"exported for 3 samples .* and 5 cannot .*one sample changes.*dynamic"):
        run({"x": X})


def test_outputs_without_samples_are_refused() -> None:
    _, run = in_portions(lambda x: x.sum(), 2)
    with pytest.raises(InputError, match="its outputs have no sample axis"):
        run({"x": X})


def test_outputs_that_cannot_be_had_may_be_left_out() -> None:
    _, run = in_portions(lambda x: (x + 1, x.sum(), x - x.mean(0), [x]), 2, leave_out=True)
    result = run({"x": X})
    np.testing.assert_array_equal(result[0], X + 1)
    assert result[1:] == [None, None, None]
    again = run({"x": X})  # which must not be taken for apart by now
    assert again[1:] == [None, None, None]


# the size of a model


@pytest.mark.parametrize(
    ("sizes", "one"),
    [([2, 2], 2), ([3], 3), ([2, 3], None), ([None], None), ([2, None], None), ([0], None), ([], None)],
)
def test_the_one_size_of_all_inputs(sizes: list[int | None], one: int | None) -> None:
    assert one_size(sizes) == one
