"""Keras 3 models on its other backends, each in a process that was started with that one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, refusal, row, seed
from model_rows.hands import cam, jax_gradient, torch_gradient

IMAGES = np.random.default_rng(7).normal(size=(2, 12, 16, 3)).astype(np.float32)
ONE_BACKEND = "tf-keras-vis runs Keras on TensorFlow, and a process has one backend of Keras"


def cnn() -> Any:
    """A small convolutional network in two parts, so that the derivative at the layer between can be had by hand."""
    import keras

    seed()
    layers = keras.layers
    images = keras.Input((12, 16, 3))
    maps = layers.Conv2D(6, 3, activation="relu", name="conv")(images)
    model = keras.Model(images, layers.Dense(5, name="head")(layers.Flatten()(maps)))
    between = keras.Input(maps.shape[1:])
    return model, keras.Model(images, maps), keras.Model(between, model.get_layer("head")(layers.Flatten()(between)))


def calls(gradient: Any) -> Iterable[Call]:
    """Natively or across, and at a layer; `gradient` is of the backend's own framework."""
    model, front, rest = cnn()
    images = IMAGES
    at = lambda: np.asarray(front(images).detach() if hasattr(front(images), "detach") else front(images))  # noqa: E731
    by_hand = lambda: gradient(lambda x: model(x)[:, 1], images)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * by_hand(),
        ),
        answer(lambda: cfi.attribute(model, "saliency", "zennit", inputs=images, target=1), by_hand),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer="conv"),
            lambda: cam(at(), gradient(lambda x: rest(x)[:, 1], at()), channel=3),
        ),
        refusal(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            cfi.RouteError,
            ONE_BACKEND,
        ),
    ]


@row("Keras on the torch backend", quick=True, environment={"KERAS_BACKEND": "torch"})
def on_torch() -> Iterable[Call]:
    return calls(torch_gradient)


@row("Keras on the JAX backend", quick=True, environment={"KERAS_BACKEND": "jax"})
def on_jax() -> Iterable[Call]:
    return calls(jax_gradient)
