"""Models that work in place: what is changed under a method's feet is refused, or done otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cfi_core as cfi

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


class Scaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x.sub_(0.5).div_(0.3))


@pytest.mark.parametrize("method", ["feature_ablation", "occlusion", "saliency"])
def test_a_model_that_changes_its_inputs_is_refused_natively(method: str) -> None:
    """The second pass of a method would start from what the first has left."""
    own = {"exec_args": {"sliding_window_shapes": (1,)}} if method == "occlusion" else {}
    with pytest.raises(cfi.InputError, match=r"changes inputs in place.*x = x.clone\(\)"):
        cfi.attribute(Scaling().eval(), method, "captum", inputs=X, target=0, **own)


def make(inplace: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.SiLU(inplace=inplace), nn.Linear(5, 3)).eval()


def test_ablating_a_layer_before_an_activation_in_place() -> None:
    found, right = (
        cfi.attribute(make(inplace), "layer_feature_ablation", "captum", inputs=X, target=0, layer="0").values
        for inplace in (True, False)
    )
    np.testing.assert_array_equal(found, right)
    model = make(True)
    cfi.attribute(model, "layer_feature_ablation", "captum", inputs=X, target=0, layer="0")
    assert model[1].inplace  # the user's own is as it was


def test_ablating_a_layer_whose_output_is_added_to_in_place() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.branch(x)
            h += x
            return self.last(h)

    with pytest.raises(cfi.LayerError, match="changes its output in place"):
        cfi.attribute(Residual().eval(), "layer_feature_ablation", "captum", inputs=X, target=0, layer="branch")


@pytest.mark.parametrize("key", ["guided_backprop", "deconvolution"])
def test_a_target_function_that_rectifies_is_refused_by_zennit(key: str) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    with pytest.raises(cfi.TargetError, match="rectifies values itself"):
        cfi.attribute(model, key, "zennit", inputs=X, target=lambda y: -F.relu(y)[:, 1])
    linear = cfi.attribute(model, key, "zennit", inputs=X, target=lambda y: y[:, 1])
    index = cfi.attribute(model, key, "zennit", inputs=X, target=1)
    np.testing.assert_allclose(linear.values, index.values, atol=1e-7)


def test_what_torch_itself_cannot_differentiate_is_told() -> None:
    class Spoiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.first(x))
            h *= 2
            return self.last(h)

    for key in ("deep_lift", "guided_backprop"):
        own = {"baselines": 0} if key == "deep_lift" else {}
        with pytest.raises(cfi.MethodError, match=r"out of place|in place"):
            cfi.attribute(Spoiled().eval(), key, "captum", inputs=X, target=0, **own)
