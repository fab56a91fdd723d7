"""Relevance at any layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zennit_models import CLASSES, Plain, Residual, attribute, images, relevance

import cfi_core as cfi


@pytest.mark.parametrize("name", [str(place) for place in range(9)])
def test_relevance_at_every_layer_is_what_arrives_there(name: str) -> None:
    model, x = Plain().double().eval(), images()
    whole = attribute(model, "lrp_epsilon_plus", x).extras["conservation"]
    found = attribute(model, "lrp_epsilon_plus", x, layer=name)
    assert found.layer == name and found.values.shape == nn.Sequential(*list(model)[: int(name) + 1])(x).shape
    np.testing.assert_allclose(found.values.reshape(2, -1).sum(1), whole[name]["arrives"], rtol=1e-9)
    assert found.provenance["completeness"]["gap"] < 1e-8


def test_relevance_at_a_layer_leads_to_that_at_the_input() -> None:
    """The way back from the layer, with its relevance as a start, is the rest of the whole way."""
    model, x = Plain().double().eval(), images()
    at_layer = torch.tensor(relevance(model, "lrp_epsilon_plus", x, layer="2"))
    front = nn.Sequential(*list(model)[:3]).eval()
    rest = relevance(front, "lrp_epsilon_plus", x, target=None, exec_args={"attr_output": at_layer})
    np.testing.assert_allclose(rest, relevance(model, "lrp_epsilon_plus", x), rtol=1e-9, atol=1e-15)


def test_several_layers() -> None:
    model, x = Plain().double().eval(), images()
    found = attribute(model, "lrp_epsilon_plus", x, layer=["0", model[5]])
    assert found.layer == ("0", "5")
    for name, values in zip(found.layer, found.values, strict=True):
        np.testing.assert_allclose(values, relevance(model, "lrp_epsilon_plus", x, layer=name), rtol=1e-12)


def test_of_a_layer_that_paths_lead_around_no_sum_is_promised() -> None:
    found = attribute(Residual().double().eval(), "lrp_epsilon_plus", images(), layer="conv2")
    assert found.provenance["completeness"]["gap"] is None
    assert found.values.shape == (2, 3, 6, 8)


def test_a_merged_batch_norm_has_the_relevance_of_its_layer() -> None:
    model, x = Residual().double().eval(), images()
    at = [relevance(model, "lrp_epsilon_plus", x, layer=name) for name in ("conv1", "bn1")]
    np.testing.assert_allclose(*at, rtol=1e-12)


def test_layers_changed_in_place_are_read_before() -> None:
    """Natively the next module, in place, would change what is read."""
    inplace = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, CLASSES)).double().eval()
    model = nn.Sequential(inplace[0], nn.ReLU(), inplace[2]).eval()
    x = torch.randn(2, 5, dtype=torch.float64)
    for defaults in ("raw", "toolset"):
        for key in ("guided_backprop", "zennit_lrp"):
            expected = relevance(model, key, x, layer="0", defaults=defaults)
            np.testing.assert_array_equal(relevance(inplace, key, x, layer="0", defaults=defaults), expected)


@pytest.mark.parametrize("key", ["guided_backprop", "deconvolution", "excitation_backprop"])
def test_other_methods_at_layers(key: str) -> None:
    model, x = Plain().double().eval(), images()
    at_last = relevance(model, key, x, layer="7")
    start = np.zeros((2, 7)) + model[8].weight[1].detach().numpy()
    if key == "excitation_backprop":
        hidden = nn.Sequential(*list(model)[:8])(x).detach().numpy()
        shares = hidden * np.maximum(start, 0)
        start = shares / (shares.sum(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(at_last, start, rtol=1e-6)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu, self.out, self.idle = nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, CLASSES), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.relu(self.fc(self.relu(self.fc(x)))))


@pytest.mark.parametrize(("layer", "said"), [("relu", "called 2 times"), ("idle", "does not call")])
def test_layers_without_one_output_are_refused(layer: str, said: str) -> None:
    with pytest.raises(cfi.LayerError, match=said):
        attribute(Reused().eval(), "lrp_epsilon_plus", torch.randn(2, 5), layer=layer)
