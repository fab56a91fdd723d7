"""Small channels-last CNNs, on RGB images that are not square, and runs of the plugin's methods on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cfi_core.coexistence import load_safely

load_safely()  # tests of other plugins may run in the same process

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from cfi_core.contract import MethodRequest, MethodResult, Target  # noqa: E402
from cfi_core.specs import Head, MethodSpec  # noqa: E402
from cfi_tfkerasvis.plugin import cfi_methods  # noqa: E402
from cfi_tfkerasvis.run import run  # noqa: E402

SHAPE = (10, 8, 3)
CLASSES = 4

SPECS: dict[str, MethodSpec] = {spec.key: spec for spec in cfi_methods()}


def build(kind: str = "functional", activation: str | None = None) -> Any:
    """A CNN with the same weights whatever its kind and the activation of its last layer."""
    layers = [
        keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1"),
        keras.layers.MaxPooling2D(2, name="pool"),
        keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(CLASSES, activation=activation, name="head"),
    ]
    first = keras.Input(SHAPE)
    if kind == "sequential":
        model = keras.Sequential([first, *layers])
    else:
        tensor = first
        for layer in layers:
            tensor = layer(tensor)
        model = keras.Model(first, tensor)
    generator = np.random.default_rng(5)
    model.set_weights([generator.normal(0, 0.4, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """As core does before a run."""
    np.random.seed(0)
    tf.random.set_seed(0)


@pytest.fixture(params=["functional", "sequential"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str) -> Any:
    return build(kind)


@pytest.fixture
def cnn() -> Callable[..., Any]:
    return build


@pytest.fixture
def images() -> Any:
    return tf.constant(np.random.default_rng(3).uniform(-1, 1, (3, *SHAPE)).astype(np.float32))


@pytest.fixture
def target() -> Target:
    return Target(index=((2,), (0,), (3,)))


@pytest.fixture
def ask() -> Callable[..., MethodResult]:
    """Runs a method: `ask(key, model, images, target, layer="conv2", exec_args={…})`."""

    def ask(
        key: str,
        model: Any,
        inputs: Any = (),
        target: Target | None = None,
        *,
        layer: str | None = None,
        neuron: Any = None,
        init_args: dict[str, Any] | None = None,
        exec_args: dict[str, Any] | None = None,
        head: Head = Head.LOGIT,
        seed: int = 0,
        channel_axis: tuple[int | None, ...] = (3,),
        layer_channel_axis: int | None = None,
        defaults: str = "raw",
    ) -> MethodResult:
        own = SPECS[key].complete(defaults, init_args or {}, exec_args or {})
        return run(
            MethodRequest(
                method=SPECS[key],
                model=model,
                inputs=tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,),
                target=target,
                layer=() if layer is None else (model.get_layer(layer),),
                neuron=neuron,
                init_args=own[0],
                exec_args=own[1],
                head=head,
                seed=seed,
                channel_axis=channel_axis,
                layer_channel_axes=() if layer is None else (layer_channel_axis,),
            )
        )

    return ask
