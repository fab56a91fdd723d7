"""JAX: functions, flax and equinox modules; all of them go across, for no toolset is of JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, row
from model_rows.hands import ablation, cam, jax_gradient

IMAGES = np.random.default_rng(7).normal(size=(2, 12, 16, 3)).astype(np.float32)
ROWS = np.random.default_rng(3).normal(size=(3, 6)).astype(np.float32)


def calls_on(model: Any, layer: str, parts: tuple[Callable[[Any], Any], Callable[[Any], Any]]) -> Iterable[Call]:
    """Of a classifier of images: `parts` are the functions before and behind the layer."""
    front, rest = parts
    images = IMAGES
    score = lambda x: rest(front(x))[:, 1]  # noqa: E731 - the score of two calls
    at = lambda: cam(np.asarray(front(images)), jax_gradient(lambda x: rest(x)[:, 1], front(images)), channel=3)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * jax_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: jax_gradient(score, images),
        ),
        answer(lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer=layer), at),
        answer(lambda: cfi.attribute(model, "grad_cam", "tf-explain", inputs=images, target=1, layer=layer), at),
    ]


@row("JAX: a function", quick=True)
def function() -> Iterable[Call]:
    import jax
    import jax.numpy as jnp

    weights = jax.random.normal(jax.random.key(0), (6, 3))

    def model(rows: Any) -> Any:
        return jnp.tanh(rows @ weights)

    rows = jnp.asarray(ROWS)
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=rows, target=1),
            lambda: ROWS * jax_gradient(lambda x: model(x)[:, 1], ROWS),
        ),
        answer(
            lambda: cfi.attribute(jax.jit(model), "saliency", "tf-keras-vis", inputs=rows, target=1),
            lambda: jax_gradient(lambda x: model(x)[:, 1], ROWS),
        ),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=rows, target=1),
            lambda: ablation(lambda x: np.asarray(model(x)[:, 1]), ROWS),
        ),
    ]


@row("JAX: a function of a mapping of arrays", quick=True)
def of_mapping() -> Iterable[Call]:
    import jax
    import jax.numpy as jnp

    weights = jax.random.normal(jax.random.key(0), (6, 3))

    def model(rows: Any, scale: Any) -> Any:
        return {"scores": jnp.tanh(rows @ weights) * scale[:, None], "loss": (rows**2).mean()}

    given = {"scale": jnp.asarray([1, 2, 3]), "rows": jnp.asarray(ROWS)}
    by_hand = lambda: jax_gradient(lambda x: model(x, given["scale"])["scores"][:, 1], ROWS)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=given, target=("scores", 1)),
            lambda: {"rows": ROWS * by_hand()},
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=given, target=("scores", 1)),
            lambda: {"rows": by_hand()},
        ),
    ]


@row("flax linen: a bound module", quick=True)
def linen() -> Iterable[Call]:
    import flax.linen as nn
    import jax

    class Classifier(nn.Module):
        def setup(self) -> None:
            self.conv, self.head = nn.Conv(6, (3, 3)), nn.Dense(5)

        def __call__(self, images: Any) -> Any:
            return self.rest(self.conv(images))

        def rest(self, maps: Any) -> Any:
            return self.head(nn.relu(maps).reshape(len(maps), -1))

    module = Classifier()
    model = module.bind(module.init(jax.random.key(0), IMAGES))
    return calls_on(model, "conv", (lambda x: model.conv(x), model.rest))


@row("flax nnx", quick=True)
def nnx() -> Iterable[Call]:
    from flax import nnx

    class Classifier(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
            self.head = nnx.Linear(12 * 16 * 6, 5, rngs=rngs)

        def __call__(self, images: Any) -> Any:
            return self.rest(self.conv(images))

        def rest(self, maps: Any) -> Any:
            return self.head(nnx.relu(maps).reshape(len(maps), -1))

    model = Classifier(nnx.Rngs(0))
    return calls_on(model, "conv", (model.conv, model.rest))


@row("equinox", "equinox")
def equinox() -> Iterable[Call]:
    import equinox as eqx
    import jax

    class Classifier(eqx.Module):
        first: eqx.nn.Linear
        second: eqx.nn.Linear

        def __init__(self) -> None:
            one, other = jax.random.split(jax.random.key(0))
            self.first, self.second = eqx.nn.Linear(6, 8, key=one), eqx.nn.Linear(8, 3, key=other)

        def __call__(self, rows: Any) -> Any:
            return self.rest(jax.vmap(self.first)(rows))

        def rest(self, hidden: Any) -> Any:
            return jax.vmap(self.second)(jax.nn.relu(hidden))

    model, rows = Classifier(), ROWS
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=rows, target=1),
            lambda: rows * jax_gradient(lambda x: model(x)[:, 1], rows),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=rows, target=1),
            lambda: jax_gradient(lambda x: model(x)[:, 1], rows),
        ),
        answer(
            lambda: cfi.attribute(model, "layer_gradient_x_activation", "captum", inputs=rows, target=1, layer="first"),
            lambda: hidden_times_gradient(jax.vmap(model.first)(rows), lambda x: model.rest(x)[:, 1]),
        ),
    ]


def hidden_times_gradient(hidden: Any, score: Callable[[Any], Any]) -> np.ndarray:
    """What a layer gives times the derivative there."""
    return np.asarray(hidden) * jax_gradient(score, np.asarray(hidden))


@row("equinox: jax.vmap of eqx.nn.MLP, which takes one sample", "equinox")
def equinox_mlp() -> Iterable[Call]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    model, rows = eqx.nn.MLP(6, 3, 8, 1, key=jax.random.key(0)), jnp.asarray(ROWS)
    score = lambda x: jax.vmap(model)(x)[:, 1]  # noqa: E731 - the score of two calls
    return [
        answer(
            lambda: cfi.attribute(jax.vmap(model), "input_x_gradient", "captum", inputs=rows, target=1),
            lambda: ROWS * jax_gradient(score, ROWS),
        ),
        answer(
            lambda: cfi.attribute(jax.vmap(model), "saliency", "tf-keras-vis", inputs=rows, target=1),
            lambda: jax_gradient(score, rows),
        ),
    ]
