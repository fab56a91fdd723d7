"""JAX models from the output of their embedding on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cfi_jax.adapter import JaxAdapter

ADAPTER = JaxAdapter()
TOKENS = jnp.array([[5, 2, 9, 4], [1, 1, 7, 3]])
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(12, 6)), jnp.float32)
PLACES = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)), jnp.float32)


def rest(vectors: Any) -> Any:
    return jnp.tanh(vectors + PLACES).mean(1)


class Nnx(nnx.Module):
    """Its embedding is called back to make scores."""

    def __init__(self) -> None:
        self.words = nnx.Embed(12, 6, rngs=nnx.Rngs(0))
        self.words.embedding = nnx.Param(TABLE)

    def __call__(self, tokens: Any) -> Any:
        return self.words.attend(rest(self.words(tokens)))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        return rest(linen.Embed(12, 6, name="words")(tokens))


MODELS: dict[str, tuple[Callable[[], Any], str, Callable[[Any], Any]]] = {
    "take": (lambda: lambda tokens: rest(jnp.take(TABLE, tokens, axis=0)), "gather", rest),
    "indexing": (lambda: lambda tokens: rest(TABLE[tokens]), "gather", rest),
    "jit": (lambda: jax.jit(lambda tokens: rest(jax.jit(lambda t: TABLE[t])(tokens))), "gather", rest),
    "vmap": (lambda: jax.vmap(lambda tokens: rest(TABLE[tokens][None])[0]), "gather", rest),
    "clipped": (lambda: lambda tokens: rest(TABLE[jnp.clip(tokens, 0, 11)]), "gather", rest),
    "nnx": (Nnx, "words", lambda vectors: rest(vectors) @ TABLE.T),
    "linen": (lambda: Linen().bind({"params": {"words": {"embedding": TABLE}}}), "words", rest),
}


@pytest.mark.parametrize("kind", MODELS)
def test_from_the_embedding_on_it_is_the_same_model(kind: str) -> None:
    make, layer, hand = MODELS[kind]
    model = ADAPTER.load(make())
    found = ADAPTER.split_embedding(model, [TOKENS])
    assert found is not None and found.layer == layer
    np.testing.assert_array_equal(found.activation, TABLE[TOKENS])
    # With vectors of its own, and another number of samples than it was found with.
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 6)), jnp.float32)
    tokens = jnp.zeros((3, 4), TOKENS.dtype)
    outputs, (gradient, none) = ADAPTER.vjp(found.model, [vectors, tokens], [np.ones(hand(vectors).shape, np.float32)])
    np.testing.assert_allclose(outputs[0], hand(vectors), atol=1e-5)
    expected = jax.grad(lambda given: hand(given).sum())(vectors)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert none is None
    bound = ADAPTER.bind(found.model, [tokens[:1]])
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(bound), [vectors]), hand(vectors), atol=1e-5)


def test_layers_behind_the_embedding_are_opened() -> None:
    class Two(nnx.Module):
        def __init__(self) -> None:
            self.words, self.mix = nnx.Embed(12, 6, rngs=nnx.Rngs(0)), nnx.Linear(6, 3, rngs=nnx.Rngs(1))

        def __call__(self, tokens: Any) -> Any:
            return jnp.tanh(self.mix(self.words(tokens))).sum(1)

    model = Two()
    found = ADAPTER.split_embedding(model, [TOKENS])
    assert found is not None
    vectors = jnp.ones((2, 4, 6))
    runner = ADAPTER.runner(found.model, [vectors, TOKENS], ["mix"])
    (mixed,) = runner.run(0, [vectors, TOKENS])
    np.testing.assert_allclose(mixed, model.mix(vectors), atol=1e-6)
    (outputs,) = runner.run(1, [vectors, TOKENS, 2 * mixed])
    np.testing.assert_allclose(outputs, jnp.tanh(2 * mixed).sum(1), atol=1e-6)
    np.testing.assert_allclose(ADAPTER.activations(found.model, [vectors, TOKENS])["mix"], mixed, atol=1e-6)
    assert ADAPTER.fingerprint(found.model) != ADAPTER.fingerprint(model)


@pytest.mark.parametrize(
    "function",
    [
        lambda tokens: jax.nn.one_hot(tokens, 12).mean(1),
        lambda tokens: (TABLE[tokens] + TABLE[tokens + 1]).mean(1),
        lambda tokens: jnp.take_along_axis(jnp.ones((2, 4)) * tokens, tokens % 4, 1),
    ],
)
def test_there_may_be_none_or_several(function: Callable[[Any], Any]) -> None:
    assert ADAPTER.split_embedding(function, [TOKENS]) is None
