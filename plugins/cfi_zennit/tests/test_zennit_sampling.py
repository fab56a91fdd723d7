"""What SmoothGrad says of its draws is the spread of its values over seeds, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zennit.attribution
from torch import nn

import cfi_core as cfi
from cfi_core.testing.conformance import assert_spread_is_told

IMAGES = torch.rand(2, 2, 6, 7, generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 5, 3)).eval()
    with torch.no_grad():
        made[0].weight.mul_(3)
    return made


@pytest.mark.parametrize("composite", [{}, {"composite": "guided_backprop"}])
def test_errors_are_the_spread_over_seeds(composite):
    settings = {"n_iter": 25, "noise_level": 0.5, **composite}
    explain = {"inputs": IMAGES, "target": 1, "init_args": settings}
    model = net()
    assert_spread_is_told(lambda seed: cfi.attribute(model, "smooth_grad", "zennit", seed=seed, **explain), seeds=30)


def test_values_are_those_of_zennit_to_the_last_bit_and_one_iteration_draws_nothing():
    model = net()
    torch.manual_seed(7)
    attributor = zennit.attribution.SmoothGrad(model, n_iter=9, attr_output=lambda out: torch.eye(3)[[1, 1]])
    _, expected = attributor(IMAGES.clone().requires_grad_())
    found = cfi.attribute(model, "smooth_grad", "zennit", inputs=IMAGES, target=1, seed=7, init_args={"n_iter": 9})
    np.testing.assert_array_equal(found.values, expected.detach().numpy())
    one = cfi.attribute(net(), "smooth_grad", "zennit", inputs=IMAGES, target=1, init_args={"n_iter": 1})
    assert "standard_error" not in one.extras


def test_two_iterations_draw_once_and_tell_nothing():
    with pytest.warns(cfi.SamplingWarning, match="too few"):
        cfi.attribute(net(), "smooth_grad", "zennit", inputs=IMAGES, target=1, init_args={"n_iter": 2})
