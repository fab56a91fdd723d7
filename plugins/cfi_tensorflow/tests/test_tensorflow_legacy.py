"""Models of Keras 2, under their own layers' names: with a stand-in of a few lines for the library."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import cfi_core as cfi
from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()


class Layer(tf.Module):
    """As Keras 2 calls its layers."""

    def __init__(self, name: str, units: int, width: int) -> None:
        super().__init__(name)
        self.kernel = tf.Variable(np.random.default_rng(units).normal(size=(width, units)).astype(np.float32))

    def __call__(self, x: Any) -> Any:
        return self.call(x)

    def call(self, x: Any) -> Any:
        return tf.nn.relu(x @ self.kernel)

    def _flatten_layers(self, recursive: bool, include_self: bool) -> list[Any]:
        assert not recursive
        assert not include_self
        return []


class Model(Layer):
    """A stack of layers, one of which may be such a stack."""

    _is_graph_network = True

    def __init__(self, name: str, layers: list[Any], softmax: bool = False) -> None:
        super().__init__(name, 1, 1)
        self.layers, self.softmax = layers, softmax

    def __call__(self, x: Any, training: bool | None = None) -> Any:
        return self.call(x)

    def call(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return tf.nn.softmax(x) if self.softmax else x


@pytest.fixture(autouse=True)
def keras_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", SimpleNamespace(Model=Model))


@pytest.fixture
def model() -> Model:
    return Model("outer", [Layer("first", 6, 4), Model("inner", [Layer("second", 5, 6)]), Layer("last", 3, 5)])


@pytest.fixture
def rows() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random((3, 4)), tf.float32)


def test_layers_go_by_their_own_names(model: Model, rows: tf.Tensor) -> None:
    names = [layer.name for layer in ADAPTER.layers(model, [rows])]
    assert names == ["first", "inner", "inner/second", "last"]
    inner = model.layers[1].layers[0]
    assert ADAPTER.layer_name(model, inner) == ADAPTER.layer_name(model, "second") == "inner/second"
    assert ADAPTER.layer_object(model, "inner/second") is inner
    assert ADAPTER.layer_name(model, "sequential/second/MatMul") is None


def test_activations_and_gradients_are_those_of_the_layers(model: Model, rows: tf.Tensor) -> None:
    first, second, last = (
        layer.kernel.numpy() for layer in (model.layers[0], model.layers[1].layers[0], model.layers[2])
    )
    hidden = np.maximum(rows.numpy() @ first, 0)
    inner = np.maximum(hidden @ second, 0)
    outputs = np.maximum(inner @ last, 0)
    found = ADAPTER.activations(model, [rows])
    np.testing.assert_allclose(found["first"], hidden, rtol=1e-6)
    np.testing.assert_allclose(found["inner/second"], inner, rtol=1e-6)
    cotangent = np.eye(3, dtype=np.float32)[[1, 1, 1]]
    gradients = ADAPTER.layer_gradients(model, [rows], [cotangent])
    np.testing.assert_allclose(gradients["inner/second"], (cotangent * (outputs > 0)) @ last.T, rtol=1e-6)
    runner = ADAPTER.runner(model, [rows], ["inner/second"])
    (activation,) = runner.run(0, [rows])
    np.testing.assert_allclose(activation, inner, rtol=1e-6)
    (replaced,) = runner.run(1, [rows, activation * 0])
    np.testing.assert_array_equal(replaced, np.zeros((3, 3), np.float32))


def test_a_softmax_is_cut_off_and_the_layers_stay(rows: tf.Tensor) -> None:
    model = Model("outer", [Layer("first", 6, 4), Layer("last", 3, 6)], softmax=True)
    logits = ADAPTER.without_softmax(model, [rows])
    found = ADAPTER.activations(logits, [rows])
    np.testing.assert_allclose(ADAPTER.outputs(logits, [rows]), found["last"], rtol=1e-6)
    assert [layer.name for layer in ADAPTER.layers(logits)] == ["first", "last"]


def test_what_is_no_model_of_it_stays_a_function(model: Model, rows: tf.Tensor) -> None:
    function = ADAPTER.load(lambda x: model(x))
    assert "first" not in [layer.name for layer in ADAPTER.layers(function, [rows])]
    assert cfi.layers(model, rows)[0].kind == "Layer"
