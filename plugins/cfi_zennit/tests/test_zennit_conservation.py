"""Relevance is kept, or where it is lost is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zennit import rules
from zennit.core import Hook
from zennit_models import CLASSES, Plain, Residual, attribute, images, warned


def test_epsilon_conserves_without_biases_at_every_layer() -> None:
    model, x = Residual(bias=False).double().eval(), images()
    epsilon = [((nn.Linear, nn.Conv2d), rules.Epsilon(1e-12))]
    found = attribute(model, "lrp_epsilon_plus", x, init_args={"layer_map": epsilon, "stabilizer": 1e-12})
    output = model(x)[:, 1].detach().numpy()
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), output, rtol=1e-5)
    accounts = found.extras["conservation"]
    assert {"conv1", "conv2", "fc", "average", "maximum", "sum 1"} <= set(accounts)
    for name, account in accounts.items():
        np.testing.assert_allclose(account["arrives"], account["leaves"], rtol=1e-5, err_msg=name)
    for name in ("fc", "maximum", "average", "conv1"):  # nothing leads around these
        np.testing.assert_allclose(accounts[name]["leaves"], output, rtol=1e-5, err_msg=name)


def test_zplus_conserves_where_every_unit_has_a_positive_contribution() -> None:
    model, x = Plain(bias=False).double().eval(), images().abs()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    found = attribute(model, "lrp_epsilon_plus", x, init_args={"layer_map": [(nn.Linear, rules.ZPlus())]})
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), model(x)[:, 1].detach().numpy(), rtol=1e-4)
    assert found.provenance["completeness"]["gap"] < 1e-6


def test_biases_and_stabilisers_are_no_leaks() -> None:
    """What a rule keeps back by design is what its definition says, to the unit."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    x = torch.rand(4, 3, dtype=torch.float64)
    found = attribute(model, "lrp_epsilon_plus", x, target=0, init_args={"epsilon": 0.2})
    account = found.extras["conservation"]["2"]
    hidden = model[1](model[0](x))
    output = model[2](hidden)[:, 0].detach().numpy()
    divided = output / (output + 0.2 * np.sign(output))
    np.testing.assert_allclose(account["bias"], model[2].bias.item() * divided, rtol=1e-12)
    np.testing.assert_allclose(account["stabilizer"], output - output * divided, rtol=1e-12)
    np.testing.assert_allclose(account["leak"], 0, atol=1e-12)
    assert found.provenance["completeness"]["gap"] < 1e-9


@pytest.mark.parametrize(
    "key", ["lrp_epsilon_plus", "lrp_epsilon_alpha2_beta1", "lrp_epsilon_plus_flat", "lrp_epsilon_alpha2_beta1_flat"]
)
@pytest.mark.parametrize("make", [Plain, Residual])
def test_composites_lose_by_design_alone(key: str, make: type[nn.Module]) -> None:
    found = attribute(make().double().eval(), key, images())
    assert found.provenance["completeness"]["gap"] < 1e-8
    assert max(np.abs(one["leak"]).max() for one in found.extras["conservation"].values()) < 1e-9


def test_the_box_loses_by_design_alone() -> None:
    found = attribute(
        Residual().double().eval(), "lrp_epsilon_gamma_box", images(), init_args={"low": -4.0, "high": 4.0}
    )
    assert found.provenance["completeness"]["gap"] < 1e-8


def test_squared_weights_lose_by_design_alone() -> None:
    arguments = {"layer_map": [(nn.Conv2d, rules.WSquare())]}
    found = attribute(Plain().double().eval(), "lrp_epsilon_plus", images(), init_args=arguments)
    assert found.provenance["completeness"]["gap"] < 1e-8


class Scaled(nn.Module):
    """Halves its values by a function that no rule is for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)) / 2)


def test_a_leak_is_told_with_layer_and_rule() -> None:
    found, said = warned(Scaled().eval(), "lrp_epsilon_plus", torch.randn(2, 5))
    assert "relevance leaks at 'function div' (gradient, " in said and "no rule matches the function `div`" in said
    account = found.extras["conservation"]["function div"]
    np.testing.assert_allclose(account["leak"], account["arrives"] / 2, rtol=1e-6)
    assert found.provenance["completeness"]["gap"] > 0.1  # core sees it, too


class Losing(Hook):
    """A rule of a user's that loses a third."""

    def backward(self, module: nn.Module, grad_input: object, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (grad_output[0] * 2 / 3,)


def test_of_a_rule_of_ones_own_what_is_missing_is_told_and_the_sum_left_open() -> None:
    arguments = {"name_map": [("1", Losing())]}
    found, said = warned(Plain().eval(), "lrp_epsilon_plus", images(dtype=torch.float32), init_args=arguments)
    assert "leaks at '1' (Losing, 33.3%)" in said
    assert "absorb by design is not known" in found.provenance["completeness"]["why"]


def test_without_canonizing_a_residual_network_leaks_and_says_so() -> None:
    model, x = Residual(bias=False).eval(), images(dtype=torch.float32)
    model.relu = nn.ReLU().eval()
    _, said = warned(model, "lrp_epsilon_plus", x, init_args={"canonize": False})
    assert "no rule matches the function `add`" in said and "defaults='toolset'" in said


def test_conservation_survives_a_file(tmp_path: object) -> None:
    found = attribute(Plain().eval(), "lrp_epsilon_plus", images(dtype=torch.float32))
    path = found.save(f"{tmp_path}/relevance.npz")
    assert "conservation" in str(np.load(path)["metadata"])
