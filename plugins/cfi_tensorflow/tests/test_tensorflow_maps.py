"""Layers of Keras models shown as maps: the model computes the same, and no mark is left on the user's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cfi_core.errors import LayerError
from cfi_core.framework import Layout
from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()
CASES = [
    ((8, 3), Layout((2, 3), (1, 2, 3, 4, 5, 6), 2, others=(0, 7))),
    ((3, 8), Layout((2, 3), (7, 5, 3, 1, 0, 2), 1, others=(4, 6))),
    ((2, 4, 3), Layout((2, 4), tuple(range(8)), 3)),
    ((3, 2, 4), Layout((4, 2), (0, 1, 4, 5, 2, 3, 6, 7), 1)),
]


def make(shape: tuple[int, ...], *, sequential: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(24, name="before"), layers.Reshape(shape, name="layer"), layers.Flatten(name="flat")]
    if sequential:
        return keras.Sequential([keras.Input((5,)), *parts, layers.Dense(3, activation="tanh")])
    inputs = keras.Input((5,))
    given = parts[1](parts[0](inputs))
    # A path around the layer, and one layer used twice behind it.
    twice = layers.Dense(24, activation="tanh", name="twice")
    hidden = layers.Add()([parts[2](given), parts[0].output])
    return keras.Model(inputs, layers.Dense(3, activation="tanh")(twice(twice(hidden))))


def marks(model: keras.Model) -> list[tuple[str, int, int]]:
    return [(one.name, len(one._inbound_nodes), len(one._outbound_nodes)) for one in model.operations]


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize(("shape", "layout"), CASES)
def test_a_layer_is_shown_as_a_map_without_changing_anything(shape, layout, sequential):
    model, x = make(shape, sequential=sequential), tf.random.normal((2, 5), seed=1)
    before = marks(model._functional if sequential else model)
    twin = ADAPTER.twin(model)
    shown_model, shown = ADAPTER.show_map(twin, ADAPTER.layer_object(twin, "layer"), layout)
    assert marks(model._functional if sequential else model) == before
    np.testing.assert_allclose(shown_model(x), model(x), rtol=1e-6, atol=1e-7)
    plain = ADAPTER.activations(model, [x], ["layer"])["layer"]
    reader = keras.Model(shown_model.inputs, [shown.output, *shown_model.outputs])
    seen, _ = reader(x)
    np.testing.assert_allclose(seen, layout.in_space(plain), rtol=1e-6, atol=1e-7)
    cotangent = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    expected = ADAPTER.layer_gradients(model, [x], [cotangent], ["layer"])["layer"]
    with tf.GradientTape() as tape:
        seen, outputs = reader(x)
        value = tf.reduce_sum(outputs * cotangent)
    gradient = tape.gradient(value, seen)
    np.testing.assert_allclose(gradient, layout.in_space(expected), rtol=1e-5, atol=1e-6)
    keras.Model(model.inputs, model.outputs)(x)  # the user's graph is whole


def test_a_layer_inside_a_nested_model_is_refused():
    inner = make((8, 3))
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(inputs))
    with pytest.raises(LayerError, match="not at the top of a functional model"):
        ADAPTER.show_map(model, inner.get_layer("layer"), CASES[0][1])
