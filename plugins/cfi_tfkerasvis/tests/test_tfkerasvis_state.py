"""Nothing of the model or of the process is left changed, also after an error."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from cfi_core.contract import MethodResult, Target
from cfi_core.errors import CFIError
from cfi_tfkerasvis.plugin import cfi_methods
from cfi_tfkerasvis.workarounds import CategoricalScore, GuidedBackpropagation, ReplaceToLinear

Ask = Callable[..., MethodResult]
KEYS = [spec.key for spec in cfi_methods()]


def noisy_cnn() -> Any:
    """With everything that a call could change: batch statistics, dropout seeds, a softmax."""
    return keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )


def snapshot(model: Any) -> dict[str, Any]:
    return {
        "weights": [variable.numpy() for variable in model.variables],
        "activations": [getattr(layer, "activation", None) for layer in model.layers],
        "trainable": [layer.trainable for layer in model.layers],
        "nodes": [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers],
        "attributes": sorted(vars(model)),
        "predict": model.predict_function,
        "environment": dict(os.environ),
        "logging": keras.config.is_interactive_logging_enabled(),
        "format": keras.config.image_data_format(),
        "warnings": list(warnings.filters),
    }


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("own", ["plain", "modified", "training", "failing"])
def test_everything_is_as_before(ask: Ask, images: Any, key: str, own: str) -> None:
    model = noisy_cnn()
    before = snapshot(model)
    init_args: dict[str, Any] = {}
    exec_args: dict[str, Any] = {}
    if own == "modified":
        init_args = {"model_modifier": [GuidedBackpropagation(), ReplaceToLinear()], "clone": False}
    if own == "training":
        exec_args = {"training": True}
    if own == "failing":
        exec_args = {"score": CategoricalScore(99)}
    if key == "activation_maximization":
        exec_args |= {"input_range": (-1.0, 1.0), "steps": 2}
    target = None if own == "failing" else Target(index=(1,))
    layer = "conv2" if "cam" in key else None
    if own == "failing":
        with pytest.raises(CFIError):
            ask(key, model, images, target, layer=layer, init_args=init_args, exec_args=exec_args)
    else:
        ask(key, model, images, target, layer=layer, init_args=init_args, exec_args=exec_args)
    after = snapshot(model)
    for variable, again in zip(before.pop("weights"), after.pop("weights"), strict=True):
        np.testing.assert_array_equal(variable, again)
    assert before == after


@pytest.mark.parametrize("key", [key for key in KEYS if key != "smooth_grad"])
def test_the_global_random_numbers_are_used_by_jitter_and_smoothing_only(ask: Ask, images: Any, key: str) -> None:
    model = noisy_cnn()
    exec_args = {"input_range": (-1.0, 1.0), "steps": 2, "input_modifiers": None} if key.startswith("act") else {}
    state = np.random.get_state()[1].copy()
    generator = tf.random.get_global_generator().state.numpy()
    ask(key, model, images, Target(index=(1,)), layer="conv2" if "cam" in key else None, exec_args=exec_args)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(tf.random.get_global_generator().state.numpy(), generator)


def test_the_users_own_objects_are_not_changed(ask: Ask, cnn: Any, images: Any) -> None:
    score = CategoricalScore([np.array([2]), np.array([0]), np.array([3])])
    indices = score.indices
    exec_args = {"score": score}
    init_args = {"model_modifier": [GuidedBackpropagation()]}
    ask("saliency", cnn(), images, init_args=init_args, exec_args=exec_args)
    assert score.indices is indices
    assert exec_args == {"score": score}
    assert len(init_args["model_modifier"]) == 1


def test_progress_bars_stay_on_or_off(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    seen: list[bool] = []

    def other_thread() -> None:
        ask("score_cam", cnn(), images, target, layer="conv2")
        seen.append(keras.config.is_interactive_logging_enabled())
        keras.config.disable_interactive_logging()
        ask("score_cam", cnn(), images, target, layer="conv2")
        seen.append(keras.config.is_interactive_logging_enabled())

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert seen == [True, False]
