"""What SHAP's explainers say of their draws is the spread of their values, and changes nothing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import shap
import torch
from torch import Tensor, nn

import cfi_core as cfi
from cfi_core.testing.conformance import assert_spread_is_told

GENERATOR = torch.Generator().manual_seed(2)
ROWS = torch.randn(2, 14, generator=GENERATOR)
MANY = torch.randn(2500, 14, generator=GENERATOR)
BACKGROUND = MANY[:40]


def net(features: int = 14) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(6, 8)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(self.first(a)) * torch.tanh(self.second(b))


def explain(key: str, seed: int, **given: Any) -> Any:
    return cfi.attribute(net(), key, "shap", inputs=ROWS, target=[1, 2], seed=seed, **given)


@pytest.mark.parametrize("samples", [60, 400])
def test_errors_of_coalitions_are_the_spread_over_seeds(samples):
    # With few of them, chance decides which sizes are gone through.
    given = {"baselines": BACKGROUND[:1], "exec_args": {"nsamples": samples}}
    assert_spread_is_told(lambda seed: explain("kernel_shap", seed, **given), within=0.3)


def test_errors_of_points_are_the_spread_over_seeds():
    given = {"baselines": BACKGROUND, "exec_args": {"nsamples": 60}}
    assert_spread_is_told(lambda seed: explain("gradient_shap", seed, **given))
    inputs = (ROWS[:, :8], ROWS[:, 8:])
    baselines = (BACKGROUND[:, :8], BACKGROUND[:, 8:])
    model = TwoInputs().eval()
    assert_spread_is_told(
        lambda seed: cfi.attribute(
            model,
            "gradient_shap",
            "shap",
            inputs=inputs,
            baselines=baselines,
            target=1,
            seed=seed,
            exec_args={"nsamples": 60},
        )
    )


def test_errors_of_baselines_are_the_spread_over_samples_of_them():
    assert_spread_is_told(lambda seed: explain("deep_lift_shap", 0, baselines=MANY[50 * seed : 50 * seed + 50]))


def test_where_all_coalitions_are_gone_through_nothing_is_drawn():
    given = {"inputs": ROWS[:, :5], "target": 1, "baselines": BACKGROUND[:1, :5]}
    found = cfi.attribute(net(5), "kernel_shap", "shap", **given, exec_args={"nsamples": 30})
    assert (found.extras["standard_error"] == 0).all()


def test_too_few_coalitions_tell_nothing_and_say_so():
    with pytest.warns(cfi.SamplingWarning, match="too few"):
        found = explain("kernel_shap", 0, baselines=BACKGROUND[:1], exec_args={"nsamples": 12})
    assert np.isinf(found.extras["standard_error"]).all()


def test_features_that_were_chosen_before_have_no_errors():
    given = {"baselines": BACKGROUND[:1], "exec_args": {"nsamples": 100, "l1_reg": "num_features(5)"}}
    assert "standard_error" not in explain("kernel_shap", 0, **given).extras


def test_values_are_those_of_shap_to_the_last_bit():
    class Column(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, 1].reshape(-1, 1)

    expected = shap.GradientExplainer(Column(), [BACKGROUND]).shap_values([ROWS], nsamples=30, rseed=4)
    given = {"baselines": BACKGROUND, "exec_args": {"nsamples": 30}}
    found = cfi.attribute(net(), "gradient_shap", "shap", inputs=ROWS, target=1, seed=4, **given)
    np.testing.assert_array_equal(found.values, np.reshape(expected, found.values.shape))

    def function(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return Column()(torch.as_tensor(rows, dtype=torch.float32)).double().numpy()[:, 0]

    np.random.seed(4)
    explainer = shap.KernelExplainer(function, BACKGROUND[:1].numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = explainer.shap_values(ROWS.numpy(), silent=True, nsamples=100, l1_reg=False)
    given = {"baselines": BACKGROUND[:1], "exec_args": {"nsamples": 100}}
    found = cfi.attribute(net(), "kernel_shap", "shap", inputs=ROWS, target=1, seed=4, **given)
    np.testing.assert_array_equal(found.values, expected.astype(found.values.dtype))
