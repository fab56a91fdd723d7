"""A rectifier that is written as a product with a mask, or otherwise, beside an nn.ReLU: refused, never passed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cfi_core as cfi
from cfi_torchgraph.testing import NO_RECTIFIERS, REFUSED_RECTIFIERS, guide, made

KEYS = ("guided_backprop", "deconvolution")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("way", REFUSED_RECTIFIERS)
def test_a_rectifier_in_disguise_is_refused(key: str, way: str) -> None:
    with pytest.raises(cfi.MethodError, match="would stay as it is"):
        cfi.attribute(made(REFUSED_RECTIFIERS[way]), key, "torchray", inputs=torch.randn(3, 5), target=1)


@pytest.mark.parametrize("way", NO_RECTIFIERS)
def test_what_only_looks_like_one_is_left_to_the_gradient(way: str) -> None:
    """The gradient by hand, with its positive part alone at the rectifier."""
    model, x = made(NO_RECTIFIERS[way]), torch.randn(3, 5)
    found = cfi.attribute(model, "guided_backprop", "torchray", inputs=x, target=1).values
    expected = guide(model, x, 1)
    assert expected.abs().max() > 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
