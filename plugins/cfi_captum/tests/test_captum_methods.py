"""Every method natively, against captum called directly with the same seed."""

from __future__ import annotations

import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum_models import IMAGE, SmallCNN, attribute, images
from torch import Tensor

from cfi_captum.table import METHODS, NOISE_TUNNEL, TUNNELLED
from cfi_core.contract import Axes

MASK = torch.arange(4).reshape(1, 1, 2, 2).repeat_interleave(5, 2).repeat_interleave(7, 3).expand(1, *IMAGE)
LAYER_MASK = torch.arange(4).reshape(1, 4, 1, 1).expand(1, 4, 10, 14)

# What is passed besides model, inputs, target, layer and neuron.
EXEC: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"n_steps": 7},
    "gradient_shap": {"n_samples": 3, "stdevs": 0.1},
    "layer_gradient_shap": {"n_samples": 3, "stdevs": 0.1},
    "neuron_gradient_shap": {"n_samples": 3, "stdevs": 0.1},
    "layer_conductance": {"n_steps": 7},
    "internal_influence": {"n_steps": 7},
    "layer_integrated_gradients": {"n_steps": 7},
    "neuron_conductance": {"n_steps": 7},
    "neuron_integrated_gradients": {"n_steps": 7},
    "occlusion": {"sliding_window_shapes": (3, 5, 7), "strides": (3, 5, 7)},
    "feature_ablation": {"feature_mask": MASK},
    "feature_permutation": {"feature_mask": MASK},
    "shapley_value_sampling": {"feature_mask": MASK, "n_samples": 3},
    "shapley_values": {"feature_mask": MASK},
    "lime": {"feature_mask": MASK, "n_samples": 12},
    "kernel_shap": {"feature_mask": MASK, "n_samples": 12},
    "layer_feature_ablation": {"layer_mask": LAYER_MASK},
    "neuron_feature_ablation": {"feature_mask": MASK},
}
AT_RELU1 = {"neuron_guided_backprop", "neuron_deconvolution", "neuron_deep_lift", "neuron_deep_lift_shap"}
# Captum's own call fails; `test_captum_workarounds` has the numbers.
FAILS_DIRECTLY = {"layer_feature_permutation"}


def _arguments(key: str, model: SmallCNN) -> dict[str, Any]:
    """In the words of the contract."""
    method = METHODS[key]
    arguments: dict[str, Any] = {"exec_args": EXEC.get(key, {})}
    if "layer" in method.init_args:
        arguments["layer"] = model.conv2 if key in AT_RELU1 or key == "guided_grad_cam" else model.conv1
    if "neuron_selector" in method.exec_args:
        arguments["neuron"] = (2, 1, 1)
    if method.baseline_distribution:
        arguments["baselines"] = torch.randn(3, *IMAGE)
    elif "baselines" in method.exec_args:
        arguments["baselines"] = torch.randn(1, *IMAGE)
    return arguments


def _directly(key: str, model: SmallCNN, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    method = METHODS[key]
    init = [arguments["layer"]] if "layer" in arguments else []
    call = dict(arguments["exec_args"])
    if "target" in method.exec_args:
        call["target"] = 1
    if "neuron" in arguments:
        call["neuron_selector"] = arguments["neuron"]
    if "baselines" in arguments:
        call["baselines"] = arguments["baselines"]
    if key == "saliency":
        call["abs"] = False
    if "feature_mask" in call:
        call["feature_mask"] = call["feature_mask"].contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(captum.attr, method.captum_class)(model, *init).attribute(x.clone(), **call)  # type: ignore[no-any-return]


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # captum's GradientShap uses the global generator


@pytest.mark.parametrize("key", sorted(TUNNELLED.keys() - FAILS_DIRECTLY))
def test_agrees_with_captum(key: str) -> None:
    # Captum is wrong about a rectifier directly before a max pooling, and refuses a flattening module:
    # `test_captum_workarounds` and `test_captum_closed_forms` have these.
    model, x = SmallCNN(average="deep_lift" in key, flatten_by_function="lrp" in key).eval(), images()
    arguments = _arguments(key, model)
    _seed(3)
    result = attribute(key, model, x, **arguments)
    _seed(3)
    expected = _directly(key, model, x, arguments)
    if key == "grad_cam":
        expected = expected.squeeze(1)
    (values,) = result.values
    assert not values.requires_grad
    assert values.abs().max() > 0
    torch.testing.assert_close(values, expected.detach(), rtol=1e-5, atol=1e-7)
    if "layer" in arguments and "neuron" not in arguments and key != "guided_grad_cam":
        assert result.axes is (Axes.LAYER_MAP if key == "grad_cam" else Axes.LAYER)
    else:
        assert result.axes is Axes.INPUT
        assert values.shape == x.shape


RANDOM = {"lime", "kernel_shap", "gradient_shap", "layer_gradient_shap", "neuron_gradient_shap", "feature_permutation"}
RANDOM |= {"shapley_value_sampling", "layer_feature_permutation"}


@pytest.mark.parametrize("key", sorted(TUNNELLED.keys() - RANDOM))
def test_noise_tunnel_over_every_method(key: str) -> None:
    """Without noise, the mean over noisy samples is the method's own value."""
    model, x = SmallCNN().eval(), images()
    arguments = _arguments(key, model)
    if METHODS[key].baseline_distribution:
        # The tunnel repeats baselines with the inputs; equal ones are the same distribution afterwards.
        arguments["baselines"] = arguments["baselines"][:1].repeat(2, 1, 1, 1)
    expected = attribute(key, model, x, **arguments).values
    arguments["exec_args"] = {**arguments["exec_args"], "nt_samples": 2, "stdevs": 0}
    result = attribute(NOISE_TUNNEL, model, x, init_args={"method": key}, **arguments)
    torch.testing.assert_close(result.values, expected, rtol=1e-4, atol=1e-6)
    assert result.applied["method"] == key


@pytest.mark.parametrize("key", sorted(RANDOM))
def test_noise_tunnel_over_random_methods(key: str) -> None:
    model, x = SmallCNN().eval(), images()
    arguments = _arguments(key, model)
    draw = {"draw_baseline_from_distrib": True} if METHODS[key].baseline_distribution else {}
    arguments["exec_args"] = {**arguments["exec_args"], "nt_samples": 2, "stdevs": 0.1, **draw}
    result = attribute(NOISE_TUNNEL, model, x, init_args={"method": key}, **arguments)
    expected = model.conv1(x).shape if "layer" in METHODS[key].required and "neuron" not in key else x.shape
    assert result.values[0].shape == expected


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("key", ["saliency", "gradient_shap", "integrated_gradients"])
def test_noise_tunnel_agrees_with_captum(key: str, nt_type: str) -> None:
    model, x = SmallCNN().eval(), images()
    own = {"baselines": torch.randn(2, *IMAGE)} if key != "saliency" else {}
    settings = {"nt_type": nt_type, "nt_samples": 3, "stdevs": 0.5, "nt_samples_batch_size": 2}
    _seed(5)
    result = attribute(NOISE_TUNNEL, model, x, init_args={"method": key}, exec_args=settings, **own)
    _seed(5)
    tunnel = captum.attr.NoiseTunnel(getattr(captum.attr, METHODS[key].captum_class)(model))
    more = {"abs": False} if key == "saliency" else {}
    expected = tunnel.attribute(x, target=1, **settings, **own, **more)
    torch.testing.assert_close(result.values[0], expected.detach(), rtol=1e-5, atol=1e-7)


def test_noise_tunnel_wraps_saliency_unless_told() -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute(NOISE_TUNNEL, model, x, exec_args={"stdevs": 0, "nt_samples": 2})
    torch.testing.assert_close(result.values, attribute("saliency", model, x).values)
    assert result.applied["method"] == "saliency"
    assert result.applied["saliency.abs"] is False


def test_relevance_inside_a_tunnel_leaves_shared_weights() -> None:
    from captum.attr._utils.lrp_rules import GammaRule

    model, x = SmallCNN().eval(), images()
    model.conv1.rule = GammaRule()
    weight = model.conv1.weight.clone()
    attribute(NOISE_TUNNEL, model, x, init_args={"method": "lrp"}, exec_args={"nt_samples": 2, "stdevs": 0.1})
    assert torch.equal(model.conv1.weight, weight)
    assert isinstance(model.conv1.rule, GammaRule)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("key", ["grad_cam", "layer_activation", "deep_lift", "guided_backprop", "lrp"])
def test_in_place_rectifiers(key: str, inplace: bool) -> None:
    torch.manual_seed(1)
    model = SmallCNN(inplace=inplace).eval()
    torch.manual_seed(1)
    twin = SmallCNN().eval()
    x = images()
    layers = [{"layer": each.conv2} if "layer" in METHODS[key].init_args else {} for each in (model, twin)]
    torch.testing.assert_close(
        attribute(key, model, x, **layers[0]).values, attribute(key, twin, x, **layers[1]).values
    )


@pytest.mark.parametrize("key", ["layer_activation", "layer_gradient_x_activation", "layer_lrp"])
def test_several_layers(key: str) -> None:
    model, x = SmallCNN().eval(), images()
    layers = (model.conv1, model.fc1)
    result = attribute(key, model, x, layer=layers)
    assert result.axes is Axes.LAYER
    assert [tuple(values.shape) for values in result.values] == [(2, 4, 10, 14), (2, 8)]
    for layer, values in zip(layers, result.values, strict=True):
        torch.testing.assert_close(attribute(key, model, x, layer=layer).values, (values,))


def test_integrated_gradients_of_parallel_layers() -> None:
    class Parallel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = torch.nn.Linear(4, 3)
            self.right = torch.nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) * 2 + self.right(x)

    model, x = Parallel(), torch.randn(2, 4)
    with pytest.warns(UserWarning, match="Multiple layers"):
        left, right = attribute("layer_integrated_gradients", model, x, layer=(model.left, model.right)).values
    zero = torch.zeros_like(x)
    only = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(left, ((model.left(x) - model.left(zero)) * 2 * only).detach())
    torch.testing.assert_close(right, ((model.right(x) - model.right(zero)) * only).detach())


def test_several_inputs() -> None:
    class Sum(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([a.sum(1), (a * b).sum(1)], 1)

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    result = attribute("saliency", Sum(), a, b, channel_axis=(None, None))
    torch.testing.assert_close(result.values, (b, a))
    baselines = (torch.zeros(1, 3), torch.zeros(1, 3))
    result = attribute("integrated_gradients", Sum(), a, b, baselines=baselines, channel_axis=(None, None))
    torch.testing.assert_close(result.values, (a * b / 2, a * b / 2))


def test_layer_that_returns_a_tuple() -> None:
    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = Split()

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.split(x)
            return left * right

    class Split(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, :2], x[:, 2:] * 3

    model, x = Recurrent(), torch.randn(2, 4)
    result = attribute("layer_activation", model, x, layer=model.split)
    torch.testing.assert_close(result.values, (x[:, :2], x[:, 2:] * 3))


def test_convergence_delta() -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute(
        "integrated_gradients", model, x, baselines=0.0, exec_args={"return_convergence_delta": True, "n_steps": 20}
    )
    delta = result.extras["convergence_delta"]
    with torch.no_grad():
        gap = result.values[0].flatten(1).sum(1) - (model(x) - model(torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(torch.from_numpy(delta), gap, rtol=1e-3, atol=1e-5)


def test_applied_settings() -> None:
    model, x = SmallCNN().eval(), images()
    assert attribute("saliency", model, x).applied == {
        "class": "captum.attr.Saliency",
        "abs": False,
        "additional_forward_args": None,
    }
    applied = attribute("integrated_gradients", model, x, exec_args={"n_steps": 3}).applied
    assert applied["n_steps"] == 3
    assert applied["method"] == "gausslegendre"
    assert applied["multiply_by_inputs"] is True
    assert attribute("saliency", model, x, exec_args={"abs": True}).applied["abs"] is True


def test_runs_under_no_grad_and_inference_mode() -> None:
    model, x = SmallCNN().eval(), images()
    expected = attribute("saliency", model, x).values
    with torch.no_grad():
        torch.testing.assert_close(attribute("saliency", model, x).values, expected)
    with torch.inference_mode():
        result = attribute("integrated_gradients", model, x, exec_args={"n_steps": 2})
    assert result.values[0].shape == x.shape
