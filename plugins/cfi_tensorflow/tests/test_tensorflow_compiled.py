"""Graphs of Keras layers as compiled functions: they give what the model gives, as it is now."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cfi_tensorflow.adapter import TensorFlowAdapter
from cfi_tensorflow.compiled import CompiledModel

ADAPTER = TensorFlowAdapter()


def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, [layers.Dense(4, name="one")(x), layers.Dense(2, name="two")(x)])


@pytest.fixture
def model() -> keras.Model:
    return network()


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8, 6, 3)).astype(np.float32)


def compiled(model: keras.Model) -> CompiledModel:
    made = ADAPTER.compiled(model, [ADAPTER.tensor(samples(2), model)])
    assert isinstance(made, CompiledModel)
    return made


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("given", [(0,), (1,), (0, 1)])
def test_outputs_and_gradients_are_those_of_the_model(model, count, given):
    made, tensors = compiled(model), [ADAPTER.tensor(samples(count), model)]
    cotangents = [np.ones((count, width), np.float32) if i in given else None for i, width in enumerate((4, 2))]
    for one, other in zip(ADAPTER.outputs(made, tensors), ADAPTER.outputs(model, tensors), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    found, expected = (ADAPTER.vjp(each, tensors, cotangents) for each in (made, model))
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert any(callable(getattr(one, "get_concrete_function", None)) for one in made._functions.values())


def test_a_weight_that_changes_is_seen(model):
    made, tensors = compiled(model), [ADAPTER.tensor(samples(2), model)]
    before = ADAPTER.outputs(made, tensors)[0]
    model.get_layer("conv").kernel.assign(2 * model.get_layer("conv").kernel)
    after = ADAPTER.outputs(made, tensors)[0]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, ADAPTER.outputs(model, tensors)[0], rtol=1e-5, atol=1e-6)


def test_what_needs_values_runs_as_the_model_does():
    """A choice by value, which a graph has no value for."""

    def choose(inputs):
        return [inputs[0] * (2 if float(tf.reduce_sum(inputs[0])) > 0 else 3)]

    made = CompiledModel(choose, [tf.ones((2, 3))])
    for sign, factor in ((1, 2), (-1, 3)):
        np.testing.assert_array_equal(made.run([sign * tf.ones((2, 3))])[0], np.full((2, 3), sign * factor))
        outputs, gradients = made.pull([sign * tf.ones((2, 3))], [np.ones((2, 3), np.float32)])
        np.testing.assert_array_equal(outputs[0], np.full((2, 3), sign * factor))
        np.testing.assert_array_equal(gradients[0], np.full((2, 3), factor))


def test_what_is_another_when_compiled_runs_as_the_model_does():
    def by_mode(inputs):
        return [inputs[0] * (2 if tf.executing_eagerly() else 3)]

    made = CompiledModel(by_mode, [tf.ones((2, 3))])
    for _ in range(2):
        np.testing.assert_array_equal(made.run([tf.ones((2, 3))])[0], np.full((2, 3), 2))


def test_no_other_layers_than_those_of_keras_are_compiled(model):
    class Own(layers.Layer):
        def call(self, x):
            return 2 * x

    changed = network()
    changed.get_layer("conv").call = lambda x: x
    sequential = keras.Sequential([keras.Input((3,)), Own()])
    inputs = [ADAPTER.tensor(samples(2), model)]
    assert ADAPTER.compiled(changed, inputs) is None
    assert ADAPTER.compiled(sequential, [tf.ones((2, 3))]) is None
    assert ADAPTER.compiled(tf.function(lambda x: x), inputs) is None


def test_it_does_not_keep_the_model():
    model = network()
    made = compiled(ADAPTER.twin(model))
    ADAPTER.outputs(made, [ADAPTER.tensor(samples(2), model)])
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None
