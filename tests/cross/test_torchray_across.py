"""TorchRay on a CNN whose weights a torch and a Keras model share, and beside the toolsets that share methods."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from shared_cnn import CHANNELS, HEIGHT, WIDTH, Twins, apart, to_first, to_last

import cfi_core as cfi
from cfi_core.specs import Need
from cfi_torchray import pointing_game

TARGET = [1, 3]
TORCHRAY: dict[str, dict[str, Any]] = {
    "saliency": {},
    "deconvolution": {},
    "guided_backprop": {},
    "linear_approx": {},
    "grad_cam": {"layer": "relu2"},
    "excitation_backprop": {"layer": "relu1"},  # the inputs are negative in part
    "contrastive_excitation_backprop": {"layer": "relu1", "exec_args": {"contrast_layer": "pool1"}},
    "rise": {"exec_args": {"num_masks": 40}},
    "extremal_perturbation": {"exec_args": {"max_iter": 20, "step": 3, "sigma": 5}},
}
AT_LAYERS: dict[str, dict[str, Any]] = {
    "saliency": {"layer": "conv2"},
    "linear_approx": {"layer": "conv2", "exec_args": {"resize": True}},
    "guided_backprop": {"layer": "conv2"},
    "deconvolution": {"layer": "pool1", "exec_args": {"gradient_to_saliency": "norm"}},
}
CASES = [
    (key, arguments, kind)
    for calls in (TORCHRAY, AT_LAYERS)
    for key, arguments in calls.items()
    for kind in ("bridge", "conversion")
]

pytestmark = pytest.mark.filterwarnings("ignore:TorchRay is licensed")


def needs_modules(key: str) -> bool:
    return any(Need.MODULES in method.needs for method in cfi.methods(key, toolset="torchray"))


@pytest.mark.parametrize(("key", "arguments", "kind"), CASES)
def test_both_models_give_the_same(twins: Twins, key: str, arguments: dict[str, Any], kind: str) -> None:
    call = {"target": TARGET, "seed": 5, **arguments}
    if kind == "bridge" and needs_modules(key):
        with pytest.raises(cfi.RouteError):
            cfi.attribute(twins.keras_model, key, "torchray", inputs=twins.last, translator=kind, **call)
        return
    native = cfi.attribute(twins.torch_model, key, "torchray", inputs=twins.first, **call)
    crossed = cfi.attribute(twins.keras_model, key, "torchray", inputs=twins.last, translator=kind, **call)
    assert crossed.route == (("bridge-to-torch",) if kind == "bridge" else ("keras-torch",))
    channels = "channel" in native.dims
    assert crossed.dims == (("sample", "height", "width", "channel") if channels else native.dims)
    values = to_first(crossed.values) if channels else crossed.values
    # The masks of extremal perturbation are the end of twenty steps, each of which sorts: rounding moves them.
    assert apart(native.values, values) <= (1e-3 if key == "extremal_perturbation" else 1e-5)


@pytest.mark.parametrize("key", ["saliency", "guided_backprop", "deconvolution", "grad_cam"])
def test_toolsets_that_share_a_method_agree(twins: Twins, key: str) -> None:
    arguments = {"inputs": twins.first, "target": TARGET, **TORCHRAY[key]}
    for toolset in ("captum", "tf-keras-vis"):
        if cfi.methods(key, toolset=toolset):
            other = cfi.attribute(twins.torch_model, key, toolset, **arguments)
            ours = cfi.attribute(twins.torch_model, key, "torchray", **arguments)
            assert apart(ours.values, other.values) <= 1e-5, toolset


def test_the_pointing_game_of_a_keras_model_comes_as_xarray(twins: Twins) -> None:
    regions = [np.ones((14, 20), bool), np.eye(14, 20, dtype=bool)]
    explanations = {
        "tf-keras-vis": {"method_key": "grad_cam", "toolset": "tf-keras-vis", "layer": "relu2"},
        "torchray": {"method_key": "grad_cam", "toolset": "torchray", "layer": "relu2"},
    }
    game = pointing_game(explanations, regions, [1, 3], model=twins.keras_model, inputs=twins.last, tolerance=0)
    found = game.to_xarray()
    assert found["rate"].dims == ("explanation", "class")
    assert found["rate"].sel({"class": 1}).values.tolist() == [1, 1]
    np.testing.assert_array_equal(game.points[0], game.points[1])


def test_models_without_gradients_are_explained_by_rise() -> None:
    def score(images: np.ndarray) -> np.ndarray:
        return np.stack([images[:, :4].mean(axis=(1, 2, 3)), images[:, 4:].mean(axis=(1, 2, 3))], axis=1)

    images = np.random.default_rng(0).random((2, 8, 10, 3))
    found = cfi.attribute(score, "rise", "torchray", inputs=images, target=0, seed=1, exec_args={"num_masks": 400})
    above, below = found.values[:, :3].mean(), found.values[:, 5:].mean()
    assert found.values.shape == (2, 8, 10) and above > below


@pytest.fixture(scope="module")
def slow() -> ModuleType:
    """The independent implementation of the plugin's own tests."""
    path = Path(__file__).parents[2] / "plugins" / "cfi_torchray" / "tests" / "excitation_reference.py"
    spec = spec_from_file_location("excitation_reference", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_excitation_backprop_on_a_converted_network_is_that_of_the_paper(twins: Twins, slow: ModuleType) -> None:
    model, target = twins.torch_model, 3
    images = np.abs(twins.first)  # what wins is among what is not negative
    found: Any = cfi.attribute(
        twins.keras_model, "excitation_backprop", "torchray", inputs=to_last(images), target=target
    )
    assert found.route == ("keras-torch",)
    conv1, conv2, fc = (layer.weight.detach().double().numpy() for layer in (model.conv1, model.conv2, model.fc))
    first, second = slow.convolution(conv1, (CHANNELS, HEIGHT, WIDTH), padding=1), slow.convolution(conv2, (6, 7, 10))
    expected = []
    for image in images:
        with torch.no_grad():
            relu1 = model.relu1(model.conv1(torch.tensor(image[None])))
            pool1 = model.pool1(relu1)
            relu2 = model.relu2(model.conv2(pool1))
        relu1, pool1, relu2 = (one[0].double().numpy() for one in (relu1, pool1, relu2))
        p = slow.to_children(relu2.ravel(), fc, np.eye(len(fc))[target])
        p = slow.max_pool(relu1, 2, slow.to_children(pool1.ravel(), second, p))
        expected.append(slow.to_children(image.ravel().astype(float), first, p.ravel()).reshape(image.shape))
    assert apart(np.array(expected), to_first(found.values)) <= 1e-5


def test_the_contrast_of_an_onnx_model_is_a_layer_of_its_own(twins: Twins) -> None:
    """By name, as the layer that is explained; and so of a model whose layers are called otherwise where it runs."""
    key, call = "contrastive_excitation_backprop", {"target": TARGET, "inputs": twins.first}
    native = cfi.attribute(
        twins.torch_model, key, "torchray", layer="relu1", exec_args={"contrast_layer": "pool1"}, **call
    )
    translation = cfi.translate(twins.torch_model, "onnx", inputs=twins.first)
    layer, contrast = (translation.layer_map[name] for name in ("relu1", "pool1"))
    found = cfi.attribute(
        translation.model, key, "torchray", layer=layer, exec_args={"contrast_layer": contrast}, **call
    )
    assert found.route == ("onnx-torch",)
    assert apart(native.values, found.values) < 1e-5
    with pytest.raises(cfi.LayerError, match="The model has no layer 'pool9'"):
        cfi.attribute(translation.model, key, "torchray", layer=layer, exec_args={"contrast_layer": "pool9"}, **call)
