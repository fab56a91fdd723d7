"""Small channels-last CNNs, on RGB images that are not square."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

SIZE = (10, 8)
CLASSES = 4


def build(kind: str = "functional", last: str | None = None, size: tuple[int, int] = SIZE, brightest: float = 1) -> Any:
    """A CNN with the same weights whatever its kind.

    `last` is "layer" or "activation" for a softmax at its end, `brightest` the largest value of its images.
    """
    layers = [
        keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1"),
        keras.layers.MaxPooling2D(2, name="pool"),
        keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(CLASSES, activation="softmax" if last == "activation" else None, name="head"),
        *([keras.layers.Softmax(name="softmax")] if last == "layer" else []),
    ]
    first = keras.Input((*size, 3))
    if kind == "sequential":
        model = keras.Sequential([first, *layers])
    else:
        tensor = first
        for layer in layers:
            tensor = layer(tensor)
        model = keras.Model(first, tensor)
    generator = np.random.default_rng(5)
    weights = [generator.normal(0, 0.3, weight.shape).astype(np.float32) for weight in model.get_weights()]
    weights[0] /= brightest
    model.set_weights(weights)
    return model


def pictures(count: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 1, (count, *size, 3)).astype(np.float32)


def linear_model() -> tuple[Any, np.ndarray]:
    """A model that is linear in its inputs but for a bias, and its weights of shape (height, width, channel, class)."""
    model = keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    generator = np.random.default_rng(7)
    kernel = generator.normal(size=(90, CLASSES)).astype(np.float32)
    model.set_weights([kernel, generator.normal(size=CLASSES).astype(np.float32)])
    return model, kernel.reshape(6, 5, 3, CLASSES)
