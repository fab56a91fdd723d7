"""Layers of tokens come home as maps, right at every place, from models of every framework in every toolset."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import FEATURES, HEIGHT, IMAGE, PLACES, WIDTH, Planted, Windows, images, keras_planted
from shared_cnn import apart
from torch import nn

import cfi_core as cfi

TOOLSETS = ["captum", "torchray", "tf-keras-vis", "tf-explain"]
ORDERS = {
    "row by row": None,
    "by columns": np.arange(PLACES).reshape(HEIGHT, WIDTH).T.ravel(),
    "shuffled": np.random.default_rng(3).permutation(PLACES),
}

pytestmark = pytest.mark.filterwarnings("ignore:TorchRay is licensed")


def grad_cam_by_hand(model: nn.Module, layer: nn.Module, to_map: Any, target: int = 0) -> np.ndarray:
    """As with a `reshape_transform`: activations and gradients are reshaped, then Grad-CAM is that of a CNN."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    score = model(torch.tensor(images()).requires_grad_())[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, seen[0])
    activation, gradient = to_map(seen[0].detach()), to_map(gradient)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * activation).sum(1).numpy()


def peaks(values: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(at) for at in np.unravel_index(one.argmax(), one.shape)) for one in values]


@pytest.mark.parametrize("toolset", TOOLSETS)
@pytest.mark.parametrize(("front", "behind"), [(1, 0), (0, 0), (0, 2)])
@pytest.mark.parametrize("order", ORDERS)
def test_grad_cam_is_largest_where_the_planted_patch_is(toolset, order, front, behind):
    patch = (2, 1)
    model = Planted(patch[0] * WIDTH + patch[1], ORDERS[order], front, behind).eval()
    result = cfi.attribute(model, "grad_cam", toolset, inputs=images(), target=0, layer="gain")
    assert result.dims == ("sample", "height", "width") and result.values.shape == (2, HEIGHT, WIDTH)
    assert peaks(result.values) == [patch, patch]
    places = torch.tensor(front + np.argsort(model.order))
    expected = grad_cam_by_hand(
        model, model.gain, lambda one: one[:, places].reshape(2, HEIGHT, WIDTH, FEATURES).permute(0, 3, 1, 2)
    )
    assert apart(expected, result.values) < 1e-5
    grid = result.provenance["grid"]["gain"]
    assert grid["size"] == (HEIGHT, WIDTH) and grid["found"].startswith("confirmed: ")
    assert ("prefix_tokens" in result.extras) is bool(front + behind)
    if front + behind:
        assert result.extras["prefix_tokens"].shape == (2, front + behind)


@pytest.mark.parametrize("patch", [(0, 0), (0, 4), (2, 1)])
@pytest.mark.parametrize("key", ["layer_cam", "grad_cam_plus_plus"])
def test_the_other_maps_of_tf_keras_vis(key, patch):
    model = Planted(patch[0] * WIDTH + patch[1]).eval()
    result = cfi.attribute(model, key, "tf-keras-vis", inputs=images(), target=0, layer="gain")
    assert peaks(result.values) == [patch, patch]
    stretched = cfi.attribute(
        model, key, "tf-keras-vis", inputs=images(), target=0, layer="gain", exec_args={"expand_cam": True}
    )
    assert stretched.dims == ("sample", "height", "width") and stretched.values.shape == (2, *IMAGE[1:])
    for at in peaks(stretched.values):
        assert [int(place) * 1 // 4 for place in at] == list(patch)


def test_score_cam_masks_the_image_with_maps():
    model = Planted(7).eval()
    result = cfi.attribute(model, "score_cam", "tf-keras-vis", inputs=images(), target=0, layer="gain")
    assert result.dims == ("sample", "height", "width") and result.values.shape == (2, HEIGHT, WIDTH)
    assert "no part" in (said := result.provenance["grid"]["gain"]["prefix_tokens"]) or "not part" in said


def test_captum_stretches_a_map_of_tokens_over_the_image():
    model = Planted(WIDTH + 3).eval()
    result = cfi.attribute(
        model, "grad_cam", "captum", inputs=images(), target=0, layer="gain", exec_args={"upsample": "bilinear"}
    )
    assert result.dims == ("sample", "height", "width") and result.values.shape == (2, *IMAGE[1:])
    assert [(row // 4, column // 4) for row, column in peaks(result.values)] == [(1, 3), (1, 3)]


@pytest.mark.parametrize("toolset", TOOLSETS)
@pytest.mark.parametrize("order", ["row by row", "shuffled"])
def test_keras_models_of_tokens(toolset, order):
    patch = 2 * WIDTH + 1
    theirs = keras_planted(patch, ORDERS[order])
    ours = Planted(patch, ORDERS[order]).eval()
    result = cfi.attribute(theirs, "grad_cam", toolset, inputs=images().transpose(0, 2, 3, 1), target=0, layer="gain")
    assert result.dims == ("sample", "height", "width") and peaks(result.values) == [(2, 1), (2, 1)]
    expected = cfi.attribute(ours, "grad_cam", "captum", inputs=images(), target=0, layer="gain")
    assert apart(expected.values, result.values) < 1e-5
    np.testing.assert_array_equal(result.extras["prefix_tokens"], 0)  # nothing of the class depends on that token


@pytest.mark.parametrize(("toolset", "route"), [("captum", "bridge-to-torch"), ("tf-keras-vis", "bridge-to-keras")])
def test_flax_models_of_tokens(toolset, route):
    jax = pytest.importorskip("jax")
    from flax import linen
    from planted import GAIN, PATCH, extra, kernel

    gain = np.ones((1, PLACES + 1, 1), np.float32)
    gain[:, 1 + 2 * WIDTH + 1] = GAIN

    class Gain(linen.Module):
        @linen.compact
        def __call__(self, tokens: Any) -> Any:
            return tokens * gain

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            tokens = linen.Conv(FEATURES, (PATCH, PATCH), (PATCH, PATCH), use_bias=False, name="embed")(x)
            tokens = tokens.reshape(len(x), PLACES, FEATURES)
            tokens = jax.numpy.concatenate([jax.numpy.repeat(extra(1), len(x), 0), tokens], 1)
            tokens = Gain(name="gain")(tokens)
            one = tokens[:, 1 + 2 * WIDTH + 1]
            return jax.numpy.stack([(one * one).sum(-1) / 2, tokens.mean((1, 2))], 1)

    variables = {"params": {"embed": {"kernel": kernel().transpose(2, 3, 1, 0)}}}
    model = Model().bind(variables)
    result = cfi.attribute(model, "grad_cam", toolset, inputs=images().transpose(0, 2, 3, 1), target=0, layer="gain")
    assert result.route == (route,) and peaks(result.values) == [(2, 1), (2, 1)]
    ours = Planted(2 * WIDTH + 1).eval()
    expected = cfi.attribute(ours, "grad_cam", "captum", inputs=images(), target=0, layer="gain")
    assert apart(expected.values, result.values) < 1e-5


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "planted.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Planted(2 * WIDTH + 1, front=0).eval(),
            (torch.tensor(images()),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            dynamic_axes={"image": {0: "n"}},
        )
    return path


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_onnx_models_of_tokens(onnx_file, toolset):
    native = Planted(2 * WIDTH + 1, front=0).eval()
    expected = cfi.attribute(native, "grad_cam", "captum", inputs=images(), target=0, layer="tokens")
    (layer,) = [one.name for one in cfi.layers(str(onnx_file)) if one.name.startswith("/tokens/")]
    result = cfi.attribute(str(onnx_file), "grad_cam", toolset, inputs=images(), target=0, layer=layer)
    assert result.dims == ("sample", "height", "width") and apart(expected.values, result.values) < 1e-4
    read = cfi.attribute(str(onnx_file), "layer_activation", "captum", inputs=images(), layer=layer)
    assert read.dims == ("sample", "height", "width", "channel") and read.values.shape == (2, HEIGHT, WIDTH, FEATURES)


@pytest.mark.filterwarnings("ignore::cfi_core.TranslationWarning")
@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_conversions_of_models_of_tokens(toolset):
    model = Planted(WIDTH + 3).eval()
    native = cfi.attribute(model, "grad_cam", "captum", inputs=images(), target=0, layer="gain")
    translator = {"captum": None, "tf-keras-vis": "conversion"}[toolset]
    result = cfi.attribute(model, "grad_cam", toolset, inputs=images(), target=0, layer="gain", translator=translator)
    assert peaks(result.values) == [(1, 3), (1, 3)] and apart(native.values, result.values) < 1e-4


# windows and channels last


@pytest.mark.parametrize("toolset", ["captum", "torchray", "tf-keras-vis"])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2)])
@pytest.mark.parametrize("patch", [(0, 4), (2, 1)])
def test_windows_are_put_back_where_they_were_cut(toolset, shift, patch):
    model = Windows(patch, shift=shift).eval()
    result = cfi.attribute(model, "grad_cam", toolset, inputs=images(), target=0, layer="inside")
    assert result.dims == ("sample", "height", "width") and peaks(result.values) == [patch, patch]
    read = cfi.attribute(model, "layer_activation", "captum", inputs=images(), layer="inside")
    whole = cfi.attribute(model, "layer_activation", "captum", inputs=images(), layer="last")
    assert whole.dims == read.dims == ("sample", "height", "width", "channel")
    np.testing.assert_allclose(read.values, whole.values, atol=1e-5)


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_maps_with_channels_last(toolset):
    model = Windows((2, 1)).eval()
    result = cfi.attribute(model, "grad_cam", toolset, inputs=images(), target=0, layer="last")
    assert result.dims == ("sample", "height", "width") and peaks(result.values) == [(2, 1), (2, 1)]
    expected = grad_cam_by_hand(model, model.last, lambda one: one.permute(0, 3, 1, 2))
    assert apart(expected, result.values) < 1e-5


# layer methods that keep channels


KEEPING = ["layer_activation", "layer_gradient_x_activation", "internal_influence", "layer_integrated_gradients"]


@pytest.mark.parametrize("key", KEEPING)
@pytest.mark.parametrize("order", ["row by row", "shuffled"])
def test_values_by_channel_lie_on_the_grid_and_nothing_is_lost(key, order):
    model = Planted(2 * WIDTH + 1, ORDERS[order]).eval()
    arguments: dict[str, Any] = {"inputs": images(), "layer": "gain"}
    if key != "layer_activation":
        arguments["target"] = 0
    result = cfi.attribute(model, key, "captum", **arguments)
    plain = cfi.attribute(model, key, "captum", reshape=False, **arguments)
    assert plain.dims == ("sample", "position", "channel") and "prefix_tokens" not in plain.extras
    assert result.dims == ("sample", "height", "width", "channel")
    places = 1 + np.argsort(model.order)
    np.testing.assert_array_equal(result.values, plain.values[:, places].reshape(2, HEIGHT, WIDTH, FEATURES))
    np.testing.assert_array_equal(result.extras["prefix_tokens"], plain.values[:, :1])
    assert result.provenance["completeness"] == plain.provenance["completeness"]


def test_relevance_at_a_layer_of_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, FEATURES, 4, 4),
        nn.Flatten(2),
        Turn(),
        nn.Linear(FEATURES, FEATURES),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(FEATURES * PLACES, 2),
    ).eval()
    result = cfi.attribute(model, "lrp_epsilon_plus", "zennit", inputs=images(), target=0, layer="3")
    assert result.dims == ("sample", "height", "width", "channel")
    plain = cfi.attribute(model, "lrp_epsilon_plus", "zennit", inputs=images(), target=0, layer="3", reshape=False)
    np.testing.assert_array_equal(result.values, plain.values.reshape(2, HEIGHT, WIDTH, FEATURES))


class Turn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


# what the user says


@pytest.mark.parametrize(
    "reshape",
    [
        ("class", HEIGHT, WIDTH),
        lambda tokens: tokens[:, 1:].reshape(len(tokens), HEIGHT, WIDTH, -1).permute(0, 3, 1, 2),
        lambda tokens: tokens[:, 1:].reshape(len(tokens), HEIGHT, WIDTH, -1),
    ],
)
@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_a_described_grid_is_the_found_one(reshape, toolset):
    model = Planted(WIDTH + 3).eval()
    arguments: dict[str, Any] = {"inputs": images(), "target": 0, "layer": "gain"}
    found = cfi.attribute(model, "grad_cam", toolset, **arguments)
    said = cfi.attribute(model, "grad_cam", toolset, reshape=reshape, **arguments)
    np.testing.assert_array_equal(found.values, said.values)
    assert "reshape=" in said.provenance["grid"]["gain"]["found"]


def test_where_no_grid_is_confirmed_tokens_stay_tokens_and_that_is_told():
    class Mixed(Planted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            mixed = tokens.mean(1, keepdim=True) + self.extra[:, :1] * torch.arange(PLACES + 1)[:, None]
            return (self.gain(mixed)[:, 1:] ** 2).sum(2)[:, :2]

    model = Mixed(0).eval()
    with pytest.warns(cfi.ModelWarning, match="makes no map at layer 'gain'.*layer='auto'.*reshape="):
        result = cfi.attribute(model, "grad_cam", "captum", inputs=images(), target=0, layer="gain")
    assert result.dims == ("sample", "position") and result.values.shape == (2, PLACES + 1)
    said = cfi.attribute(
        model, "grad_cam", "captum", inputs=images(), target=0, layer="gain", reshape=("class", HEIGHT, WIDTH)
    )
    assert said.dims == ("sample", "height", "width")


def test_reshape_has_no_meaning_for_a_method_of_inputs():
    with pytest.raises(cfi.ArgumentError, match="gives no values of one"):
        cfi.attribute(Planted(0).eval(), "saliency", "captum", inputs=images(), target=0, reshape=(3, 5))


def test_sequences_are_maps_of_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(42, 3)).eval()
    rows = torch.randn(2, 7, 4)
    result = cfi.attribute(model, "grad_cam", "captum", inputs=rows, target=1, layer="1")
    assert result.dims == ("sample", "position") and result.values.shape == (2, 7)
    seen = model[1](model[0](rows)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[3](model[2](seen))[:, 1].sum(), seen)
    expected = (gradient.mean(1, keepdim=True) * seen).sum(-1).detach().numpy()
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-6)
