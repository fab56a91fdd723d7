"""`defaults="toolset"` against tf-explain called by hand, to the bit."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from tf_explain.core.activations import ExtractActivations
from tf_explain.core.grad_cam import GradCAM
from tf_explain.core.gradients_inputs import GradientsInputs
from tf_explain.core.integrated_gradients import IntegratedGradients
from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
from tf_explain.core.smoothgrad import SmoothGrad
from tf_explain.core.vanilla_gradients import VanillaGradients
from tf_explain.utils.display import grid_display
from tfexplain_models import build, pictures

import cfi_core as cfi
from cfi_tfexplain.picture import split

SEED = 11
GREY_MAPS = {
    "saliency": VanillaGradients,
    "input_x_gradient": GradientsInputs,
    "integrated_gradients": IntegratedGradients,
    "smooth_grad": SmoothGrad,
}
ENDS = pytest.mark.parametrize("last", [None, "layer", "activation"])
SIZES = pytest.mark.parametrize("size", [(10, 8), (8, 8)], ids=["oblong", "square"])


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """What tf-explain warns of, and Keras of tf-explain."""
    with warnings.catch_warnings():
        for message in ("The structure of `inputs`", "Unsupported model architecture"):
            warnings.filterwarnings("ignore", message=message)
        yield


def by_cfi(model: Any, key: str, images: Any, target: Any = 2, **arguments: Any) -> Any:
    return cfi.attribute(
        model, key, "tf-explain", inputs=images, target=target, defaults="toolset", seed=SEED, **arguments
    )


def by_hand(tool: Any, model: Any, images: np.ndarray, *arguments: Any, **own: Any) -> np.ndarray:
    np.random.seed(SEED)
    return tool.explain((images, None), model, *arguments, **own)


@ENDS
@SIZES
@pytest.mark.parametrize("key", GREY_MAPS)
def test_grey_maps(key: str, last: str | None, size: tuple[int, int]) -> None:
    model, images = build(last=last, size=size), pictures(5, size)
    expected = by_hand(GREY_MAPS[key](), model, images, 2)
    state = np.random.get_state()[1].copy()
    found = by_cfi(model, key, images)
    np.testing.assert_array_equal(found.extras["picture"], expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert expected.dtype == found.extras["picture"].dtype == found.values.dtype == np.uint8
    assert found.values.shape == (5, *size) and found.dims == ("sample", "height", "width")
    padded = np.concatenate([found.values, np.zeros((4, *size), np.uint8)])
    np.testing.assert_array_equal(grid_display(padded), expected)


@pytest.mark.parametrize("key", [key for key in GREY_MAPS if key != "smooth_grad"])
def test_a_sequential_model(key: str) -> None:
    model, images = build("sequential", "layer"), pictures()
    np.testing.assert_array_equal(
        by_cfi(model, key, images).extras["picture"], by_hand(GREY_MAPS[key](), model, images, 2)
    )


def test_smooth_grad_and_grad_cam_of_a_sequential_model() -> None:
    """tf-explain fails on it with Keras 3; it is a graph for us."""
    model, same, images = build("sequential"), build(), pictures()
    found = by_cfi(model, "smooth_grad", images).extras["picture"]
    np.testing.assert_array_equal(found, by_hand(SmoothGrad(), same, images, 2))
    found = by_cfi(model, "grad_cam", images, layer="conv2").extras["picture"]
    np.testing.assert_array_equal(found, by_hand(GradCAM(), same, images, 2, "conv2"))


@SIZES
def test_occlusion(size: tuple[int, int], capfd: Any) -> None:
    model, images = build(last="layer", size=size, brightest=255), pictures(3, size) * 255
    expected = [by_hand(OcclusionSensitivity(), model, images, 2, patch) for patch in (3, 4)]
    capfd.readouterr()
    found = by_cfi(model, "occlusion", images, exec_args={"patch_size": [3, 4]})
    assert not capfd.readouterr().out  # no progress bar
    np.testing.assert_array_equal(found.extras["pictures"], expected)
    np.testing.assert_array_equal(found.extras["picture"], expected[0])
    assert found.values.shape == (3, *size, 3) and found.dims == ("sample", "height", "width", "channel")
    alone = by_cfi(model, "occlusion", images, exec_args={"patch_size": 3, "colormap": 2}, init_args={"batch_size": 7})
    again = by_hand(OcclusionSensitivity(batch_size=7), model, images, 2, 3, 2)
    np.testing.assert_array_equal(alone.extras["picture"], again)


@ENDS
def test_grad_cam(last: str | None) -> None:
    model, images = build(last=last), pictures()
    for own in ({}, {"use_guided_grads": False}, {"image_weight": 0.0, "colormap": 2}):
        expected = by_hand(GradCAM(), model, images, 2, "conv2", **own)
        found = by_cfi(model, "grad_cam", images, layer="conv2", exec_args=own)
        np.testing.assert_array_equal(found.extras["picture"], expected)
        np.testing.assert_array_equal(found.values[0], expected[:10, :8])


def test_activations(capfd: Any) -> None:
    model, images = build(), pictures()
    for layer, size in (("conv1", (10, 8, 6)), ("conv2", (5, 4, 5))):
        expected = by_hand(ExtractActivations(), model, images, [layer])
        capfd.readouterr()
        found = by_cfi(model, "layer_activation", images, None, layer=layer)
        assert not capfd.readouterr().out
        np.testing.assert_array_equal(found.extras["picture"], expected)
        assert found.values.shape == (3, *size)
        raw = cfi.attribute(model, "layer_activation", "tf-explain", inputs=images, layer=layer).values
        # The filling of the grid counts into its range.
        low, high = min(raw.min(), 0), max(raw.max(), 0)
        np.testing.assert_allclose(found.values, (raw - low) / (high - low) * 255, atol=1.01)


def test_the_head_wins() -> None:
    """A softmax that was left out already leaves nothing for tf-explain to look for."""
    model, images = build(last="activation"), pictures()
    found = by_cfi(model, "saliency", images, head="logit")
    np.testing.assert_array_equal(found.extras["picture"], by_hand(VanillaGradients(), build(), images, 2))
    assert "logit" in found.provenance["explained"]


def test_own_words_and_settings_win() -> None:
    model, images = build(), pictures()
    found = cfi.attribute(
        model,
        "integrated_gradients",
        "tf-explain",
        exec_args={"validation_data": images, "class_index": 1, "n_steps": 4},
        defaults="toolset",
    )
    np.testing.assert_array_equal(found.extras["picture"], by_hand(IntegratedGradients(), model, images, 1, 4))
    raw = cfi.attribute(
        model,
        "grad_cam",
        "tf-explain",
        exec_args={"validation_data": images, "class_index": 1, "layer_name": "conv2", "picture": False},
        defaults="toolset",
    )
    assert raw.values.dtype == np.float32 and raw.provenance["applied"]["use_guided_grads"] is True
    assert found.provenance["applied"]["picture"] and found.provenance["applied"]["n_steps"] == "4"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 10])
def test_tiles(count: int) -> None:
    tiles = np.random.default_rng(0).integers(0, 255, (count, 3, 4, 3), np.uint8)
    np.testing.assert_array_equal(split(grid_display(tiles), count, (3, 4)), tiles)


def test_a_grey_patch_that_is_none_is_told() -> None:
    with pytest.warns(cfi.ModelWarning, match=r"127\.5, which lies outside of these inputs"):
        by_cfi(build(), "occlusion", pictures(), exec_args={"patch_size": 4})


def test_the_model_is_left_as_it_was() -> None:
    model, images = build(last="layer", brightest=255), pictures() * 255
    by_cfi(model, "occlusion", images, exec_args={"patch_size": 4})
    assert model.predict_function is None and not model.compiled
    assert keras.config.is_interactive_logging_enabled()
