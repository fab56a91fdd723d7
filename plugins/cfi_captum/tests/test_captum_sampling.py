"""What captum's methods that draw say of themselves is the spread of their values over seeds, and changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression, SkLearnRidge
from torch import Tensor, nn

import cfi_core as cfi
from cfi_captum.sampling import errors_of_fit
from cfi_core.moments import Moments
from cfi_core.testing.conformance import assert_spread_is_told

ROWS = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
MANY = torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def net(scale: float = 2.0) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).eval().double()
    with torch.no_grad():
        made[0].weight.mul_(scale)
    return made


class TwoInputs(nn.Module):
    """Of two inputs, which interact."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(4, 8).double(), nn.Linear(3, 8).double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(self.first(a)) * torch.tanh(self.second(b))


MASK = torch.tensor([[0, 0, 1, 1, 2, 3]])
TUNNEL = {"nt_samples": 40, "stdevs": 0.5, "nt_samples_batch_size": 7}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "points": ("gradient_shap", {"baselines": MANY[:40], "exec_args": {"n_samples": 100, "stdevs": 0.2}}),
    "points of a layer": (
        "layer_gradient_shap",
        {"baselines": MANY[:40], "layer": "0", "exec_args": {"n_samples": 100}},
    ),
    "points of a neuron": (
        "neuron_gradient_shap",
        {"baselines": MANY[:40], "layer": "0", "neuron": 2, "exec_args": {"n_samples": 100}},
    ),
    "noise": ("noise_tunnel", {"init_args": {"method": "saliency"}, "exec_args": TUNNEL}),
    "noise around baselines": (
        "noise_tunnel",
        {"init_args": {"method": "deep_lift_shap"}, "baselines": MANY[:2], "exec_args": {**TUNNEL, "nt_samples": 20}},
    ),
    "squares": (
        "noise_tunnel",
        {"init_args": {"method": "saliency"}, "exec_args": {**TUNNEL, "nt_type": "smoothgrad_sq"}},
    ),
    "variances": (
        "noise_tunnel",
        {"init_args": {"method": "saliency"}, "exec_args": {**TUNNEL, "nt_samples": 80, "nt_type": "vargrad"}},
    ),
    "orders": ("shapley_value_sampling", {"exec_args": {"n_samples": 25, "perturbations_per_eval": 4}}),
    "orders of groups": ("shapley_value_sampling", {"exec_args": {"n_samples": 25, "feature_mask": MASK}}),
    "coalitions": ("kernel_shap", {"exec_args": {"n_samples": 40}}),
    "perturbations": ("lime", {"exec_args": {"n_samples": 40}}),
    "perturbations and lines": (
        "lime",
        {"init_args": {"interpretable_model": SkLearnLinearRegression()}, "exec_args": {"n_samples": 40}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_are_the_spread_over_seeds(case):
    key, given = CASES[case]
    target = {} if key.startswith("neuron") else {"target": 1}
    model = net()
    # A lasso's small values are 0 for some seeds and not for others, whose spread a normal distribution covers less.
    covered = 0.8 if case == "perturbations" else 0.88
    assert_spread_is_told(
        lambda seed: cfi.attribute(model, key, "captum", inputs=ROWS, seed=seed, **target, **given),
        seeds=40,
        within=0.3,
        covered=covered,
    )


def test_errors_of_baselines_are_the_spread_over_samples_of_them():
    model = net()
    assert_spread_is_told(
        lambda seed: cfi.attribute(
            model, "deep_lift_shap", "captum", inputs=ROWS, target=1, baselines=MANY[60 * seed : 60 * seed + 60]
        )
    )


def test_errors_of_several_inputs_come_home_as_the_values_do():
    model, inputs = TwoInputs().eval(), (ROWS[:, :4], ROWS[:, 3:])
    given = {"inputs": inputs, "target": 1, "exec_args": {"n_samples": 30}}
    assert_spread_is_told(
        lambda seed: cfi.attribute(model, "kernel_shap", "captum", seed=seed, **given), seeds=25, within=0.4
    )


BY_HAND: dict[str, Callable[[nn.Module], Tensor]] = {
    "gradient_shap": lambda model: captum.attr.GradientShap(model).attribute(ROWS, MANY[:40], target=1, n_samples=9),
    "noise_tunnel": lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model)).attribute(
        ROWS, target=1, nt_samples=9, abs=False
    ),
    "shapley_value_sampling": lambda model: captum.attr.ShapleyValueSampling(model).attribute(
        ROWS, target=1, n_samples=9
    ),
    "kernel_shap": lambda model: captum.attr.KernelShap(model).attribute(ROWS, target=1, n_samples=30),
    "lime": lambda model: captum.attr.Lime(model).attribute(ROWS, target=1, n_samples=30),
    "deep_lift_shap": lambda model: captum.attr.DeepLiftShap(model).attribute(ROWS, MANY[:9], target=1),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "gradient_shap": {"baselines": MANY[:40], "exec_args": {"n_samples": 9}},
    "noise_tunnel": {"init_args": {"method": "saliency"}, "exec_args": {"nt_samples": 9}},
    "shapley_value_sampling": {"exec_args": {"n_samples": 9}},
    "kernel_shap": {"exec_args": {"n_samples": 30}},
    "lime": {"exec_args": {"n_samples": 30}},
    "deep_lift_shap": {"baselines": MANY[:9]},
}


@pytest.mark.parametrize("key", BY_HAND)
def test_values_are_those_of_captum_to_the_last_bit(key):
    model = net()
    torch.manual_seed(5)
    np.random.seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = BY_HAND[key](model)
    found = cfi.attribute(model, key, "captum", inputs=ROWS, target=1, seed=5, **SETTINGS[key])
    np.testing.assert_array_equal(found.values, expected.detach().numpy())
    assert np.isfinite(found.extras["standard_error"]).all()


def test_a_kernel_shap_of_captums_default_warns_and_that_of_the_readme_does_not():
    """On a logistic regression of six features 25 draws are off by a quarter; 500 by a twentieth."""
    rows = np.random.default_rng(0).normal(size=(200, 6))
    line = nn.Linear(6, 1).double()
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[0.1, 3.9, -0.2, 0.1, -3.8, 0.2]]))
        line.bias.zero_()
    model, inputs = nn.Sequential(line, nn.Sigmoid()).eval(), torch.tensor(rows[:3])
    exact = cfi.attribute(model, "shapley_values", "captum", inputs=inputs, target=0, baselines=0).values

    def relative(samples: int) -> tuple[float, float]:
        found = cfi.attribute(
            model,
            "kernel_shap",
            "captum",
            inputs=inputs,
            target=0,
            baselines=0,
            seed=0,
            exec_args={"n_samples": samples},
        )
        return found.provenance["sampling"]["relative"], float(
            np.linalg.norm(found.values - exact) / np.linalg.norm(exact)
        )

    with pytest.warns(cfi.SamplingWarning, match=r"25 draws.*exec_args=\{'n_samples': \d+\}"):
        told, off = relative(25)
    assert told / 3 < off < 3 * told and told > 0.15
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.SamplingWarning)
        told, off = relative(500)
    assert told / 3 < off < 3 * told and told < 0.07


def test_fewer_draws_than_features_tell_nothing_and_say_so():
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 2)).eval()
    with pytest.warns(cfi.SamplingWarning, match=r"too few to tell.*in groups"):
        found = cfi.attribute(model, "kernel_shap", "captum", inputs=torch.rand(2, 3, 10, 10), target=1, baselines=0)
    assert np.isinf(found.extras["standard_error"]).all() and found.provenance["sampling"]["relative"] == np.inf
    one = {"n_samples": 1}
    with pytest.warns(cfi.SamplingWarning, match="too few"):
        cfi.attribute(net(), "shapley_value_sampling", "captum", inputs=ROWS, target=1, exec_args=one)


def test_what_is_not_heard_is_not_told():
    """Interpretable models that are not known, and draws within draws."""
    own = {"init_args": {"interpretable_model": SkLearnRidge(alpha=1.0)}, "exec_args": {"n_samples": 40}}
    found = cfi.attribute(net(), "lime", "captum", inputs=ROWS, target=1, **own)
    assert "standard_error" not in found.extras and found.provenance["sampling"] is None
    inside = {"method": "gradient_shap"}
    drawn = {"nt_samples": 5, "n_samples": 3, "draw_baseline_from_distrib": True}
    around = {"init_args": inside, "baselines": MANY[:40], "exec_args": drawn}
    assert (
        "standard_error" not in cfi.attribute(net(), "noise_tunnel", "captum", inputs=ROWS, target=1, **around).extras
    )
    plain = cfi.attribute(net(), "saliency", "captum", inputs=ROWS, target=1)
    assert "standard_error" not in plain.extras


def test_features_of_a_mask_by_themselves_have_their_errors():
    given = {"feature_mask": MASK, "return_input_shape": False, "n_samples": 40}
    found = cfi.attribute(net(), "kernel_shap", "captum", inputs=ROWS, target=1, seed=2, exec_args=given)
    whole = cfi.attribute(
        net(), "kernel_shap", "captum", inputs=ROWS, target=1, seed=2, exec_args={**given, "return_input_shape": True}
    )
    assert found.extras["standard_error"].shape == found.values.shape == (2, 4)
    np.testing.assert_array_equal(found.extras["standard_error"][:, MASK[0]], whole.extras["standard_error"])


def test_the_errors_of_a_line_with_noise_are_those_of_the_textbook():
    """Of many rows with the same noise: sigma times the root of the inverse of X'X."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(4000, 3))
    outputs = rows @ [1, 2, 3] + 4 + 0.3 * generator.normal(size=4000)
    design = np.column_stack([rows, np.ones(4000)])
    fitted = np.linalg.lstsq(design, outputs, rcond=None)[0]
    expected = 0.3 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))[:3]
    np.testing.assert_allclose(errors_of_fit(rows, outputs - design @ fitted, np.ones(4000)), expected, rtol=0.05)


def test_moments_are_those_of_numpy():
    draws = np.random.default_rng(0).gamma(2.0, size=(30, 4))
    moments = Moments(4)
    moments.add(draws[:11])
    moments.add(draws[11:].T, axis=1)
    assert moments.draws == 30
    np.testing.assert_allclose(moments.error_of_mean(), draws.std(0, ddof=1) / np.sqrt(30))
    np.testing.assert_allclose(moments.error_of_mean_square(), (draws**2).std(0, ddof=1) / np.sqrt(30))
    centred = (draws - draws.mean(0)) ** 2
    np.testing.assert_allclose(moments.error_of_variance(), centred.std(0, ddof=1) / np.sqrt(30))
