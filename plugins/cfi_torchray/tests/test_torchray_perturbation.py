"""RISE against its closed form and an independent implementation; extremal perturbations on a planted square."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchray_models import CLASSES, Plain, images, seeded

import cfi_core as cfi


class Linear(nn.Module):
    """Scores are weighted sums of the pixels."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, 3, height, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def run(model: nn.Module, key: str = "rise", **own: Any) -> cfi.Attribution:
    inputs, target = own.pop("inputs", images()), own.pop("target", [1, 3])
    seed, defaults = own.pop("seed", 7), own.pop("defaults", "raw")
    return cfi.attribute(
        model, key, "torchray", inputs=inputs, target=target, seed=seed, defaults=defaults, exec_args=own
    )


def test_with_masks_of_ones_own_it_is_the_average_that_the_paper_defines() -> None:
    masks = np.random.default_rng(3).random((50, 1, 10, 12)).astype(np.float32)
    model = seeded(Plain)
    found = run(model, filter_masks=masks, p=0.4, batch_size=7)
    expected = np.zeros((2, 10, 12))
    with torch.no_grad():
        for sample, target in enumerate([1, 3]):
            for mask in masks:
                score = float(model(torch.tensor(images()[sample : sample + 1] * mask))[0, target])
                expected[sample] += score * mask[0] / (0.4 * len(masks))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)


def test_on_a_linear_model_it_is_the_covariance_of_the_masks_times_the_contributions() -> None:
    """With independent masks of single pixels, E[f(x m) m] / p = p f(x) + (1 - p) contribution, in closed form."""
    pixels = np.random.default_rng(4).random((40000, 1, 3, 4)) < 0.5
    model, x = seeded(Linear, 3, 4), images(2, (3, 3, 4))
    found = run(model, inputs=x, filter_masks=pixels.astype(np.float32), p=0.5, batch_size=1000)
    contributions = (x[:, None] * model.weight.detach().numpy()).sum(axis=2)[[0, 1], [1, 3]]
    expected = 0.5 * contributions.sum(axis=(1, 2), keepdims=True) + 0.5 * contributions
    np.testing.assert_allclose(found.values, expected, atol=0.08)
    assert np.abs(contributions).max() > 1


def test_drawn_masks_are_repeatable_by_seed_and_of_the_runs_own_generator() -> None:
    model, own = seeded(Plain), {"num_masks": 60, "num_cells": 3}
    one = run(model, **own).values
    torch.manual_seed(99)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(run(model, **own).values, one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.allclose(run(model, **{**own, "seed": 8}).values, one)


def test_all_classes_come_at_once() -> None:
    model, own = seeded(Plain), {"num_masks": 60, "num_cells": 3}
    found = run(model, all_classes=True, **own)
    assert found.extras["all_classes"].shape == (2, CLASSES, 10, 12)
    np.testing.assert_allclose(found.values, found.extras["all_classes"][[0, 1], [1, 3]])
    for target in range(CLASSES):
        one = run(model, target=target, **own).values
        np.testing.assert_allclose(one, found.extras["all_classes"][:, target], rtol=1e-4, atol=1e-6)


def test_the_mean_of_the_drawn_masks_is_p() -> None:
    """A model whose score is always 1 gets the mean mask, which the paper divides by p: 1 everywhere."""

    class One(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 2) + 0 * x.mean()

    found = run(One().eval(), target=1, num_masks=4000, num_cells=3, p=0.3, batch_size=500).values
    np.testing.assert_allclose(found, 1, atol=0.15)
    assert found.mean() == pytest.approx(1, abs=0.03)


def test_a_function_and_double_precision_are_explained() -> None:
    model, own = seeded(Plain), {"num_masks": 40, "num_cells": 3}
    single = run(model, target=2, **own).values
    double = run(seeded(Plain).double(), target=2, inputs=images().astype(np.float64), **own).values
    np.testing.assert_allclose(double, single, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(run(model, target=lambda y: y[:, 2], **own).values, single, rtol=1e-4, atol=1e-6)


class Square(nn.Module):
    """One score is the light inside a square, the other all of it; in the range of logits."""

    SQUARE = (slice(4, 12), slice(14, 22))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = x[:, :, self.SQUARE[0], self.SQUARE[1]].mean((1, 2, 3))
        return 40 * torch.stack([x.mean((1, 2, 3)), inside], dim=1)


AREA = 64 / (28 * 32)
EXTREMAL: dict[str, Any] = {
    "inputs": np.ones((2, 3, 28, 32), np.float32),
    "max_iter": 250,
    "step": 4,
    "sigma": 3,
    "areas": [AREA],
    "jitter": False,
    "perturbation": "fade",
}


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("reward", ["simple", "contrastive"])
def test_the_mask_covers_a_planted_square(variant: str, reward: str) -> None:
    found = run(Square().eval(), "extremal_perturbation", target=1, variant=variant, reward_func=reward, **EXTREMAL)
    mask = found.values[0]
    inside = mask[Square.SQUARE].sum() / mask.sum()
    assert inside > 0.4, inside  # 0.07 by chance
    assert mask[Square.SQUARE].mean() > 0.5
    np.testing.assert_allclose(found.extras["areas"][:, 0], found.values.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(found.values[0], found.values[1])


def test_several_areas_are_explained_at_once_and_each_by_itself() -> None:
    areas = [AREA, 3 * AREA]
    for reward in ("simple", "contrastive"):
        own = {**EXTREMAL, "reward_func": reward, "max_iter": 120}
        both = run(Square().eval(), "extremal_perturbation", target=1, **{**own, "areas": areas})
        assert both.extras["masks"].shape == (2, 2, 28, 32)
        np.testing.assert_allclose(both.values, both.extras["masks"].mean(axis=1), rtol=1e-6)
        for position, area in enumerate(areas):
            alone = run(Square().eval(), "extremal_perturbation", target=1, **{**own, "areas": area})
            np.testing.assert_allclose(both.extras["masks"][:, position], alone.values, atol=1e-4)


def test_arguments_that_mean_nothing_are_refused() -> None:
    for key, own in (
        ("rise", {"num_masks": 0}),
        ("rise", {"p": 0}),
        ("rise", {"num_cells": 1}),
        ("rise", {"filter_masks": np.ones((3, 10, 12), np.float32)}),
        ("extremal_perturbation", {"areas": 2.0}),
        ("extremal_perturbation", {"areas": []}),
        ("extremal_perturbation", {"variant": "keep"}),
        ("extremal_perturbation", {"perturbation": "noise"}),
        ("extremal_perturbation", {"reward_func": "largest"}),
    ):
        with pytest.raises(cfi.ArgumentError):
            run(seeded(Plain), key, **own)
    with pytest.raises(cfi.TargetError, match="index of a class"):
        run(seeded(Plain), "extremal_perturbation", reward_func="contrastive", target=lambda y: y[:, 1], max_iter=2)
    with pytest.raises(cfi.InputError, match="masks images"):
        run(seeded(lambda: nn.Linear(5, CLASSES)), inputs=images(2, (5,)))
