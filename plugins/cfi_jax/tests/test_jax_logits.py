"""A softmax at the end is found where there is one, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_models import ADAPTER, images, linen_cnn, relative, tensors, whole

from cfi_core.errors import InputError

W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)


@pytest.mark.parametrize(
    "softmax",
    [
        jax.nn.softmax,
        jax.nn.log_softmax,
        nnx.softmax,
        jax.jit(jax.nn.softmax),
        lambda z: jax.jit(lambda z: jax.nn.softmax(z, axis=1))(z),
        lambda z: jax.nn.softmax(z, axis=0),
    ],
)
def test_it_is_left_out(softmax: Callable[[Any], Any]) -> None:
    for model in (lambda x: softmax(x @ W), jax.jit(lambda x: softmax(x @ W))):
        logits = ADAPTER.without_softmax(model, [X])
        assert logits is not None
        np.testing.assert_array_equal(ADAPTER.outputs(logits, [X]), X @ W)
        np.testing.assert_allclose(
            ADAPTER.vjp(logits, [X], [np.ones((2, 4), np.float32)])[1][0], np.ones((2, 4)) @ W.T, rtol=1e-5
        )
        results, pullback = ADAPTER.runner(logits, [X]).linearize(0, [X])
        assert relative(results[0], X @ W) < 1e-6
        assert relative(pullback([jnp.ones((2, 4))], [True])[0], np.ones((2, 4)) @ W.T) < 1e-5


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        lambda z: jax.nn.softmax(z) * 2,
        lambda z: jax.nn.softmax(z) @ W.T,
        jax.nn.sigmoid,
        lambda z: jnp.exp(z) / jnp.exp(z).sum(1, keepdims=True),
        lambda z: (
            jnp.exp(z - z.max(1, keepdims=True)) / jnp.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True) ** 2
        ),
    ],
)
def test_nothing_else_is(end: Callable[[Any], Any]) -> None:
    assert ADAPTER.without_softmax(lambda x: end(x @ W), [X]) is None


def test_of_several_outputs_those_that_are_probabilities() -> None:
    def model(x: jax.Array) -> dict[str, Any]:
        return {"scores": jax.nn.softmax(x @ W), "hidden": x * 2}

    logits = ADAPTER.without_softmax(jax.jit(model), [X])
    outputs = ADAPTER.outputs(logits, [X])
    np.testing.assert_array_equal(outputs["scores"], X @ W)
    np.testing.assert_array_equal(outputs["hidden"], X * 2)


def test_a_result_that_is_used_elsewhere_keeps_its_value_there() -> None:
    def model(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = jax.jit(lambda x: jax.nn.softmax(x @ W))(x)
        return p, (p**2).sum(1)

    logits = ADAPTER.without_softmax(model, [X])
    if logits is not None:
        np.testing.assert_allclose(ADAPTER.outputs(logits, [X])[1], model(X)[1], rtol=1e-6)


def test_layers_before_it_are_opened_as_ever() -> None:
    (x,) = tensors(images())
    logits = ADAPTER.without_softmax(linen_cnn(softmax=True), [x])
    plain = linen_cnn(softmax=False)  # the same weights
    runner, values = whole(logits, [x], ["block", "head"])
    results, pullback = runner.linearize(2, values)
    assert relative(results[0], plain(x)) < 1e-6
    cotangent = np.ones((2, 4), np.float32)
    at_layers = ADAPTER.layer_gradients(plain, [x], [cotangent])
    assert relative(pullback([jnp.asarray(cotangent)], [True] * 3)[2], at_layers["head"]) < 1e-6
    assert relative(ADAPTER.layer_gradients(logits, [x], [cotangent])["block"], at_layers["block"]) < 1e-5
    assert [layer.name for layer in ADAPTER.layers(logits, [x])] == [layer.name for layer in ADAPTER.layers(plain, [x])]


def test_a_layer_that_is_the_softmax_itself_is_refused() -> None:
    class Softmax(nnx.Module):
        def __call__(self, z: jax.Array) -> jax.Array:
            return jax.nn.softmax(z)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.linear = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
            self.softmax = Softmax()

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.softmax(self.linear(x))

    logits = ADAPTER.without_softmax(Model(), [X])
    runner, values = whole(logits, [X], ["linear"])
    np.testing.assert_array_equal(runner.run(1, values)[0], values[1])
    runner, values = whole(logits, [X], ["softmax"])
    with pytest.raises(InputError, match="Choose a layer before it"):
        runner.run(1, values)


def test_a_model_that_cannot_be_traced_is_left_as_it_is() -> None:
    assert ADAPTER.without_softmax(lambda x: jax.nn.softmax(x) if x.sum() > 0 else x, [X]) is None
