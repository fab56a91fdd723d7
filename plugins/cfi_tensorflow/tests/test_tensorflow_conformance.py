"""Keras models pass the tests that every framework can inherit."""

from __future__ import annotations

import keras
import numpy as np

from cfi_core.testing.conformance import FrameworkConformance

layers = keras.layers


class TestKeras(FrameworkConformance):
    framework = "tensorflow"

    def make_model(self) -> keras.Model:
        stack = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten(), layers.Dense(7)]
        model = keras.Sequential([keras.Input((5, 6, 3)), *stack])
        generator = np.random.default_rng(3)
        model.set_weights([np.abs(generator.normal(size=weight.shape)) for weight in model.get_weights()])
        return model

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 5, 6, 3)).astype(np.float32)

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> keras.Model:
        model = keras.Sequential([keras.Input(weights.shape[1:]), layers.Dense(len(weights))])
        model.set_weights([weights.T, bias])
        return model
