"""What SmoothGrad says of its draws is the spread of its values over seeds, and changes nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.scores import CategoricalScore

import cfi_core as cfi
from cfi_core.testing.conformance import assert_spread_is_told

IMAGES = np.random.default_rng(0).random((2, 6, 7, 3)).astype(np.float32)


def net() -> Any:
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 7, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="tanh")(image))
    return keras.Model(image, keras.layers.Dense(3)(x))


def test_errors_are_the_spread_over_seeds():
    model = net()
    given = {"inputs": IMAGES, "target": 1, "exec_args": {"smooth_samples": 20, "smooth_noise": 0.4}}
    assert_spread_is_told(
        lambda seed: cfi.attribute(model, "smooth_grad", "tf-keras-vis", seed=seed, **given), seeds=30
    )


def test_values_are_those_of_the_tool_to_the_last_bit():
    model = net()
    settings = {"smooth_samples": 5, "smooth_noise": 0.4}
    np.random.seed(3)
    raw = {"gradient_modifier": None, "normalize_map": False, "keepdims": True}
    expected = Saliency(model)(CategoricalScore([1, 1]), IMAGES, **settings, **raw)
    found = cfi.attribute(model, "smooth_grad", "tf-keras-vis", inputs=IMAGES, target=1, seed=3, exec_args=settings)
    np.testing.assert_array_equal(found.values, np.asarray(expected))


@pytest.mark.parametrize("own", [{"normalize_map": True}, {"keepdims": False}])
def test_what_is_made_of_the_average_has_none(own):
    given = {"inputs": IMAGES, "target": 1, "exec_args": {"smooth_samples": 5, **own}}
    assert "standard_error" not in cfi.attribute(net(), "smooth_grad", "tf-keras-vis", **given).extras


def test_one_sample_tells_nothing():
    with pytest.warns(cfi.SamplingWarning, match="too few"):
        cfi.attribute(net(), "smooth_grad", "tf-keras-vis", inputs=IMAGES, target=1, exec_args={"smooth_samples": 1})
