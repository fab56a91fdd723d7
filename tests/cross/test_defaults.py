"""Across frameworks, `defaults="toolset"` gives what the toolset's users get of the same network in its framework."""

from __future__ import annotations

from typing import Any

import captum.attr
import keras
import numpy as np
import pytest
import torch
from shared_cnn import CHANNELS, HEIGHT, WIDTH, Twins, apart, to_first, to_last
from torch import nn

import cfi_core as cfi
from cfi_tfkerasvis.workarounds import CategoricalScore, Gradcam, GradcamPlusPlus, Layercam, Saliency, Scorecam

TARGET = [1, 3]
SEED = 5
# Of a normalised map, a rounding error of its range shows everywhere.
TOLERANCE = 1e-4
CAMS = {"grad_cam": Gradcam, "grad_cam_plus_plus": GradcamPlusPlus, "layer_cam": Layercam, "score_cam": Scorecam}

pytestmark = pytest.mark.filterwarnings(
    "ignore:The structure of `inputs`:UserWarning", "ignore:tf-keras-vis's Score-CAM applies a softmax:UserWarning"
)


@pytest.fixture(params=["logits", "softmax"])
def pair(request: pytest.FixtureRequest, twins: Twins, softmax_twins: Twins) -> Twins:
    return twins if request.param == "logits" else softmax_twins


@pytest.mark.parametrize("key", ["saliency", "smooth_grad", *CAMS])
@pytest.mark.parametrize("kind", ["bridge", "conversion"])
def test_a_torch_model_as_users_of_tf_keras_vis_see_it(pair: Twins, key: str, kind: str) -> None:
    arguments: dict[str, Any] = {"layer": "conv2"} if key in CAMS else {}
    result = cfi.attribute(
        pair.torch_model,
        key,
        "tf-keras-vis",
        inputs=pair.first,
        target=TARGET,
        seed=SEED,
        translator=kind,
        defaults="toolset",
        **arguments,
    )
    np.random.seed(SEED)
    if key in CAMS:
        expected = CAMS[key](pair.keras_model)(CategoricalScore(TARGET), pair.last, "conv2")
    else:
        smoothing = {"smooth_samples": 20} if key == "smooth_grad" else {}
        expected = Saliency(pair.keras_model)(CategoricalScore(TARGET), pair.last, **smoothing)
    assert result.dims == ("sample", "height", "width")
    assert result.values.shape == (2, HEIGHT, WIDTH)
    assert apart(expected, result.values) <= TOLERANCE
    assert "logit" not in result.provenance["explained"]
    assert result.certificate.faithful


CAPTUM: dict[str, dict[str, Any]] = {
    "saliency": {},
    "integrated_gradients": {},
    "gradient_shap": {"baselines": np.random.default_rng(1).normal(size=(3, CHANNELS, HEIGHT, WIDTH)).astype("f4")},
    "deep_lift": {"baselines": np.random.default_rng(2).normal(size=(1, CHANNELS, HEIGHT, WIDTH)).astype("f4")},
    "noise_tunnel": {},
}


@pytest.mark.filterwarnings("ignore:'deep_lift'. on this model, captum's own values differ:UserWarning")
@pytest.mark.filterwarnings("ignore:The values of deep_lift .captum. do not add up:UserWarning")
@pytest.mark.parametrize("key", CAPTUM)
def test_a_keras_model_as_users_of_captum_see_it(pair: Twins, key: str) -> None:
    result = cfi.attribute(
        pair.keras_model,
        key,
        "captum",
        inputs=pair.last,
        target=TARGET,
        seed=SEED,
        defaults="toolset",
        **{name: to_last(value) for name, value in CAPTUM[key].items()},
    )
    tool = captum.attr.NoiseTunnel(captum.attr.Saliency(pair.torch_model)) if key == "noise_tunnel" else None
    classes = {
        "saliency": captum.attr.Saliency,
        "integrated_gradients": captum.attr.IntegratedGradients,
        "gradient_shap": captum.attr.GradientShap,
        "deep_lift": captum.attr.DeepLift,
    }
    explainer = tool or classes[key](pair.torch_model)
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    baselines = {name: torch.tensor(value) for name, value in CAPTUM[key].items()}
    expected = explainer.attribute(torch.tensor(pair.first), target=TARGET, **baselines)
    assert result.dims == ("sample", "height", "width", "channel")
    assert apart(expected.detach().numpy(), to_first(result.values)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["bridge", "conversion"])
def test_features_of_a_torch_model_with_the_toolsets_modifiers_and_regularizers(twins: Twins, kind: str) -> None:
    # Plain gradient ascent: the library's RMSprop divides by the gradient and blows rounding up to whole steps.
    start = np.random.default_rng(9).uniform(90, 160, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    options = {"steps": 10, "optimizer": keras.optimizers.SGD(0.05)}
    arguments: dict[str, Any] = {"target": 2, "exec_args": options, "defaults": "toolset", "seed": SEED}
    crossed = cfi.visualize_features(twins.torch_model, inputs=start, translator=kind, **arguments)
    native = cfi.visualize_features(twins.keras_model, inputs=to_last(start), **arguments)
    assert crossed.provenance["applied"]["regularizers"].keys() != {}
    assert apart(crossed.values, to_first(native.values)) <= TOLERANCE


def test_both_toolsets_differ_by_the_settings_that_their_sets_name(twins: Twins) -> None:
    """What a comparison finds: raw, they agree; with their own defaults, the sets say what is done to the values."""
    values = {
        (toolset, which): cfi.attribute(
            twins.torch_model, "saliency", toolset, inputs=twins.first, target=TARGET, defaults=which
        ).values
        for toolset in ("captum", "tf-keras-vis")
        for which in ("raw", "toolset")
    }
    raw = values["captum", "raw"]
    assert apart(raw, values["tf-keras-vis", "raw"]) <= 1e-5
    np.testing.assert_array_equal(values["captum", "toolset"], np.abs(raw))
    largest = np.abs(raw).max(axis=1)
    low, high = largest.min(axis=(1, 2), keepdims=True), largest.max(axis=(1, 2), keepdims=True)
    assert apart((largest - low) / (high - low), values["tf-keras-vis", "toolset"]) <= TOLERANCE
    names = {spec.toolset: {**spec.defaults.toolset} for spec in cfi.methods("saliency")}
    assert names["captum"] == {"abs": True}
    assert names["tf-keras-vis"].keys() == {"keepdims", "gradient_modifier", "normalize_map"}


class Turned(nn.Module):
    """Its rectifier works on images whose height and width have changed places."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * height * width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv(x).transpose(2, 3)).flatten(1))


def explain_turned(model: nn.Module, images: np.ndarray, **arguments: Any) -> cfi.Attribution:
    own = {"seek_penultimate_conv_layer": False}
    return cfi.attribute(
        model, "layer_cam", "tf-keras-vis", inputs=images, target=1, layer="relu", exec_args=own, **arguments
    )


@pytest.mark.parametrize("translator", ["conversion", "bridge"])
@pytest.mark.parametrize("sizes", [(HEIGHT, WIDTH), (HEIGHT, HEIGHT)])
def test_a_map_along_axes_in_another_order(translator: str, sizes: tuple[int, int]) -> None:
    """The layer's own map is in the layer's order; stretched over the image it would lie wrongly."""
    images = np.random.default_rng(0).normal(size=(2, CHANNELS, *sizes)).astype(np.float32)
    model = Turned(*sizes).eval()
    inner = model.relu(model.conv(torch.tensor(images)).transpose(2, 3)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.fc(inner.flatten(1))[:, 1].sum(), inner)
    by_hand = (gradient.relu() * inner).sum(1).relu().detach().numpy()
    found = explain_turned(model, images, translator=translator)
    assert found.values.shape == by_hand.shape == (2, *sizes[::-1])
    np.testing.assert_allclose(found.values, by_hand, atol=1e-5 * by_hand.max())
    with pytest.raises(cfi.MethodError, match="'relu' holds the axes of your image in another order"):
        explain_turned(model, images, translator=translator, defaults="toolset")


@pytest.mark.filterwarnings("ignore:tf-keras-vis explains the convolution:UserWarning")
def test_a_layer_that_is_sought_is_one_of_the_users(twins: Twins) -> None:
    arguments: dict[str, Any] = {"target": TARGET, "defaults": "toolset", "exec_args": {"expand_cam": False}}
    native = cfi.attribute(
        twins.keras_model, "layer_cam", "tf-keras-vis", inputs=twins.last, layer="relu2", **arguments
    )
    crossed = cfi.attribute(
        twins.torch_model,
        "layer_cam",
        "tf-keras-vis",
        inputs=twins.first,
        layer="relu2",
        translator="conversion",
        **arguments,
    )
    assert native.layer == crossed.layer == "conv2"
    assert apart(native.values, crossed.values) <= TOLERANCE
    # Over a bridge the model has no convolution of Keras: the layer is the one that is named.
    bridged = cfi.attribute(
        twins.torch_model,
        "layer_cam",
        "tf-keras-vis",
        inputs=twins.first,
        layer="relu2",
        translator="bridge",
        **arguments,
    )
    assert bridged.layer == "relu2"
