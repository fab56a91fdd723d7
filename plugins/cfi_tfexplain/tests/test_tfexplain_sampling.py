"""What SmoothGrad says of its draws is the spread of its values over seeds, and changes nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from tf_explain.core.integrated_gradients import IntegratedGradients

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
    given = {"inputs": IMAGES, "target": 1, "exec_args": {"num_samples": 40, "noise": 0.8}}
    assert_spread_is_told(lambda seed: cfi.attribute(model, "smooth_grad", "tf-explain", seed=seed, **given), seeds=40)


def test_values_are_those_of_the_tools_own_average_to_the_last_bit():
    model = net()
    given = {"inputs": IMAGES, "target": 1, "exec_args": {"num_samples": 8, "noise": 0.8}}
    found = cfi.attribute(model, "smooth_grad", "tf-explain", seed=3, **given)
    noise = np.random.RandomState(3).normal(0, 0.8, (16, 6, 7, 3)).astype(np.float32)
    average = IntegratedGradients.get_integrated_gradients.python_function
    expected = average(np.repeat(IMAGES, 8, axis=0) + noise, model, 1, 8)
    np.testing.assert_array_equal(found.values, np.asarray(expected))


def test_a_picture_has_none():
    given = {"inputs": IMAGES, "target": 1, "defaults": "toolset"}
    assert "standard_error" not in cfi.attribute(net(), "smooth_grad", "tf-explain", **given).extras
