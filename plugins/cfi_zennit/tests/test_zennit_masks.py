"""A rectifier that is written as a product with a mask, or otherwise, beside an nn.ReLU: refused, never passed over."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi
from cfi_torchgraph.testing import NO_RECTIFIERS, REFUSED_RECTIFIERS, guide, made

KEYS = ("guided_backprop", "deconvolution", "beta_smooth")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("way", REFUSED_RECTIFIERS)
def test_a_rectifier_in_disguise_is_refused(key: str, way: str) -> None:
    with pytest.raises(cfi.MethodError, match="would stay as it is"):
        cfi.attribute(made(REFUSED_RECTIFIERS[way]), key, "zennit", inputs=torch.randn(3, 5), target=1)


@pytest.mark.parametrize("way", NO_RECTIFIERS)
def test_what_only_looks_like_one_is_left_to_the_gradient(way: str) -> None:
    """The gradient by hand, with its positive part alone at the rectifier."""
    model, x = made(NO_RECTIFIERS[way]), torch.randn(3, 5)
    found = cfi.attribute(model, "guided_backprop", "zennit", inputs=x, target=1).values
    expected = guide(model, x, 1)
    assert expected.abs().max() > 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["h * (h > 0)", "heaviside", "where", "amax", "gather", "straight through"])
def test_of_relevance_the_gradient_is_the_rule_of_a_mask(way: str) -> None:
    """Units that are off get no relevance, and the others hand on all of theirs, as by `Pass` at an nn.ReLU."""
    model, x = made(REFUSED_RECTIFIERS[way]), torch.randn(3, 5)
    expected = cfi.attribute(made(nn.ReLU()), "lrp_epsilon_plus", "zennit", inputs=x, target=1).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfi.ModelWarning)  # that no rule matches the product
        found = cfi.attribute(model, "lrp_epsilon_plus", "zennit", inputs=x, target=1).values
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
