"""Small models, and what they compute by their own framework's means."""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
import torch
from torch import nn

HEIGHT, WIDTH = 12, 17


def images(samples: int = 3, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, channels, HEIGHT, WIDTH)).astype(np.float32)


def permuted(array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / np.abs(other).max())


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def in_onnxruntime(model, *arrays: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def in_torch(model, array: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output, and input gradient of the weighted sum of the output."""
    tensor = torch.tensor(array, requires_grad=True)
    output = model(tensor)
    (gradient,) = torch.autograd.grad((output * torch.tensor(weights)).sum(), tensor)
    return output.detach().numpy(), gradient.numpy()


def in_keras(model, array: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tensor = tf.constant(array)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        output = model(tensor, training=False)
        score = tf.reduce_sum(output * weights)
    return output.numpy(), tape.gradient(score, tensor).numpy()


def randomized(model: nn.Module) -> nn.Module:
    """In inference mode, with statistics that are not those of a fresh model."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-1, 1)
    return model.eval()


class Residual(nn.Module):
    """Reuses its ReLU and its convolution, and adds."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)
        )
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = self.relu(self.conv(x) + x)
        x = self.relu(self.conv(x))
        return torch.softmax(self.fc(self.dropout(self.pool(x).view(x.shape[0], -1))), -1)


class Branches(nn.Module):
    """Concatenates, gates channels and normalizes its input by constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
        self.left = nn.Conv2d(3, 4, 1)
        self.right = nn.Conv2d(3, 4, 3, padding=2, dilation=2)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.deviation
        x = torch.cat([self.left(x), torch.tanh(self.right(x))], 1)
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.head(nn.functional.silu(x * gate) * 2 + 1)


def torch_models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    models = {
        "residual": Residual(),
        "branches": Branches(),
        "flatten": nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5)
        ),
        "grouped": nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=(2, 1)), nn.ELU(), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 16, 3, groups=8)
        ),
        "padded": nn.Sequential(
            nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True)
        ),
        "softmax map": nn.Sequential(nn.Conv2d(3, 2, 1), nn.Softmax(1)),
        "probabilities": nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 4), nn.LogSoftmax(1)),
        "normalized features": nn.Sequential(
            nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 6), nn.BatchNorm1d(6), nn.Hardswish(), nn.Linear(6, 3)
        ),
    }
    return {name: randomized(model) for name, model in models.items()}


def _values(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels of unit gain; positive vectors, which also do for variances."""
    if len(shape) == 1:
        return generator.uniform(0.2, 1.0, shape)
    return generator.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def keras_models() -> dict[str, keras.Model]:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    shape = (HEIGHT, WIDTH, 3)
    image = keras.Input(shape)
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(6.0, name="six")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="third")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(10, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    residual = keras.Model(image, layers.Softmax(name="softmax")(layers.Dense(4, name="logits")(x)), name="residual")
    models = [
        residual,
        keras.Sequential(
            [
                layers.Input(shape),
                layers.ZeroPadding2D(((0, 1), (1, 2))),
                layers.Conv2D(4, 3, activation="tanh"),
                layers.BatchNormalization(),
                layers.AveragePooling2D(2),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, activation="softmax"),
            ],
            name="sequential",
        ),
        keras.Sequential([layers.Input(shape), layers.Conv2D(4, 3), layers.Conv2D(2, 1)], name="map"),
        keras.Sequential(
            [
                layers.Input(shape),
                layers.Flatten(),
                layers.Dense(4, "tanh"),
                layers.BatchNormalization(),
                layers.Dense(3),
            ],
            name="features",
        ),
    ]
    generator = np.random.default_rng(2)
    for model in models:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights([_values(generator, weight.shape) for weight in layer.get_weights()])
    return {model.name: model for model in models}
