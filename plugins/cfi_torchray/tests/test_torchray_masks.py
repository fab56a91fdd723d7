"""A rectifier that is written as a product with a mask, or otherwise, beside an nn.ReLU: refused, never passed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi
from cfi_torchgraph.testing import NO_RECTIFIERS, REFUSED_RECTIFIERS, Function

KEYS = ("guided_backprop", "deconvolution")


class Between(nn.Module):
    """A rectifier that the rules know, and what lies behind it."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.relu, self.function = nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.second(self.relu(self.first(x)))))


def made(function: Function) -> nn.Module:
    torch.manual_seed(1)
    return Between(function).eval()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("way", REFUSED_RECTIFIERS)
def test_a_rectifier_in_disguise_is_refused(key: str, way: str) -> None:
    with pytest.raises(cfi.MethodError, match="would stay as it is"):
        cfi.attribute(made(REFUSED_RECTIFIERS[way]), key, "torchray", inputs=torch.randn(3, 5), target=1)


@pytest.mark.parametrize("way", NO_RECTIFIERS)
def test_what_only_looks_like_one_is_left_to_the_gradient(way: str) -> None:
    """The gradient by hand, with its positive part alone at the rectifier."""
    model, x = made(NO_RECTIFIERS[way]), torch.randn(3, 5, requires_grad=True)
    found = cfi.attribute(model, "guided_backprop", "torchray", inputs=x.detach(), target=1).values
    model.relu.register_forward_hook(
        lambda module, args, output: output.register_hook(lambda g: g.clamp(min=0)) and None
    )
    expected = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    assert expected.abs().max() > 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
