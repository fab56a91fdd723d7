"""Arguments in tf-keras-vis's own words, against tf-keras-vis called by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import cfi_core as cfi
from cfi_tfkerasvis.workarounds import CategoricalScore, Gradcam, Saliency


def attribute(model: Any, key: str, **own: Any) -> cfi.Attribution:
    result = cfi.attribute(model, key, "tf-keras-vis", exec_args=own, defaults="toolset", seed=0)
    assert isinstance(result, cfi.Attribution)
    return result


@pytest.mark.parametrize("name", ["conv1", "conv2"])
@pytest.mark.parametrize("from_the_end", [False, True])
def test_a_penultimate_layer_by_its_position(cnn: Any, kind: str, images: Any, name: str, from_the_end: bool) -> None:
    model = cnn(kind)
    position = model.layers.index(model.get_layer(name)) - (len(model.layers) if from_the_end else 0)
    own = {"score": CategoricalScore(2), "seed_input": images, "penultimate_layer": position}
    result = attribute(model, "grad_cam", **own)
    np.testing.assert_array_equal(result.values, Gradcam(model)(**own))
    assert result.layer == name


@pytest.mark.filterwarnings("ignore::cfi_core.errors.ModelWarning")
def test_the_last_layer_leads_to_the_convolution_before_it(cnn: Any, images: Any) -> None:
    model, own = cnn(), {"score": CategoricalScore(2), "seed_input": images}
    result = attribute(model, "grad_cam", penultimate_layer=-1, **own)
    np.testing.assert_array_equal(result.values, Gradcam(model)(**own))
    assert result.layer == "conv2"


@pytest.mark.parametrize("position", [6, -7, True, 1.0])
def test_a_position_that_is_none(cnn: Any, images: Any, position: Any) -> None:
    with pytest.raises(cfi.LayerError):
        attribute(cnn(), "grad_cam", score=CategoricalScore(2), seed_input=images, penultimate_layer=position)


@pytest.mark.parametrize("array", [np.asarray, tf.constant, np.ndarray.tolist])
def test_one_image_without_its_sample_axis(cnn: Any, kind: str, images: Any, array: Any) -> None:
    model, one = cnn(kind), images[0].numpy()
    result = attribute(model, "saliency", score=CategoricalScore(2), seed_input=array(one))
    np.testing.assert_array_equal(result.values, Saliency(model)(CategoricalScore(2), one))
    assert result.values.shape == (1, 10, 8)


def test_two_inputs_of_which_one_lacks_its_sample_axis(images: Any) -> None:
    first, second = keras.Input((10, 8, 3)), keras.Input((4,))
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(first), keras.layers.Dense(5, "tanh")(second)])
    model = keras.Model([first, second], keras.layers.Dense(4)(flat))
    seeds = [images[:1].numpy(), np.ones(4, np.float32)]
    own = {"score": CategoricalScore(2), "keepdims": True}
    result = attribute(model, "saliency", seed_input=seeds, **own)
    for value, expected in zip(result.values, Saliency(model)(seed_input=seeds, **own), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_uniform_inputs_have_a_sample_axis_always(cnn: Any, images: Any) -> None:
    """They mean the same for models that declare no shape, where a missing axis cannot be seen."""
    with pytest.raises(cfi.InputError, match=r"x\[None\]"):
        cfi.attribute(cnn(), "saliency", "tf-keras-vis", inputs=images[0], target=2)
