"""What is refused, with the next step in the message."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfexplain_models import build, pictures

import cfi_core as cfi


def explain(model: Any, key: str, inputs: Any, target: Any = 1, **arguments: Any) -> Any:
    return cfi.attribute(model, key, "tf-explain", inputs=inputs, target=target, **arguments)


def picture(*arguments: Any, **more: Any) -> Any:
    return explain(*arguments, defaults="toolset", **more)


def test_several_inputs() -> None:
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], keras.layers.Dense(2)(keras.layers.Add()([first, second])))
    with pytest.raises(cfi.MethodError, match="one input, and this one takes 2"):
        explain(model, "saliency", (np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)))


def test_a_score_that_does_not_depend_on_the_input() -> None:
    for key in ("saliency", "input_x_gradient", "integrated_gradients", "smooth_grad"):
        with pytest.raises(cfi.TargetError, match="does not depend on the input"):
            explain(build(), key, pictures(), lambda outputs: tf.zeros(3))


def test_a_target_function_of_another_form() -> None:
    with pytest.raises(cfi.CFIError, match="one value"):
        explain(build(), "integrated_gradients", pictures(), lambda outputs: outputs)


@pytest.mark.parametrize(
    ("key", "own", "message"),
    [
        ("occlusion", {}, "needs 'patch_size'"),
        ("occlusion", {"patch_size": 0}, "pixels of 1 or more"),
        ("occlusion", {"patch_size": [2, 1.5]}, "pixels of 1 or more"),
        ("occlusion", {"patch_size": 2, "colormap": 3}, r"\['colormap'\] are of tf-explain's picture"),
        ("integrated_gradients", {"n_steps": 1}, "n_steps must be a number of 2 or more"),
        ("smooth_grad", {"num_samples": 0}, "num_samples must be a number of 1 or more"),
        ("smooth_grad", {"noise": -1.0}, "noise must be a number of 0 or more"),
    ],
)
def test_settings(key: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(cfi.ArgumentError, match=message):
        explain(build(), key, pictures(), exec_args=own)


@pytest.mark.parametrize(
    ("key", "more", "message"),
    [
        ("integrated_gradients", {"baselines": 0.5}, "has its own baseline"),
        ("integrated_gradients", {"exec_args": {"multiply_by_inputs": True}}, "cannot have multiply_by_inputs=True"),
        ("smooth_grad", {"exec_args": {"noise": "much"}}, "noise as a number"),
        ("occlusion", {}, "needs 'patch_size'"),
        ("saliency", {"target": [1, 2, 1]}, "one class, the same for all samples"),
        ("saliency", {"target": lambda outputs: outputs[:, 0]}, "one class, the same for all samples"),
        ("layer_activation", {"target": None, "layer": ["conv1", "conv2"]}, "draws one layer, got 2"),
        ("layer_activation", {"target": None, "layer": "flatten"}, "axes of height and width"),
    ],
)
def test_pictures(key: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(cfi.ArgumentError, match=message):
        picture(build(), key, pictures(), **more)


def test_pictures_of_models_that_tf_explain_cannot_look_into() -> None:
    @tf.function
    def function(images: Any) -> Any:
        return tf.reduce_sum(images, axis=(1, 2))

    with pytest.raises(cfi.MethodError, match="looks into functional and Sequential Keras models"):
        picture(function, "saliency", pictures())


def test_images_without_colours_or_with_channels_elsewhere() -> None:
    grey = keras.Sequential([keras.Input((6, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    x = np.random.default_rng(0).uniform(0, 255, (2, 6, 5, 1)).astype(np.float32)
    with pytest.raises(cfi.ArgumentError, match="three colours, and the input has 1"):
        picture(grey, "occlusion", x, exec_args={"patch_size": 2})
    assert picture(grey, "saliency", x).values.shape == (2, 6, 5)
    flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    for key, more in (("saliency", {"defaults": "toolset"}), ("occlusion", {"exec_args": {"patch_size": 2}})):
        with pytest.raises(cfi.ArgumentError, match="takes images with channels last"):
            explain(flat, key, np.ones((2, 7), np.float32), **more)


def test_layers() -> None:
    inner = keras.Sequential([keras.Input((10, 8, 3)), keras.layers.Conv2D(2, 3, name="inner")], name="nested")
    first, twice = keras.Input((10, 8, 3)), keras.layers.Conv2D(3, 3, padding="same", name="twice")
    end = keras.layers.Dense(2, name="head")(keras.layers.Flatten()(inner(twice(twice(first)))))
    model = keras.Model(first, end)
    with pytest.raises(cfi.LayerError, match="inside a nested model"):
        explain(model, "grad_cam", pictures(), layer="nested/inner")
    with pytest.raises(cfi.LayerError, match="2 times"):
        explain(model, "grad_cam", pictures(), layer="twice")
    with pytest.raises(cfi.LayerError, match=r"axes of space.*which has none"):
        explain(model, "grad_cam", pictures(), layer="head")
    assert explain(model, "grad_cam", pictures(), layer="nested").values.shape == (3, 8, 6)


def test_a_layer_of_a_sequence_has_no_map_in_two_dimensions() -> None:
    """tf-explain would take the mean over the channels, too."""
    layers = [keras.layers.Conv1D(3, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((9, 2)), *layers])
    with pytest.raises(cfi.LayerError, match="axes of height and width"):
        explain(model, "grad_cam", np.ones((2, 9, 2), np.float32), layer="conv")


def test_a_layer_beside_the_way() -> None:
    first = keras.Input((6, 5, 3))
    side = keras.layers.Conv2D(2, 3, name="side")(first)
    model = keras.Model(first, [keras.layers.Dense(2)(keras.layers.Flatten()(first)), side])
    with pytest.raises(cfi.LayerError, match="does not lead to the score"):
        explain(model, "grad_cam", pictures(2, (6, 5)), (0, 1), layer="side")


def test_pictures_of_a_layer_of_several_models() -> None:
    layer = keras.layers.Conv2D(2, 3, name="conv")
    keras.Sequential([keras.Input((9, 9, 3)), layer])
    first = keras.Input((6, 5, 3))
    model = keras.Model(first, keras.layers.GlobalAveragePooling2D()(layer(first)))
    with pytest.raises(cfi.LayerError, match="part of several models"):
        picture(model, "grad_cam", pictures(2, (6, 5)), layer="conv")
