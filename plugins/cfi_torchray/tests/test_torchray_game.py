"""The pointing game: hits, tolerance, ties, baselines, and every form of explanation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cfi_core as cfi
from cfi_torchray import Pointing, pointing_game
from cfi_torchray.game import _dilate, _stretch

SIZE = (20, 30)


def peak(row: int, column: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    values = np.zeros(size)
    values[row, column] = 1
    return values


def square(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("tolerance", "hits"), [(0, [1, 0, 0, 0]), (2, [1, 1, 0, 0]), (3, [1, 1, 1, 0]), (99, [1] * 4)]
)
def test_a_point_hits_where_some_pixel_of_the_object_is_near_enough(tolerance: int, hits: list[int]) -> None:
    # Distances to the box of rows 5 to 8 and columns 10 to 13: 0; 2; 2 and 2 (2.8); 7.
    points = [(5, 10), (10, 12), (10, 15), (15, 10)]
    maps = np.stack([peak(*point) for point in points])
    game = pointing_game(maps, [[(5, 10, 9, 14)]] * 4, [0, 1, 2, 3], size=SIZE, tolerance=tolerance)
    assert game.rates[0].tolist() == hits
    assert game.points[0].tolist() == [list(point) for point in points]


def test_rates_are_of_classes_and_their_mean_weights_classes_alike() -> None:
    regions = [square(0, 0, 5, 5)] * 4
    maps = np.stack([peak(1, 1), peak(1, 1), peak(15, 15), peak(15, 15)])
    game = pointing_game({"ours": maps}, regions, ["cat", "cat", "cat", "dog"], tolerance=0)
    assert game.classes == ("cat", "dog") and game.trials.tolist() == [3, 1]
    np.testing.assert_allclose(game.rates, [[2 / 3, 0]])
    assert game.mean["ours"] == pytest.approx(1 / 3)
    assert "ours" in str(game) and "chance" in str(game)


def test_chance_and_centre_stand_beside() -> None:
    regions = [square(0, 0, 10, 30), square(8, 13, 12, 17)]
    game = pointing_game(np.zeros((2, *SIZE)), regions, [0, 1], tolerance=0)
    np.testing.assert_allclose(game.chance, [0.5, 16 / 600])
    np.testing.assert_allclose(game.centre, [0.5, 1])  # of twenty rows, the two in the middle
    # A map that says nothing hits as often as chance does.
    np.testing.assert_allclose(game.rates[0], game.chance)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5, 40])
def test_the_reach_of_a_mask_is_its_euclidean_neighbourhood(tolerance: int) -> None:
    mask = np.random.default_rng(0).random((23, 31)) > 0.98
    rows, columns = np.nonzero(mask)
    at = np.mgrid[:23, :31]
    distances = (at[0][..., None] - rows) ** 2 + (at[1][..., None] - columns) ** 2
    np.testing.assert_array_equal(_dilate(mask, tolerance), distances.min(axis=-1) <= tolerance**2)


@pytest.mark.parametrize("size", [(20, 11), (3, 4), (5, 7), (13, 7)])
def test_maps_are_stretched_as_torch_does_it(size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random((5, 7))
    expected = F.interpolate(torch.tensor(values)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(_stretch(values, size), expected, atol=1e-12)


class Corner(nn.Module):
    """Class 0 is the light in the upper left corner, class 1 that in the lower right one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        nn.init.constant_(self.body[0].weight, 0.1)
        nn.init.zeros_(self.body[0].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return torch.stack([x[:, :, :5, :5].sum((1, 2, 3)), x[:, :, -5:, -5:].sum((1, 2, 3))], dim=1)


def test_methods_of_any_toolset_play() -> None:
    model, inputs = Corner().eval(), np.random.default_rng(2).random((6, 3, *SIZE)).astype(np.float32)
    labels = [0, 1, 0, 1, 0, 1]
    regions = [square(0, 0, 5, 5) if label == 0 else square(15, 25, 20, 30) for label in labels]
    made = cfi.attribute(model, "saliency", "torchray", inputs=inputs, target=labels)

    def function(batch: np.ndarray, targets: list[int]) -> cfi.Attribution:
        return cfi.attribute(model, "linear_approx", "torchray", inputs=batch, target=targets)  # type: ignore[return-value]

    def random(batch: np.ndarray, targets: list[int]) -> np.ndarray:
        return np.random.default_rng(0).random((len(batch), *SIZE))

    explanations: dict[str, Any] = {
        "saliency": {"method_key": "saliency", "toolset": "torchray"},
        "grad_cam": {"method_key": "grad_cam", "toolset": "torchray", "layer": "body.1"},
        "made before": made,
        "a function": function,
        "channels in an array": np.asarray(made.values),
        "random": random,
        "other inputs": {"method_key": "saliency", "toolset": "torchray", "inputs": inputs[::-1], "target": 0},
    }
    game = pointing_game(explanations, regions, labels, model=model, inputs=inputs, tolerance=1, batch_size=4)
    assert isinstance(game, Pointing)
    for name in ("saliency", "made before", "a function", "channels in an array"):
        assert game.mean[name] == 1, name
    assert game.mean["random"] < 0.5
    assert game.rates[game.explanations.index("other inputs")].tolist() == [1, 0]
    with pytest.raises(AttributeError):
        game.tolerance = 3  # type: ignore[misc]


def test_one_key_and_a_list_of_keys_play() -> None:
    model, inputs = Corner().eval(), np.random.default_rng(2).random((2, 3, *SIZE)).astype(np.float32)
    regions = [square(0, 0, 5, 5), square(15, 25, 20, 30)]
    for explanations in ("linear_approx", ["linear_approx"], {"method_key": "linear_approx"}):
        game = pointing_game(explanations, regions, [0, 1], model=model, inputs=inputs, tolerance=0)
        assert game.mean["linear_approx"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regions": [square(0, 0, 5, 5)]}, "labels for 1 regions"),
        ({"regions": [np.zeros(SIZE, bool)] * 2}, "is empty"),
        ({"regions": [[(0, 0, 5, 5)]] * 2, "size": None}, "pass size"),
        ({"regions": [[(0, 0, 5, 50)]] * 2}, "none inside"),
        ({"explanations": np.zeros((3, *SIZE))}, "3 maps for 2 labels"),
        ({"explanations": np.full((2, *SIZE), np.nan)}, "NaN"),
        ({"explanations": np.zeros((2, 5))}, "needs maps"),
        ({"explanations": "saliency"}, "pass inputs"),
        ({"explanations": [np.zeros((2, *SIZE))]}, "by name"),
        ({"tolerance": -1}, "0 or more"),
        ({"labels": []}, "0 labels"),
    ],
)
def test_what_cannot_be_played_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {
        "explanations": np.zeros((2, *SIZE)),
        "regions": [square(0, 0, 5, 5)] * 2,
        "labels": [0, 1],
        "size": SIZE,
        **arguments,
    }
    with pytest.raises(cfi.ArgumentError, match=message):
        pointing_game(given.pop("explanations"), given.pop("regions"), given.pop("labels"), **given)
