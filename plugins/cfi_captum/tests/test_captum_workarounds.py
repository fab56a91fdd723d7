"""Each fault of captum is still there (or the workaround can go), and is worked around."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import (
    Deconvolution,
    DeepLift,
    LayerFeatureAblation,
    LayerFeaturePermutation,
    LayerLRP,
    NoiseTunnel,
    Saliency,
    ShapleyValues,
)
from captum_models import CLASSES, SmallCNN, images, value
from torch import Tensor, nn

from cfi_core.contract import Target


def _deep_lift(model: nn.Module, x: Tensor, baselines: Tensor, **settings: bool) -> Tensor:
    """Captum's own, without its warning about hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DeepLift(model, **settings).attribute(x, baselines, target=1).detach()  # type: ignore[no-any-return]


def _gap(model: nn.Module, values: Tensor, x: Tensor, baselines: Tensor) -> float:
    """How far the values are from adding up to the difference of the outputs."""
    difference = (model(x) - model(baselines))[:, 1]
    return float((values.flatten(1).sum(1) - difference).abs().max().detach())


def test_rectifier_directly_before_a_pooling() -> None:
    model, x, baselines = SmallCNN().double().eval(), images().double(), images().double()
    assert _gap(model, _deep_lift(model, x, baselines), x, baselines) > 1e-3
    assert _gap(model, value("deep_lift", model, x, baselines=baselines), x, baselines) < 1e-9


class Around(nn.Module):
    """A skip connection around the rectifier, from the very tensor that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.relu(x) + x


def test_deep_lift_around_a_rectifier() -> None:
    model, x, baselines = Around().double(), torch.randn(4, 3).double(), torch.randn(4, 3).double()
    assert _gap(model, _deep_lift(model, x, baselines), x, baselines) > 1e-3
    ours = value("deep_lift", model, x, baselines=baselines, channel_axis=(None,))
    assert _gap(model, ours, x, baselines) < 1e-9


def test_deconvolution_around_a_rectifier() -> None:
    model, x = Around(), torch.randn(4, 3)
    # Both ways hand on a gradient of one, so twice the row of weights.
    expected = (2 * model.first.weight[1]).detach().expand(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not torch.allclose(Deconvolution(model).attribute(x, target=1), expected)
    torch.testing.assert_close(value("deconvolution", model, x, channel_axis=(None,)), expected)


def test_overlapping_pooling_windows() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Identity(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(4 * 3 * 5, CLASSES)
    )
    model, x, baselines = model.double().eval(), images(6).double(), images(6).double()
    assert _gap(model, _deep_lift(model, x, baselines), x, baselines) > 1e-3
    assert _gap(model, value("deep_lift", model, x, baselines=baselines), x, baselines) < 1e-9


@pytest.mark.parametrize("pool", [nn.MaxPool1d(2), nn.Softmax(2)])
def test_samples_of_a_batch_do_not_mix(pool: nn.Module) -> None:
    size = 3 if isinstance(pool, nn.MaxPool1d) else 6
    model = nn.Sequential(nn.Conv1d(1, 2, 1), pool, nn.Flatten(), nn.Linear(2 * size, 4), nn.ELU(), nn.Linear(4, 3))
    model, x = model.double().eval(), torch.randn(3, 1, 6).double()
    # The first half is equal to the baseline, where the pooling's rule falls back to the gradient.
    baselines = torch.cat([x[:, :, :3], torch.zeros(3, 1, 3).double()], 2)
    separate = [_deep_lift(model, x[i : i + 1], baselines[i : i + 1], multiply_by_inputs=False) for i in range(len(x))]
    expected = torch.cat(separate)
    assert not torch.allclose(_deep_lift(model, x, baselines, multiply_by_inputs=False), expected)
    ours = value("deep_lift", model, x, baselines=baselines, init_args={"multiply_by_inputs": False})
    torch.testing.assert_close(ours, expected)
    assert type(model[1]) is type(pool)
    assert type(pool).__module__.startswith("torch.")


@pytest.mark.parametrize("target", [Target(index=(1,)), Target(index=((1,), (2,)))])
def test_layer_feature_permutation_with_a_target(target: Target) -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES)), torch.randn(2, 4)
    with pytest.raises(AssertionError):
        LayerFeaturePermutation(model, model[1]).attribute(x, target=1)
    activation = torch.tanh(model[0](x)).detach()
    weight = model[2].weight.detach()[[index[0] for index in target.indices(2)]]
    ours = value("layer_feature_permutation", model, x, layer=model[1], target=target, channel_axis=(None,))
    exchanged = weight * (activation - activation.flip(0))
    # A permutation of two samples exchanges them or leaves them; each feature has its own.
    same = torch.isclose(ours, exchanged, atol=1e-6).all(0)
    assert (same | (ours.abs() < 1e-6).all(0)).all()


def test_layer_feature_ablation_with_a_target_per_sample() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES)), torch.randn(2, 4)
    with pytest.raises(AssertionError):
        LayerFeatureAblation(model, model[1]).attribute(x, target=[1, 2], perturbations_per_eval=3)
    activation = torch.tanh(model[0](x))
    ours = value(
        "layer_feature_ablation",
        model,
        x,
        layer=model[1],
        target=Target(index=((1,), (2,))),
        exec_args={"perturbations_per_eval": 3},
        channel_axis=(None,),
    )
    torch.testing.assert_close(ours, (activation * model[2].weight[[1, 2]]).detach())


def test_views_of_arrays_that_are_not_contiguous() -> None:
    x = torch.randn(2, 4)
    mask = torch.tensor([[0], [1]]).expand(2, 2).T.reshape(1, 2, 2).transpose(1, 2)

    def model(x: Tensor) -> Tensor:
        return x.flatten(1).sum(1)

    x = x.reshape(2, 2, 2)
    with pytest.raises(RuntimeError, match="view"):
        ShapleyValues(model).attribute(x, feature_mask=mask.expand(1, 2, 2).contiguous().transpose(1, 2))
    value(
        "shapley_values",
        model,
        x,
        target=None,
        exec_args={"feature_mask": mask.contiguous().transpose(1, 2)},
        channel_axis=(None,),
    )


def test_tunnel_around_layer_relevance() -> None:
    model, x = SmallCNN(flatten_by_function=True).eval(), images()
    with pytest.raises(AttributeError, match="__wrapped__"):
        NoiseTunnel(LayerLRP(model, model.conv2)).attribute(x, target=1, nt_samples=2)
    ours = value(
        "noise_tunnel",
        model,
        x,
        layer=model.conv2,
        init_args={"method": "layer_lrp"},
        exec_args={"nt_samples": 2, "stdevs": 0},
    )
    torch.testing.assert_close(ours, value("layer_lrp", model, x, layer=model.conv2))


def test_one_value_per_sample_in_a_column() -> None:
    x, weight = torch.randn(3, 4), torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
    assert ShapleyValues(lambda x: x @ weight).attribute(x).shape != x.shape
    ours = value("shapley_values", lambda x: x @ weight, x, target=Target(), channel_axis=(None,))
    torch.testing.assert_close(ours, x * weight[:, 0])


def test_captum_takes_absolute_values_by_default() -> None:
    model, x = SmallCNN().eval(), images()
    assert (Saliency(model).attribute(x.requires_grad_(), target=1) >= 0).all()
    assert (value("saliency", model, x.detach()) < 0).any()
