"""A small CNN that exists in both frameworks with the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfi_core.coexistence import load_safely

load_safely()

import keras  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

# RGB and not square: a swapped axis cannot go unnoticed.
HEIGHT, WIDTH, CHANNELS, CLASSES = 14, 20, 3, 5


class TorchCNN(nn.Module):
    """Every nonlinearity is a module of its own, so that rules of all methods can attach."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 6, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * 5 * 8, CLASSES)
        self.softmax = nn.Softmax(1) if softmax else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.relu2(self.conv2(x))
        return self.softmax(self.fc(self.flatten(x)))


def keras_twin(model: TorchCNN) -> keras.Model:
    """The same network in Keras, written by hand, channels last."""
    layers = keras.layers
    twin = keras.Sequential(
        [
            keras.Input((HEIGHT, WIDTH, CHANNELS)),
            layers.Conv2D(6, 3, padding="same", name="conv1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(8, 3, name="conv2"),
            layers.ReLU(name="relu2"),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, name="fc", activation="softmax" if isinstance(model.softmax, nn.Softmax) else None),
        ]
    )
    for name in ("conv1", "conv2"):
        module = model.get_submodule(name)
        kernel = module.weight.detach().numpy().transpose(2, 3, 1, 0)
        twin.get_layer(name).set_weights([kernel, module.bias.detach().numpy()])
    # Keras flattens height, width, channel; torch channel, height, width.
    kernel = model.fc.weight.detach().numpy().reshape(CLASSES, 8, 5, 8).transpose(2, 3, 1, 0).reshape(-1, CLASSES)
    twin.get_layer("fc").set_weights([kernel, model.fc.bias.detach().numpy()])
    return twin


@dataclass(frozen=True)
class Twins:
    """One network in both frameworks, and the same two images in both layouts."""

    torch_model: TorchCNN
    keras_model: keras.Model
    first: np.ndarray
    last: np.ndarray


def make_twins(softmax: bool) -> Twins:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = TorchCNN(softmax).eval()
    images = np.random.default_rng(7).normal(size=(2, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    twins = Twins(model, keras_twin(model), images, to_last(images))
    ours, theirs = model(torch.tensor(images)).detach().numpy(), np.asarray(twins.keras_model(twins.last))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    return twins


def to_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def to_first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def apart(values: np.ndarray, others: np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    assert values.shape == others.shape
    scale = np.abs(values).max()
    assert scale > 0, "an attribution that is zero everywhere proves nothing"
    return float(np.abs(values - others).max() / scale)
