"""Arguments in captum's own words, against captum called by hand or a closed form."""

from __future__ import annotations

import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi
from cfi_captum.table import METHODS
from cfi_core.errors import CFIError, ModelWarning

SEED = 5
X = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]])
FACTOR = torch.tensor([[2.0], [-3.0]])


class Scaled(nn.Module):
    """Two layers; how many classes it gives, and whether as probabilities, is said in the call."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.relu = nn.ReLU()
        self.second = nn.Linear(4, 3)
        self.softmax = nn.Softmax(1)

    def forward(self, x: Tensor, factor: Tensor, classes: int = 2, softmax: bool = False) -> Tensor:
        scores = self.second(self.relu(self.first(x) * factor))[:, :classes]
        return self.softmax(scores) if softmax else scores


@pytest.fixture
def model() -> Scaled:
    torch.manual_seed(2)
    return Scaled().eval()


def run(model: Any, key: str, exec_args: dict[str, Any], **arguments: Any) -> cfi.Attribution:
    result = cfi.attribute(model, key, "captum", exec_args=exec_args, seed=SEED, **arguments)
    assert isinstance(result, cfi.Attribution)
    return result


def by_hand(key: str, model: Any, call: dict[str, Any], *init: Any) -> Any:
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own hooks
        explainer = getattr(captum.attr, METHODS[key].captum_class)(model, *init)
        values = explainer.attribute(**call)
    return values.detach().numpy() if isinstance(values, Tensor) else values


# further arguments of the forward pass

OWN: dict[str, dict[str, Any]] = {
    "occlusion": {"sliding_window_shapes": (2,)},
    "gradient_shap": {"baselines": torch.zeros(2, 3)},
    "deep_lift_shap": {"baselines": torch.zeros(2, 3)},
    "layer_gradient_shap": {"baselines": torch.zeros(2, 3)},
    "layer_deep_lift_shap": {"baselines": torch.zeros(2, 3)},
    "neuron_gradient_shap": {"baselines": torch.zeros(2, 3)},
    "neuron_deep_lift_shap": {"baselines": torch.zeros(2, 3)},
}
# LRP has no rule for the product, which is none of a module, and Grad-CAM wants space in the layer.
TAKING = sorted(METHODS.keys() - {"noise_tunnel", "lrp", "layer_lrp", "grad_cam", "guided_grad_cam"})


@pytest.mark.parametrize("key", TAKING)
def test_further_arguments_reach_every_pass(model: Scaled, key: str) -> None:
    """The third class is there only with them."""
    method, kwargs = METHODS[key], dict(OWN.get(key, {}))
    init = (model.first,) if "layer" in method.init_args else ()
    if "neuron_selector" in method.exec_args:
        kwargs["neuron_selector"] = 1
    if "target" in method.exec_args:
        kwargs["target"] = 2
    own = {**kwargs, "inputs": X, "additional_forward_args": (FACTOR, 3)}
    arguments: dict[str, Any] = {"init_args": {"layer": model.first}} if init else {}
    if method.rule == "rectifier" and "neuron_selector" in method.exec_args:
        arguments["init_args"] = init_args = {"layer": model.second}
        init = (init_args["layer"],)
    if key == "layer_feature_permutation":  # which fails in captum on a target
        expected = by_hand(
            key, lambda *x: model(*x)[:, 2], {"inputs": X, "additional_forward_args": (FACTOR, 3)}, *init
        )
    else:
        expected = by_hand(key, model, own, *init)
    result = run(model, key, own, defaults="toolset", **arguments)
    np.testing.assert_array_equal(result.values, expected)


def test_a_wrapped_method_takes_them_too(model: Scaled) -> None:
    own = {"inputs": X, "additional_forward_args": (FACTOR, 3), "target": 2, "nt_samples": 3, "stdevs": 0.1}
    torch.manual_seed(SEED)
    expected = captum.attr.NoiseTunnel(captum.attr.Saliency(model)).attribute(**own)
    result = run(model, "noise_tunnel", own, init_args={"method": "saliency"}, defaults="toolset")
    np.testing.assert_array_equal(result.values, expected.numpy())


@pytest.mark.parametrize("softmax", [False, True])
def test_the_head_is_the_one_that_the_further_arguments_make(model: Scaled, softmax: bool) -> None:
    own = {"additional_forward_args": (FACTOR, 3, softmax)}
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(x, FACTOR, 3)[:, 2].sum(), x)
    result = run(model, "saliency", own, inputs=X, target=2)
    np.testing.assert_allclose(result.values, expected.numpy(), rtol=1e-6)
    assert ("the logit" in result.provenance["explained"]) == softmax


def test_the_target_is_checked_against_what_the_further_arguments_make(model: Scaled) -> None:
    with pytest.raises(cfi.TargetError, match="between 0 and 1"):
        run(model, "saliency", {"additional_forward_args": FACTOR}, inputs=X, target=2)


def test_further_arguments_of_numpy_and_without_a_sample_axis(model: Scaled) -> None:
    expected = run(model, "saliency", {"additional_forward_args": torch.tensor([[2.0]])}, inputs=X, target=1)
    for factor in (np.array([[2.0]], np.float32), torch.tensor(2.0), 2.0):
        own = {"additional_forward_args": (factor,)}
        np.testing.assert_array_equal(run(model, "saliency", own, inputs=X, target=1).values, expected.values)


def test_a_pending_layer_knows_the_further_arguments(model: Scaled) -> None:
    own = {"additional_forward_args": (FACTOR, 3)}
    pending = cfi.attribute(model, "layer_activation", "captum", inputs=X, exec_args=own)
    assert isinstance(pending, cfi.PendingLayer)
    assert {layer.name: layer.output_shape for layer in pending.layers}["second"] == (3,)
    values = cfi.finish_execution_with_layer(pending, "first").values
    np.testing.assert_array_equal(values, model.first(X).detach().numpy())


def test_a_model_that_fails_without_them_says_so(model: Scaled) -> None:
    with pytest.raises(cfi.InputError, match="factor"):
        run(model, "saliency", {}, inputs=X, target=1)


@pytest.mark.parametrize("key", ["layer_deep_lift", "layer_deep_lift_shap"])
def test_the_last_layer_needs_no_rule(key: str) -> None:
    """Between it and the output there is nothing: its own difference from the baseline is the attribution."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    baselines = torch.zeros(2, 3)
    result = run(model, key, {}, inputs=X, baselines=baselines, target=1, layer=model[2])
    difference = (model(X) - model(baselines)).detach().numpy()
    np.testing.assert_allclose(result.values, difference * [0, 1], rtol=1e-5, atol=1e-7)


# numbers for all


def additive(x: Tensor) -> Tensor:
    """Its Shapley values are its terms."""
    return x * torch.tensor([1.0, 2.0, 4.0]) + torch.arange(3)


@pytest.mark.parametrize("key", ["feature_ablation", "feature_permutation"])
@pytest.mark.parametrize("mask", [torch.tensor(0), np.array(0)], ids=["torch", "numpy"])
def test_one_number_is_a_mask(key: str, mask: Any) -> None:
    """All of a sample is one feature."""
    own = {"feature_mask": mask}
    expected = by_hand(key, additive, {"inputs": X, "target": 2, "feature_mask": torch.tensor(0)})
    result = run(additive, key, own, inputs=X, target=2, defaults="toolset")
    np.testing.assert_array_equal(result.values, np.broadcast_to(expected, X.shape))
    if key == "feature_ablation":
        np.testing.assert_allclose(result.values, 4 * X[:, 2:].expand(2, 3), rtol=1e-6)


@pytest.mark.parametrize("key", ["feature_ablation", "shapley_values", "kernel_shap"])
def test_a_mask_may_lack_the_axis_of_the_samples(key: str) -> None:
    mask = torch.tensor([0, 1, 1])
    result = run(additive, key, {"feature_mask": mask}, inputs=X, target=2)
    np.testing.assert_array_equal(
        result.values, run(additive, key, {"feature_mask": mask[None]}, inputs=X, target=2).values
    )
    np.testing.assert_allclose(result.values[:, 1:], 4 * X[:, 2:].expand(2, 2), rtol=1e-4)


@pytest.mark.parametrize("target", [torch.tensor([1]), torch.tensor(1), np.array([1]), torch.tensor([[1]])])
def test_a_target_in_an_array_of_one_is_that_of_all_samples(target: Any) -> None:
    result = run(additive, "saliency", {}, inputs=X, target=target)
    np.testing.assert_array_equal(result.values, [[0, 2, 0]] * 2)


def test_a_list_of_one_target_is_still_one_for_one_sample() -> None:
    with pytest.raises(cfi.TargetError, match="1 targets for 2 samples"):
        run(additive, "saliency", {}, inputs=X, target=[1])


# the coefficients themselves


@pytest.mark.parametrize("key", ["lime", "kernel_shap"])
def test_coefficients_by_feature(key: str) -> None:
    mask = torch.tensor([[0, 1, 1]])
    own = {"feature_mask": mask, "return_input_shape": False, "n_samples": 40}
    expected = by_hand(key, additive, {"inputs": X, "target": 2, **own})
    result = run(additive, key, own, inputs=X, target=2, defaults="toolset")
    np.testing.assert_array_equal(result.values, expected)
    assert result.dims == ("sample", "feature") and result.values.shape == (2, 2)
    if key == "kernel_shap":
        np.testing.assert_allclose(result.values, [[0, 4 * 2.0], [0, 4 * -0.5]], atol=1e-3)


def test_coefficients_of_two_inputs_are_one_row() -> None:
    own = {"return_input_shape": False, "n_samples": 60}

    def both(first: Tensor, second: Tensor) -> Tensor:
        return first.sum(1) + 10 * second.sum(1)

    result = run(both, "kernel_shap", own, inputs=(X, X[:, :2]))
    np.testing.assert_allclose(result.values, torch.cat([X, 10 * X[:, :2]], 1), atol=1e-3)


# forward functions that return a number


@pytest.mark.parametrize("number", [float, lambda total: total, lambda total: total[None]], ids=["float", "0-d", "1-d"])
@pytest.mark.parametrize("key", ["feature_ablation", "shapley_values", "shapley_value_sampling", "lime", "kernel_shap"])
def test_a_number_for_a_sample(key: str, number: Any) -> None:
    def function(x: Tensor) -> Any:
        return number((x * torch.tensor([1.0, 2.0, 4.0])).sum())

    expected = by_hand(key, function, {"inputs": X[:1]})
    result = run(function, key, {}, inputs=X[:1], defaults="toolset")
    np.testing.assert_array_equal(result.values, expected)
    if "shap" in key or key == "feature_ablation":
        np.testing.assert_allclose(result.values, [[0.5, -2, 8]], atol=1e-3)


def test_a_number_for_several_samples_belongs_to_none_of_them() -> None:
    with pytest.raises(cfi.InputError, match="belongs to none of them"):
        run(lambda x: float(x.sum()), "feature_ablation", {}, inputs=X)


def test_inputs_of_other_numbers_of_samples_are_refused_with_what_to_do() -> None:
    """Values of all samples in one row have no sample that an attribution could belong to; held, they may be."""

    def bags(x: Tensor, items: Tensor, ends: Tensor) -> Tensor:
        sums = torch.cat([torch.zeros(1), items.cumsum(0)])[ends]
        return x.sum(1) * torch.diff(sums, prepend=torch.zeros(1))

    items, ends = torch.arange(1.0, 6.0), torch.tensor([2, 5])
    with pytest.raises(cfi.InputError, match="hold them"):
        run(bags, "feature_ablation", {}, inputs=(X, items, ends))
    result = run(bags, "feature_ablation", {"additional_forward_args": (items, ends)}, inputs=X)
    np.testing.assert_allclose(result.values, X * torch.tensor([[3.0], [12.0]]), rtol=1e-6)


# several units as one


@pytest.mark.parametrize("selector", [(slice(1, 3),), slice(1, 3), (slice(None, None, 2),)])
@pytest.mark.parametrize("key", ["neuron_gradient", "neuron_integrated_gradients", "neuron_feature_ablation"])
def test_a_slice_sums_its_units(model: Scaled, key: str, selector: Any) -> None:
    own = {"additional_forward_args": FACTOR}
    result = run(model, key, own, inputs=X, layer="first", neuron=selector, defaults="toolset")
    alone = selector if isinstance(selector, tuple) else (selector,)
    expected = by_hand(key, model, {"inputs": X, "neuron_selector": alone, **own}, model.first)
    np.testing.assert_array_equal(result.values, expected)
    if key == "neuron_gradient":
        units = model.first.weight.detach()[alone[0]].sum(0)
        np.testing.assert_allclose(result.values, units.expand(2, 3), rtol=1e-6)


@pytest.mark.parametrize("selector", [slice(4, 9), slice(0, 4, 0), slice("a"), (slice(0, 1), 0), slice(True)])
def test_a_slice_that_selects_nothing(model: Scaled, selector: Any) -> None:
    with pytest.raises(cfi.ArgumentError, match="neuron="):
        run(model, "neuron_gradient", {"additional_forward_args": FACTOR}, inputs=X, layer="first", neuron=selector)


def test_what_is_no_baseline_stays_refused() -> None:
    with pytest.raises(CFIError):
        run(additive, "integrated_gradients", {"baselines": "zero"}, inputs=X, target=1)
    with pytest.warns(ModelWarning, match="zero everywhere"):
        run(additive, "integrated_gradients", {"baselines": X}, inputs=X, target=1)
