"""Keras models and TensorFlow functions that hold inputs, and from the output of their embedding on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from cfi_core.framework import flatten
from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER, L = TensorFlowAdapter(), keras.layers
TOKENS = np.array([[5, 2, 9, 4], [1, 1, 7, 3], [8, 8, 2, 0]], np.int32)
TABLE = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
PLACES = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)


def tokens() -> Any:
    return keras.Input((4,), dtype="int32")


def masked() -> keras.Model:
    """Zeros are padding, of which the embedding tells the layers behind it."""
    given = tokens()
    return keras.Model(given, L.Dense(3)(L.LSTM(5)(L.Embedding(12, 6, mask_zero=True, name="words")(given))))


def sequential() -> keras.Model:
    return keras.Sequential([tokens(), L.Embedding(12, 6, name="words"), L.Flatten(), L.Dense(3)])


def nested() -> keras.Model:
    inner = keras.Sequential([tokens(), L.Embedding(12, 6, name="words"), L.Dense(4)], name="inner")
    given = tokens()
    return keras.Model(given, L.Dense(3)(L.Flatten()(inner(given))))


def tied() -> keras.Model:
    """The embedding is called once more, to make scores of words."""
    given, words = tokens(), L.ReversibleEmbedding(12, 6, tie_weights=True, name="words")
    return keras.Model(given, L.GlobalAveragePooling1D()(words(L.Dense(6)(words(given)), reverse=True)))


class Composite(L.Layer):
    def __init__(self) -> None:
        super().__init__(name="both")
        self.words, self.places = L.Embedding(12, 6, name="words"), L.Embedding(4, 6, name="places")

    def call(self, given: Any) -> Any:
        return self.words(given) + self.places(tf.range(4))[None]


def composite() -> keras.Model:
    given = tokens()
    return keras.Model(given, L.Dense(3)(L.Flatten()(Composite()(given))))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.head = Composite(), L.Dense(3)

    def call(self, given: Any) -> Any:
        return self.head(tf.reduce_mean(tf.tanh(self.both(given)), 1))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(TOKENS)
    return model


def function(given: Any) -> Any:
    return tf.reduce_mean(tf.tanh(tf.gather(tf.constant(TABLE), given) + PLACES), 1)


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (masked, "words"),
    "sequential": (sequential, "words"),
    "nested": (nested, "inner/words"),
    "tied": (tied, "words"),
    "composite": (composite, "both/words"),
    "subclassed": (subclassed, "both/words"),
    "function": (lambda: ADAPTER.load(function), "GatherV2"),
    "tf.function": (lambda: ADAPTER.load(tf.function(function)), "GatherV2"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_from_the_embedding_on_it_is_the_same_model(kind: str) -> None:
    make, layer = MODELS[kind]
    model, given = make(), [tf.constant(TOKENS)]
    found = ADAPTER.split_embedding(model, given)
    assert found is not None and found.layer == layer and found.activation.shape == (3, 4, 6)
    expected = flatten(ADAPTER.outputs(ADAPTER.twin(model), given))[0]
    twin = ADAPTER.twin(found.model)
    np.testing.assert_allclose(ADAPTER.outputs(twin, [tf.constant(found.activation), *given]), expected, atol=1e-6)
    # Vectors of other tokens give what the other tokens do; of masked ones, the mask is still that of the first.
    others = [tf.constant(np.where(TOKENS, TOKENS[::-1].clip(1), 0))]
    again = ADAPTER.split_embedding(model, others)
    assert again is not None
    moved = ADAPTER.outputs(twin, [tf.constant(again.activation), *given])
    np.testing.assert_allclose(moved, ADAPTER.outputs(ADAPTER.twin(model), others), atol=1e-6)
    runner = ADAPTER.runner(twin, [tf.constant(found.activation), *given])
    results, back = runner.linearize(0, [tf.constant(found.activation), *given])
    (gradient, none) = back([tf.ones_like(results[0])], [True, False])
    assert none is None and np.abs(np.asarray(gradient)).max() > 0


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_held_is_repeated(kind: str) -> None:
    model = MODELS[kind][0]()
    found = ADAPTER.split_embedding(model, [tf.constant(TOKENS)])
    assert found is not None
    bound = ADAPTER.bind(ADAPTER.twin(found.model), [tf.constant(TOKENS[1:2])])
    expected = flatten(ADAPTER.outputs(ADAPTER.twin(model), [tf.constant(TOKENS)]))[0][1:2]
    given = ADAPTER.outputs(bound, [tf.constant(np.repeat(found.activation[1:2], 5, 0))])
    np.testing.assert_allclose(given, np.repeat(expected, 5, 0), atol=1e-6)


def test_layers_keep_their_names_and_marks() -> None:
    model = masked()
    before = {layer.name: (len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers}
    found = ADAPTER.split_embedding(model, [tf.constant(TOKENS)])
    assert found is not None
    names = {layer.name for layer in ADAPTER.layers(model)}
    assert {layer.name for layer in ADAPTER.layers(found.model)} <= names
    dense = model.layers[-1]
    assert ADAPTER.layer_name(found.model, dense) == dense.name
    assert {x.name: (len(x._inbound_nodes), len(x._outbound_nodes)) for x in model.layers} == before


def test_there_may_be_none() -> None:
    given = keras.Input((4,), dtype="int32")
    model = keras.Model(given, L.Dense(3)(keras.ops.cast(given, "float32")))
    assert ADAPTER.split_embedding(model, [tf.constant(TOKENS)]) is None
    assert ADAPTER.split_embedding(ADAPTER.load(lambda x: tf.one_hot(x, 12)), [tf.constant(TOKENS)]) is None


def test_a_subclassed_model_by_name_keeps_its_layers() -> None:
    named = ADAPTER.by_name(subclassed(), ("given",), {})
    assert [layer.name for layer in ADAPTER.layers(named)][:3] == ["both", "both/words", "both/places"]


def test_whole_numbers_as_floating_point_ones() -> None:
    given = keras.Input((4,), dtype="int32")
    hidden = L.Dense(5, activation="tanh", name="hidden", trainable=False)(L.Embedding(12, 6, trainable=False)(given))
    model = keras.Model(given, L.Dense(3)(L.Flatten()(hidden)))
    real = ADAPTER.with_real_inputs(model, ["hidden"])
    reader = keras.Model(real.inputs, [real.get_layer("hidden").output, real.output])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        values = tf.constant(TOKENS.astype(np.float32))
        tape.watch(values)
        activation, outputs = reader(values)
        score = tf.reduce_sum(outputs[:, 1])
    np.testing.assert_allclose(outputs, model(TOKENS), atol=1e-6)
    kernel = np.asarray(model.layers[-1].kernel)[:, 1].reshape(4, 5)
    np.testing.assert_allclose(tape.gradient(score, activation), np.repeat(kernel[None], 3, 0), atol=1e-6)
