"""A region, a box or a slice for each sample: the rows that a method makes of a sample are explained by its own one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi

SAMPLES = 3
METHODS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "noise_tunnel": {"exec_args": {"nt_samples": 3, "stdevs": 0.2}},
    "gradient_shap": {"baselines": np.zeros((2, 2, 4, 4), np.float32)},
    "deep_lift_shap": {"baselines": np.zeros((2, 2, 4, 4), np.float32)},
    "kernel_shap": {},
    "feature_ablation": {"exec_args": {"perturbations_per_eval": 2}},
}


class Segmentation(nn.Module):
    """Scores of three classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (samples, 3, 4, 4)."""
        return self.last(self.act(self.first(images)))


class InRegion(nn.Module):
    """One sum over some of these scores as the only output: the reference, written by hand."""

    def __init__(self, model: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, images: Tensor) -> Tensor:
        """Shape (samples, 1)."""
        return (self.model(images) * self.weights).sum((1, 2, 3))[:, None]


@pytest.fixture
def model() -> nn.Module:
    """Untrained."""
    torch.manual_seed(0)
    return Segmentation().eval()


def _regions() -> np.ndarray:
    regions = np.zeros((SAMPLES, 4, 4), bool)
    regions[0, :, :2] = regions[1, 2:, 2:] = regions[2, :, 1] = True
    return regions


def _weights(row: int, kind: str) -> Tensor:
    weights = torch.zeros(3, 4, 4)
    if kind == "regions":
        weights[1] = torch.from_numpy(_regions()[row]).float()
    else:
        weights[row, :, row] = 1
    return weights


@pytest.mark.parametrize("kind", ["regions", "slices"])
@pytest.mark.parametrize("key", METHODS)
def test_each_sample_is_explained_by_its_own(model: nn.Module, key: str, kind: str) -> None:
    """As on a model of each sample, written by hand, that has nothing but that sum for its output."""
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(SAMPLES, 2, 4, 4)).astype(np.float32))
    target = (
        cfi.targets.mask(_regions(), 1) if kind == "regions" else [(row, slice(None), row) for row in range(SAMPLES)]
    )
    found = cfi.attribute(model, key, "captum", inputs=images, target=target, seed=2, **METHODS[key]).values
    alone = [InRegion(model, _weights(row, kind)).eval() for row in range(SAMPLES)]
    expected = [
        cfi.attribute(one, key, "captum", inputs=images[row : row + 1], target=0, seed=2, **METHODS[key]).values
        for row, one in enumerate(alone)
    ]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-6)


def test_a_function_that_tells_samples_by_their_places_is_told() -> None:
    """A noise tunnel repeats rows, which such a function takes for other samples."""
    model, labels = nn.Linear(4, 3).eval(), torch.tensor([0, 2, 1])
    with pytest.warns(cfi.ModelWarning, match="tells samples by their places"):
        cfi.attribute(
            model,
            "noise_tunnel",
            "captum",
            inputs=torch.randn(SAMPLES, 4),
            target=lambda scores: scores[torch.arange(len(scores)), labels.repeat(9)[: len(scores)]],
        )
