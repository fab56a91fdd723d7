"""tf-keras-vis passes the tests that every toolset can inherit."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import numpy as np

from cfi_core.testing.conformance import KnownAnswerConformance, ToolsetConformance

layers = keras.layers


class TestTfKerasVis(ToolsetConformance):
    toolset = "tf-keras-vis"
    arguments: ClassVar = {
        "saliency": {"target": [1, 3]},
        "smooth_grad": {"target": [1, 3], "exec_args": {"smooth_samples": 3}},
        **{
            key: {"target": [1, 3], "layer": "conv"}
            for key in ("grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam")
        },
        "activation_maximization": {"target": [1, 3], "exec_args": {"input_range": (-1, 1), "steps": 2}},
    }

    def make_model(self) -> keras.Model:
        stack = [
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5),
        ]
        model = keras.Sequential([keras.Input((8, 10, 3)), *stack])
        generator = np.random.default_rng(5)
        model.set_weights([generator.normal(0, 0.4, weight.shape) for weight in model.get_weights()])
        return model

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(6).normal(size=(2, 8, 10, 3)).astype(np.float32)


class TestAnswers(KnownAnswerConformance):
    toolset = "tf-keras-vis"
    features = (1, 2, 3)

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        model = keras.Sequential([keras.Input(weights.shape[1:]), layers.Flatten(), layers.Dense(len(weights))])
        model.set_weights([weights.reshape(len(weights), -1).T, bias])
        return model
