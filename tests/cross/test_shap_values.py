"""Captum and shap give one network the same SHAP values, with aligned parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi

ROWS = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
BASELINES = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
# Captum draws coalitions, with replacement; shap goes through all 62. Captum fits in single precision.
EXACT = {"n_samples": 4000}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


def apart(key: str, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference relative to the largest value."""
    given = {"inputs": ROWS, "target": [2, 0, 3], "seed": 1}
    one, other = (
        cfi.attribute(network(), key, toolset, **given, **arguments).values
        for toolset, arguments in (("captum", ours), ("shap", theirs))
    )
    return float(np.abs(one - other).max() / np.abs(one).max())


def test_deep_lift_shap_is_the_same() -> None:
    """The rescale rule, averaged over the baselines."""
    assert apart("deep_lift_shap", {"baselines": BASELINES}, {"baselines": BASELINES}) < 1e-5


def test_kernel_shap_approaches_the_exact_values() -> None:
    one = BASELINES[:1]
    assert apart("kernel_shap", {"baselines": one, "exec_args": EXACT}, {"baselines": one}) < 2e-2


@pytest.mark.parametrize("key", ["kernel_shap", "partition_shap"])
def test_shap_gives_the_values_that_captum_enumerates(key: str) -> None:
    """Partition's are Owen values: the same where no more than two inputs interact."""
    model, one = network() if key == "kernel_shap" else Quadratic(), BASELINES[:1]
    given = {"inputs": ROWS, "target": 1, "baselines": one}
    exact = cfi.attribute(model, "shapley_values", "captum", **given).values
    found = cfi.attribute(model, key, "shap", **given).values
    assert np.abs(found - exact).max() / np.abs(exact).max() < 1e-5


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(np.random.default_rng(4).normal(size=(6, 6, 2)), dtype=torch.float32))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ni,ijk,nj->nk", x, self.weights, x)


def test_gradient_shap_agrees_within_sampling_error() -> None:
    """Both draw; captum's own default is five points, so both take many."""
    ours = {"baselines": BASELINES, "exec_args": {"n_samples": 2000, "stdevs": 0.0}}
    theirs = {"baselines": BASELINES, "exec_args": {"nsamples": 2000}}
    assert apart("gradient_shap", ours, theirs) < 0.1
