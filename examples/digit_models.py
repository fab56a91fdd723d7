"""The network of the experiments on digits, in PyTorch and in Keras, and how it is trained.

One architecture: two convolutions (the first with 20 channels) with rectifiers and pools, and one linear layer with a
logit for each class. `head="mean"` takes the mean over all places before the linear layer, as ResNet does, where
`"flatten"` gives each place weights of its own, as LeNet and VGG do.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import numpy as np

Head = Literal["flatten", "mean"]
CHANNELS, FEATURES, KERNEL, CLASSES = 20, 32, 5, 10
LAYERS = ("conv1", "conv2")


def torch_cnn(head: Head = "flatten", seed: int = 0) -> Any:
    """The network as a PyTorch module, untrained; takes (sample, 1, 28, 28)."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, CHANNELS, KERNEL),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(CHANNELS, FEATURES, KERNEL),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2) if head == "flatten" else nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                digit=nn.Linear(FEATURES * (16 if head == "flatten" else 1), CLASSES),
            )
        )


def keras_cnn(seed: int = 0) -> Any:
    """The network as a Keras model, untrained; takes (sample, 28, 28, 1)."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(CHANNELS, KERNEL, name="conv1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(FEATURES, KERNEL, name="conv2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, name="digit"),
        ],
        name="digit_cnn",
    )


def train_torch(
    model: Any, images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int = 0, rate: float = 3e-3
) -> Any:
    """Trains on images (sample, 28, 28, 1), and returns the model, for inference."""
    import torch

    pixels, classes = torch.from_numpy(channels_first(images)), torch.from_numpy(labels).long()
    steps = epochs * -(-len(pixels) // 64)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    draw = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels), generator=draw).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels[batch]), classes[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def train_keras(model: Any, images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int = 0) -> Any:
    """Trains likewise, and returns the model."""
    import keras

    keras.utils.set_random_seed(seed)
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(3e-4, steps, warmup_target=3e-3, warmup_steps=steps // 4)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """The logits of either model for images (sample, 28, 28, 1)."""
    if hasattr(model, "predict"):
        return np.asarray(model.predict(images, batch_size=256, verbose=0))
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(channels_first(images))))


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """The part that is named rightly."""
    return float((outputs(model, images).argmax(1) == labels).mean())


def channels_first(images: np.ndarray) -> np.ndarray:
    """(sample, height, width, channel) as PyTorch has it."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))
