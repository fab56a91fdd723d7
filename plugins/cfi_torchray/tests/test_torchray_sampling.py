"""What RISE says of its masks is the spread of its values over seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi
from cfi_core.testing.conformance import assert_spread_is_told

IMAGES = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 6 * 8, 4)).eval()


@pytest.mark.parametrize("target", [1, [1, 3]])
def test_errors_are_the_spread_over_seeds(target):
    given = {"inputs": IMAGES, "target": target, "exec_args": {"num_masks": 70, "num_cells": 4, "batch_size": 32}}
    assert_spread_is_told(lambda seed: cfi.attribute(net(), "rise", "torchray", seed=seed, **given), seeds=40)


def test_errors_are_those_of_the_mean_over_the_masks_that_are_given():
    """In closed form: the spread of score times mask, over masks of the user's own."""
    masks = (torch.rand(50, 1, 8, 10, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    given = {"filter_masks": masks, "batch_size": 16, "divide_by_p": False}
    found = cfi.attribute(net(), "rise", "torchray", inputs=IMAGES, target=2, exec_args=given)
    with torch.no_grad():
        scores = torch.stack([net()(image * masks)[:, 2] for image in IMAGES])
    each = (scores[:, :, None, None] * masks[None, :, 0]).double().numpy()
    np.testing.assert_allclose(found.values, each.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.extras["standard_error"], each.std(1, ddof=1) / np.sqrt(50), rtol=1e-3, atol=1e-5)
