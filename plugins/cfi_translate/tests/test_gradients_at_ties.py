"""Where several values are equal, a gradient is a choice: the converted model makes the original's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from test_torch_to_keras import ROUTE, in_keras, in_torch, weights
from torch import nn

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.framework.axes import permute, unpermute
from cfi_core.records import Route
from cfi_core.registry import registry
from cfi_core.translation.conversion import convert_along
from cfi_translate.keras_torch import convert

SIGNAL, IMAGE, VOLUME = (2, 12), (3, 8, 10), (2, 4, 6, 8)
TORCH: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "MaxPool1d": (nn.MaxPool1d(3, 2, 1), SIGNAL),
    "MaxPool2d": (nn.MaxPool2d(3, 2, 1), IMAGE),
    "MaxPool2d, overlapping": (nn.MaxPool2d(3, 1), IMAGE),
    "MaxPool2d, rounded up": (nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE),
    "MaxPool3d": (nn.MaxPool3d(2), VOLUME),
    "MaxPool3d, padded": (nn.MaxPool3d(3, 2, 1), VOLUME),
    "MaxPool3d, padded as Keras does": (nn.MaxPool3d(3, 1, 1), VOLUME),
    "MaxPool3d, overlapping": (nn.MaxPool3d((1, 3, 2), 1), VOLUME),
    "MaxPool3d, rounded up": (nn.MaxPool3d((3, 2, 3), 2, ceil_mode=True), VOLUME),
    "AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(5), SIGNAL),
    "AdaptiveMaxPool2d to one": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "AdaptiveMaxPool2d, even": (nn.AdaptiveMaxPool2d((4, 5)), IMAGE),
    "AdaptiveMaxPool2d, uneven": (nn.AdaptiveMaxPool2d((3, 4)), IMAGE),
    "AdaptiveMaxPool3d": (nn.AdaptiveMaxPool3d((2, 3, 4)), VOLUME),
    "AdaptiveMaxPool3d, uneven": (nn.AdaptiveMaxPool3d((3, 4, 5)), VOLUME),
    "largest along an axis": (lambda x: x.max(2)[0], IMAGE),
    "smallest along an axis": (lambda x: x.min(1, keepdim=True)[0], IMAGE),
    "largest of areas": (lambda x: x.amax((2, 3)), IMAGE),
    "smallest of areas": (lambda x: x.amin(3, keepdim=True), IMAGE),
    "larger of two": (lambda x: torch.maximum(x[:, :, :4], x[:, :, 4:]), IMAGE),
    "smaller of two": (lambda x: torch.minimum(x, torch.tensor(0.5)), IMAGE),
    "clamp": (lambda x: x.clamp(0.0, 1.0), IMAGE),
    "clamp from below": (lambda x: x.clamp(min=0.5), IMAGE),
    "clamp by tensors": (lambda x: x.clamp(min=x.mean(3, keepdim=True)), IMAGE),
    "Hardtanh": (nn.Hardtanh(-0.5, 0.5), IMAGE),
    "ReLU6": (nn.ReLU6(), IMAGE),
    "norm": (lambda x: x.norm(dim=1), IMAGE),
}
LAYERS, OPS = keras.layers, keras.ops
KERAS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "MaxPooling1D": (LAYERS.MaxPooling1D(3, 2, padding="same"), (12, 2)),
    "MaxPooling2D": (LAYERS.MaxPooling2D(3, 2, padding="same"), (8, 10, 3)),
    "MaxPooling2D, overlapping": (LAYERS.MaxPooling2D(3, 1), (8, 10, 3)),
    "largest": (lambda x: OPS.max(x, axis=(1, 2)), (8, 10, 3)),
    "Maximum": (lambda x: LAYERS.Maximum()([x[:, :4], x[:, 4:]]), (8, 10, 3)),
    "minimum": (lambda x: OPS.minimum(x[:, :4], x[:, 4:]), (8, 10, 3)),
    "clip": (lambda x: OPS.clip(x, 0.0, 1.0), (8, 10, 3)),
}
DATA: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "one value": lambda shape: np.full(shape, 0.5, np.float32),
    "black": lambda shape: np.zeros(shape, np.float32),
    "steps": lambda shape: np.maximum(np.random.default_rng(1).normal(size=shape).round(), 0).astype(np.float32),
    "saturated": lambda shape: np.clip(np.random.default_rng(2).normal(size=shape) * 2, 0, 1).astype(np.float32),
}


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", TORCH)
def test_of_torch_in_keras(name: str) -> None:
    model, shape = TORCH[name]
    route = Route(tuple(registry().translators[one] for one in ROUTE))
    made = convert_along(route, model, (noise(shape),))
    for data in (make((3, *shape)) for make in DATA.values()):
        _, (wanted,) = in_torch(model, (data,))
        _, (found,) = in_keras(made, (data,))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KERAS)
def test_of_keras_in_torch(name: str) -> None:
    function, shape = KERAS[name]
    given = keras.Input(shape)
    model = keras.Model(given, function(given))
    made = convert(model, (noise(shape),))
    for data in (make((3, *shape)) for make in DATA.values()):
        np.testing.assert_allclose(slopes_in_torch(made, data), slopes_in_keras(model, data), rtol=1e-5, atol=1e-6)


def slopes_in_keras(model: Any, data: np.ndarray) -> np.ndarray:
    x = tf.constant(data)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
        score = tf.reduce_sum(y * weights(y.shape))
    return tape.gradient(score, x).numpy()


def slopes_in_torch(made: Converted, data: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(permute(data, made.input_axes[0]))).requires_grad_()
    y = made.model(x)
    axes = made.output_axes[0]
    y = y if axes is None else y.permute(*np.argsort(axes).tolist())
    (slope,) = torch.autograd.grad((y * torch.from_numpy(weights(y.shape))).sum(), x)
    return unpermute(slope.numpy(), made.input_axes[0])


class Network(nn.Module):
    """What a saliency map of a volume with equal values meets: pooling behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.pool = nn.Conv3d(1, 4, 3, padding=1), nn.MaxPool3d(2)
        self.head = nn.Linear(4 * 2 * 3 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.convolution(x)).flatten(1))


def test_a_volume_with_equal_values_is_explained_as_torch_has_it() -> None:
    model = Network().eval()
    volumes = torch.zeros(2, 1, 4, 6, 8)
    volumes[:, :, 1:3, 2:4] = 1.0
    made = cfi.translate(model, "tensorflow", inputs=volumes, translator="conversion")
    assert made.certificate.faithful and "pool" in made.layer_map
    found = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=volumes, target=1, translator="conversion")
    given = volumes.clone().requires_grad_()
    model(given)[:, 1].sum().backward()
    np.testing.assert_allclose(found.values.reshape(given.shape), given.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LAYERS.MaxPooling3D(2), (4, 6, 8, 2)),
        (LAYERS.GlobalMaxPooling2D(), (8, 10, 3)),
        (LAYERS.ReLU(max_value=1.0), (8, 10, 3)),
        (LAYERS.Activation("hard_tanh"), (8, 10, 3)),
    ],
)
def test_what_rules_need_torchs_own_modules_for_is_refused_at_ties(layer: Any, shape: tuple[int, ...]) -> None:
    given = keras.Input(shape)
    model = keras.Model(given, LAYERS.Dense(3)(LAYERS.Flatten()(layer(given))))
    assert cfi.translate(model, "torch", inputs=noise(shape)).certificate.faithful
    with pytest.raises(cfi.UnfaithfulTranslationError, match="gradients"):
        cfi.translate(model, "torch", inputs=DATA["saturated"]((2, *shape)), translator="keras-torch")
