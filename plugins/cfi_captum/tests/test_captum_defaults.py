"""`defaults="toolset"` against captum called by hand, to the last bit; `defaults="raw"` beside it."""

from __future__ import annotations

import random
import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum_models import IMAGE, SmallCNN, images
from torch import Tensor, nn

import cfi_core as cfi
from cfi_captum.table import FAULTY_RULES, METHODS, WORKAROUNDS, Rule
from cfi_core.errors import ModelWarning
from cfi_core.specs import DEFAULTS

SEED = 3
TARGET = [1, 4, 0, 2]
QUADRANTS = torch.arange(4).reshape(1, 1, 2, 2).repeat_interleave(5, 2).repeat_interleave(7, 3).repeat(1, 3, 1, 1)

# What captum cannot do without, and masks where all pixels one by one would take minutes.
EXEC: dict[str, dict[str, Any]] = {
    "occlusion": {"sliding_window_shapes": (3, 5, 7)},
    "feature_ablation": {"feature_mask": QUADRANTS},
    "feature_permutation": {"feature_mask": QUADRANTS},
    "shapley_value_sampling": {"feature_mask": QUADRANTS},
    "shapley_values": {"feature_mask": QUADRANTS},
    "lime": {"feature_mask": QUADRANTS},
    "kernel_shap": {"feature_mask": QUADRANTS},
    "neuron_feature_ablation": {"feature_mask": QUADRANTS},
}
RANDOM = {
    "feature_permutation",
    "gradient_shap",
    "kernel_shap",
    "layer_feature_permutation",
    "layer_gradient_shap",
    "lime",
    "neuron_gradient_shap",
    "noise_tunnel",
    "shapley_value_sampling",
}


class Chosen(nn.Module):
    """The model with its target inside, for the class of captum that fails on one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)[torch.arange(len(x)), TARGET]


def small(*, softmax: bool) -> SmallCNN:
    """Its rectifier directly before a max pooling is where captum's rules are wrong."""
    return SmallCNN(flatten_by_function=True, softmax=softmax).eval()


def pictures() -> Tensor:
    """Four, so that they can be permuted in several ways; large, so that LIME's Lasso leaves something."""
    return 8 * images(4)


def arguments(key: str, model: SmallCNN) -> dict[str, Any]:
    """What a user of CFI passes besides inputs."""
    method, given = METHODS[key], dict[str, Any]()
    if "layer" in method.init_args:
        given["layer"] = model.conv2
    if "neuron_selector" in method.exec_args:
        given["neuron"] = (5, 1, 2)
    if "target" in method.exec_args or key == "noise_tunnel":
        given["target"] = TARGET
    if method.baseline_distribution:
        given["baselines"] = torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, *IMAGE)
    return given


def seed_all() -> None:
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # GradientShap draws from it
    random.seed(SEED)


def by_hand(key: str, model: SmallCNN, x: Tensor) -> Tensor:
    """As captum's documentation shows: the constructor takes the model and the layer, the call the rest."""
    given = arguments(key, model)
    call = {**EXEC.get(key, {})}
    for name, word in (("target", "target"), ("neuron", "neuron_selector"), ("baselines", "baselines")):
        if name in given:
            call[word] = given[name]
    explained: nn.Module = model
    if key == "layer_feature_permutation":
        explained = Chosen(model)
        del call["target"]
    seed_all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if key == "noise_tunnel":
            explainer = captum.attr.NoiseTunnel(captum.attr.Saliency(explained))
        else:
            layer = [given["layer"]] if "layer" in given else []
            explainer = getattr(captum.attr, METHODS[key].captum_class)(explained, *layer)
        return explainer.attribute(x.clone(), **call).detach()  # type: ignore[no-any-return]


def by_cfi(key: str, model: SmallCNN, x: Tensor, **more: Any) -> tuple[cfi.Attribution, list[str]]:
    """The attribution, and what CFI warned of."""
    given = {"exec_args": EXEC.get(key, {}), "seed": SEED, **arguments(key, model), **more}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = cfi.attribute(model, key, "captum", inputs=x, **given)
    assert isinstance(result, cfi.Attribution)
    return result, [str(warning.message) for warning in caught if issubclass(warning.category, ModelWarning)]


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "softmax"])
@pytest.mark.parametrize("key", METHODS)
def test_what_users_of_captum_get(key: str, softmax: bool) -> None:
    model, x = small(softmax=softmax), pictures()
    if softmax and METHODS[key].rule is Rule.RELEVANCE:
        with pytest.raises(TypeError, match="Softmax"):
            by_hand(key, model, x)
        with pytest.raises(cfi.MethodError, match="Softmax"):
            by_cfi(key, model, x, defaults="toolset")
        return
    expected = by_hand(key, model, x).numpy()
    result, _ = by_cfi(key, model, x, defaults="toolset")
    if key == "grad_cam":
        assert result.dims == ("sample", "height", "width")  # captum keeps a channel axis of length one
        expected = expected.squeeze(1)
    assert expected.any()
    np.testing.assert_array_equal(result.values, expected)
    assert result.values.dtype == expected.dtype
    assert result.provenance["defaults"] == "toolset"
    assert "logit" not in result.provenance["explained"]


@pytest.mark.parametrize("key", sorted(RANDOM))
def test_other_seeds_give_other_values(key: str) -> None:
    """Or the equality above would show nothing about the random numbers."""
    model, x = small(softmax=False), pictures()
    values = [by_cfi(key, model, x, defaults="toolset", seed=seed)[0].values for seed in (SEED, SEED + 1)]
    assert not np.array_equal(*values)


@pytest.mark.parametrize("key", [key for key in METHODS if METHODS[key].rule in FAULTY_RULES])
def test_faults_of_captum_are_its_users_and_are_told(key: str) -> None:
    model, x = small(softmax=False), pictures()
    captums, told = by_cfi(key, model, x, defaults="toolset")
    right, untold = by_cfi(key, model, x)
    mended, _ = by_cfi(key, model, x, defaults="toolset", init_args={WORKAROUNDS: True})
    np.testing.assert_array_equal(mended.values, right.values)
    differ = not np.allclose(captums.values, right.values, rtol=1e-4, atol=1e-3 * np.abs(right.values).max())
    assert bool(told) == differ
    assert not untold
    assert captums.provenance["applied"][WORKAROUNDS] is False
    assert right.provenance["applied"][WORKAROUNDS] is True


class Around(nn.Module):
    """A skip connection around the rectifier, from the very tensor that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return 2 * self.relu(x) - x


@pytest.mark.parametrize(
    ("key", "explainer"),
    [
        ("deep_lift", captum.attr.DeepLift),
        ("guided_backprop", captum.attr.GuidedBackprop),
        ("deconvolution", captum.attr.Deconvolution),
    ],
)
def test_a_model_that_shows_the_faults(key: str, explainer: Any) -> None:
    model, x = Around().eval(), torch.randn(4, 3)
    with pytest.warns(cfi.CFIWarning) as caught:
        result = cfi.attribute(model, key, "captum", inputs=x, target=1, defaults="toolset")
    assert "captum's own values differ" in str(caught[0].message)
    # What DeepLIFT promises is missed, too; the other two promise nothing.
    kinds = [ModelWarning, cfi.CompletenessWarning] if key == "deep_lift" else [ModelWarning]
    assert [warning.category for warning in caught] == kinds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = explainer(model).attribute(x.clone(), target=1).detach().numpy()
    assert isinstance(result, cfi.Attribution)
    np.testing.assert_array_equal(result.values, expected)


def test_explicit_arguments_win() -> None:
    model, x = small(softmax=True), pictures()
    signed, _ = by_cfi("saliency", model, x, defaults="toolset", exec_args={"abs": False})
    expected = captum.attr.Saliency(model).attribute(x.clone().requires_grad_(), target=TARGET, abs=False)
    np.testing.assert_array_equal(signed.values, expected.numpy())
    assert signed.provenance["applied"]["abs"] is False
    absolute, _ = by_cfi("saliency", model, x, defaults="toolset", head="logit")
    raw, _ = by_cfi("saliency", model, x)
    np.testing.assert_array_equal(absolute.values, np.abs(raw.values))
    assert "logit" in raw.provenance["explained"] and "logit" in absolute.provenance["explained"]
    assert raw.provenance["defaults"] == "raw"


@pytest.mark.parametrize("key", ["integrated_gradients", "deep_lift", "grad_cam", "lrp"])
def test_a_tunnel_has_the_defaults_of_what_it_wraps(key: str) -> None:
    model, x = small(softmax=False), pictures()
    given = {"target": TARGET, "init_args": {"method": key}, "exec_args": {"nt_samples": 2}}
    if key == "grad_cam":
        given["layer"] = model.conv2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cfi.attribute(model, "noise_tunnel", inputs=x, seed=SEED, defaults="toolset", **given)
        seed_all()
        layer = [model.conv2] if key == "grad_cam" else []
        explainer = getattr(captum.attr, METHODS[key].captum_class)(model, *layer)
        expected = captum.attr.NoiseTunnel(explainer).attribute(x.clone(), target=TARGET, nt_samples=2).detach().numpy()
    assert isinstance(result, cfi.Attribution)
    np.testing.assert_array_equal(result.values, expected.squeeze(1) if key == "grad_cam" else expected)


def test_the_plan_tells_the_defaults_and_the_head() -> None:
    model, x = small(softmax=True), pictures()
    call: dict[str, Any] = {"inputs": x, "target": 1}
    plans = {which: str(cfi.plan(model, "saliency", "captum", defaults=which, **call)) for which in DEFAULTS}
    assert "defaults  raw: abs=False" in plans["raw"] and "its logit" in plans["raw"]
    assert "defaults  toolset: abs=True" in plans["toolset"] and "its output" in plans["toolset"]


def test_a_set_that_there_is_not() -> None:
    with pytest.raises(cfi.ArgumentError, match="neither 'raw' nor 'toolset'"):
        cfi.attribute(small(softmax=False), "saliency", "captum", inputs=pictures(), target=1, defaults="captum")
