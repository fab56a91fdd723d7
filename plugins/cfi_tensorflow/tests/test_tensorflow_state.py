"""What a forward pass could write to is kept, told and put back."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()


def model() -> keras.Model:
    inputs = keras.Input((4,))
    outputs = keras.layers.BatchNormalization(name="norm")(keras.layers.Dropout(0.5, name="drop")(inputs))
    return keras.Model(inputs, outputs)


def values(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def test_variables_of_layers_generators_and_numbers_are_put_back():
    given = model()
    drop, norm = given.get_layer("drop"), given.get_layer("norm")
    norm.other = tf.Variable([1.0, 2.0], name="other")
    norm.calls = 3
    before = values([*given.variables, norm.other])
    kept = ADAPTER.state(given)
    assert kept.changes(given) == ()
    keras.random.normal((1,), seed=drop.seed_generator)
    norm.moving_mean.assign(np.full(4, np.nan))
    norm.other.assign_add([1.0, 0.0])
    norm.calls += 1
    assert kept.changes(ADAPTER.twin(given)) == ("norm/moving_mean", "other")  # a generator is no weight
    assert kept.numbers(given)["norm.calls"] == 4
    kept.restore()
    for now, former in zip(values([*given.variables, norm.other]), before, strict=True):
        np.testing.assert_array_equal(now, former)
    assert norm.calls == 3 and kept.changes(given) == ()


def test_values_are_held_whatever_way_a_variable_is_written():
    """They are not copied, so this is what TensorFlow promises: nothing writes to memory that somebody has read."""
    ways = {
        "assign": lambda one: one.assign(one * 2),
        "add": lambda one: one.assign_add(tf.ones_like(one)),
        "scatter": lambda one: one.scatter_nd_update([[1]], [9.0]),
        "slice": lambda one: one[2:].assign([7.0]),
        "graph": tf.function(lambda one: one.assign_sub(tf.ones_like(one))),
        "compiled": tf.function(lambda one: one.assign_add(tf.ones_like(one)), jit_compile=True),
    }
    for name, write in ways.items():
        holder = tf.Module()
        holder.held = tf.Variable([1.0, 2.0, 3.0], name="held")
        for _ in range(2):  # after a write to some of its values a variable is read in another way
            kept = ADAPTER.state(ADAPTER.load(lambda x, holder=holder: x + holder.held))
            write(holder.held)
            assert kept.changes(None) == ("held",), name
            kept.restore()
            assert holder.held.numpy().tolist() == [1, 2, 3], name
            assert kept.changes(None) == ()


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.calls = tf.Variable(0.0, name="count"), 0
        self.half = tf.Variable(tf.ones(2, tf.bfloat16), name="half")

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def predict(self, x):
        return x + self.count


def test_variables_that_a_function_reaches():
    module, keras_model = Module(), model()

    def function(x):
        return keras_model(module.predict(x))

    for kept in (ADAPTER.state(ADAPTER.load(function)), ADAPTER.state(module.predict)):
        module.count.assign(3.0)
        assert kept.changes(None) == ("count",)
        kept.restore()
        assert module.count == 0
    kept = ADAPTER.state(ADAPTER.load(function))
    module.half.assign([2.0, 3.0])
    module.calls += 1
    keras_model.get_layer("norm").gamma.assign(np.zeros(4))
    assert set(kept.changes(None)) == {"half", "norm/gamma"}
    kept.restore()
    assert module.half.numpy().tolist() == [1, 1] and module.calls == 0
    assert keras_model.get_layer("norm").gamma.numpy().tolist() == [1, 1, 1, 1]


def test_the_types_that_a_model_computes_in():
    inputs = keras.Input((4,))
    mixed = keras.Model(inputs, keras.layers.Dense(2, dtype="mixed_bfloat16")(inputs))
    assert "bfloat16" in ADAPTER.precision(mixed)
    assert ADAPTER.precision(ADAPTER.load(lambda x: x)) == {"float32"}
