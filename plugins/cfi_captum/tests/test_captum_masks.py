"""A rectifier that is written as a product with a mask, or otherwise, beside an nn.ReLU: refused, never passed over."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cfi_core as cfi
from cfi_torchgraph.testing import NO_RECTIFIERS, REFUSED_RECTIFIERS, guide, made

KEYS = ("guided_backprop", "deconvolution")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("way", REFUSED_RECTIFIERS)
def test_a_rectifier_in_disguise_is_refused(key: str, way: str) -> None:
    with pytest.raises(cfi.MethodError, match="would stay as it is"):
        cfi.attribute(made(REFUSED_RECTIFIERS[way]), key, "captum", inputs=torch.randn(3, 5), target=1)


@pytest.mark.parametrize("way", NO_RECTIFIERS)
def test_what_only_looks_like_one_is_left_to_the_gradient(way: str) -> None:
    """The gradient by hand, with its positive part alone at the rectifier."""
    model, x = made(NO_RECTIFIERS[way]), torch.randn(3, 5)
    found = cfi.attribute(model, "guided_backprop", "captum", inputs=x, target=1).values
    expected = guide(model, x, 1)
    assert expected.abs().max() > 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "way", ["h * (h > 0)", "heaviside", "data", "leaky", "amax", "diagonal matrix", "straight through"]
)
def test_deep_lift_refuses_what_it_would_take_for_linear(way: str) -> None:
    with pytest.raises(cfi.MethodError, match=r"'deep_lift' has no rule for the function"):
        cfi.attribute(made(REFUSED_RECTIFIERS[way]), "deep_lift", "captum", inputs=torch.randn(3, 5), target=1)


def test_the_layer_beyond_the_mask_is_explained() -> None:
    model, x = made(REFUSED_RECTIFIERS["h * (h > 0)"]), torch.randn(3, 5)
    found = cfi.attribute(model, "neuron_guided_backprop", "captum", inputs=x, layer="relu", neuron=(2,)).values
    weight = model.first.weight.detach().numpy()[2]
    active = (model.first(x)[:, 2] > 0).numpy()
    np.testing.assert_allclose(found, active[:, None] * weight, rtol=1e-5, atol=1e-7)


class Masked(nn.Module):
    """With a mask, which is held, and what is made of it."""

    def __init__(self, mask: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        self.mask = mask

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.second(self.mask(F.relu(self.first(x)), mask))


HELD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda h, mask: h * mask[:, :6].to(h.dtype),
    "where": lambda h, mask: torch.where(mask[:, :6] > 0, h, 0.0),
    "masked_fill": lambda h, mask: h.masked_fill(mask[:, :6] == 0, 0.0),
}


@pytest.mark.parametrize("way", HELD)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_relevance_passes_a_mask_that_is_held(way: str, dtype: torch.dtype) -> None:
    """As through weights in which the mask is contained."""
    torch.manual_seed(1)
    model, x = Masked(HELD[way]).double().eval(), torch.randn(3, 5, dtype=torch.float64)
    mask = torch.tensor([1, 0, 1, 1, 0, 1, 0], dtype=dtype)
    found = cfi.attribute(model, "lrp", "captum", inputs={"x": x, "mask": mask.repeat(3, 1)}, explain="x", target=1)
    plain = nn.Sequential(model.first, nn.ReLU(), nn.Linear(6, 4)).double().eval()
    plain[2].weight = nn.Parameter(model.second.weight.detach() * mask[:6])
    plain[2].bias = model.second.bias
    expected = cfi.attribute(plain, "lrp", "captum", inputs=x, target=1).values
    np.testing.assert_allclose(found.values["x"], expected, rtol=1e-6, atol=1e-12)


class Shifted(Masked):
    """With a layer of the mask alone."""

    def __init__(self) -> None:
        super().__init__(torch.add)
        self.of_mask = nn.Linear(1, 6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, self.of_mask(mask))


def test_relevance_passes_by_a_layer_of_the_mask_alone() -> None:
    """Which is a bias of the sum: this keeps its share of the relevance."""
    torch.manual_seed(1)
    model, x, mask = Shifted().double().eval(), torch.randn(3, 5).double(), torch.full((3, 1), 2.0).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfi.CompletenessWarning)
        found = cfi.attribute(model, "lrp", "captum", inputs={"x": x, "mask": mask}, explain="x", target=1)
    with torch.no_grad():
        before = model.first(x)
        relevance = F.relu(before) * model.second.weight[1]  # of the sum's first part
        expected = x * ((relevance / before) @ model.first.weight)
    np.testing.assert_allclose(found.values["x"], expected.numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("way", ["h * (h > 0)", "heaviside", "where", "masked_fill", "gather"])
def test_of_relevance_a_mask_is_the_rule_of_a_rectifier(way: str) -> None:
    """Units that are off get none, and the others hand on theirs, as by captum's rule of nn.ReLU."""
    x = torch.randn(3, 5)
    expected = cfi.attribute(made(nn.ReLU()), "lrp", "captum", inputs=x, target=1).values
    found = cfi.attribute(made(REFUSED_RECTIFIERS[way]), "lrp", "captum", inputs=x, target=1).values
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
