"""Run as a process of its own by `test_keras_backends.py`: Keras on the backend that the environment names."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import keras
import numpy as np

import cfi_core as cfi

layers = keras.layers


def make_sequential() -> Any:
    keras.utils.set_random_seed(0)
    head = layers.Dropout(0.5), layers.Flatten(), layers.Dense(3, activation="softmax", name="scores")
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    return keras.Sequential([keras.Input((8, 8, 2), name="image"), conv, *head])


class Subclassed(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat, self.dense = layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(3)

    def call(self, image: Any, training: bool = False) -> Any:
        return self.dense(self.flat(keras.ops.relu(self.conv(image))))


def kernels(model: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(keras.ops.convert_to_numpy(weight.value)) for weight in model.weights)


def by_hand(model: Any, images: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Input gradient of a score (before a softmax), and the convolution's output after its ReLU, in plain numpy."""
    kernel, bias, weight, _ = kernels(model)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))  # n, y, x, channel, i, j
    hidden = np.einsum("nyxcij,ijck->nyxk", windows, kernel) + bias
    into = weight[:, target].reshape(hidden.shape[1:]) * (hidden > 0)
    gradient = np.zeros_like(images)
    for i in range(3):
        for j in range(3):
            gradient[:, i : i + 6, j : j + 6] += into @ kernel[i, j].T
    return gradient, np.maximum(hidden, 0)


def apart(one: Any, other: np.ndarray) -> float:
    one = one["image"] if isinstance(one, dict) or hasattr(one, "keys") else one
    return float(np.abs(np.asarray(one) - other).max() / np.abs(other).max())


def main() -> None:
    """Prints what was found as JSON."""
    images = np.random.default_rng(0).random((3, 8, 8, 2)).astype(np.float32)
    model, found = make_sequential(), dict[str, Any]()
    inner = keras.Input((8, 8, 2))
    nested = keras.Model(inner, model(inner))
    subclassed = Subclassed()
    subclassed(images)
    gradient, activation = by_hand(model, images, 1)
    found["layers"] = [layer.name for layer in cfi.layers(model, images)]
    found["inner layers"] = [layer.name for layer in cfi.layers(nested)]
    for name, one in {"sequential": model, "nested": nested, "subclassed": subclassed}.items():
        wanted = by_hand(one, images, 1)[0]
        result = cfi.attribute(one, "saliency", "captum", inputs=images, target=1)
        found[f"saliency of {name}"] = apart(result.values, wanted)
        found["dims"] = result.dims
    named = cfi.attribute(model, "saliency", "captum", inputs={"image": images}, target=1)
    found["by name"] = apart(named.values, gradient)
    for key in (model.get_layer("conv"), "conv"):
        result = cfi.attribute(nested, "layer_activation", "captum", inputs=images, layer=key)
        found[f"activation by {type(key).__name__}"] = apart(result.values, activation)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for toolset in ("tf-keras-vis", "tf-explain"):
            try:
                cfi.attribute(model, "grad_cam", toolset, inputs=images, target=1, layer="conv")
            except cfi.CFIError as error:
                found[toolset] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.exit(0)
