"""TensorFlow models that are not Keras: what the adapter does with them, against TensorFlow alone."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_checks import ADAPTER, apart, chain, check, random, tokens

from cfi_core.errors import InputError, LayerError
from cfi_core.framework import flatten
from cfi_tensorflow.runners import EagerRunner


class Net(tf.Module):
    """Convolution, relu, mean, dense, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = tf.Variable(random(3, 3, 2, 4) * 0.3)
        self.weights = tf.Variable(random(4, 3))

    def logits(self, x: Any) -> Any:
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, self.filters, 1, "SAME"), name="act"), [1, 2]) @ self.weights

    def __call__(self, x: Any) -> Any:
        return tf.nn.softmax(self.logits(x))


class Signed(Net):
    """The same with a signature."""

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 5, 2], name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.nn.softmax(self.logits(x))


IMAGES = random(2, 6, 5, 2)
SCALE = 2.0
STEPS: dict[str, Any] = {"steps": [tf.Variable(3.0)]}


def scaled(x: Any) -> Any:
    return tf.nn.softmax(x * SCALE)


def stepped(x: Any) -> Any:
    return [x * each for each in STEPS["steps"]]


def relu(net: Net, x: Any = IMAGES) -> Any:
    return tf.nn.relu(tf.nn.conv2d(x, net.filters, 1, "SAME"))


def kinds(folder: Path) -> dict[str, tuple[Any, Net]]:
    """The same network in every form, and the one that holds its variables."""
    net, signed = Net(), Signed()
    tf.saved_model.save(signed, str(folder))
    loaded = signed.loaded = tf.saved_model.load(str(folder))
    return {
        "module": (net, net),
        "module with a signature": (signed, signed),
        "tf.function": (tf.function(net.__call__), net),
        "concrete function": (signed.__call__.get_concrete_function(), signed),
        "restored function": (loaded.__call__, signed),
        "function": (lambda x: tf.nn.softmax(net.logits(x)), net),
        "bound method": (net.__call__, net),
    }


NAMES = [
    "module",
    "module with a signature",
    "tf.function",
    "concrete function",
    "restored function",
    "function",
    "bound method",
]


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind(kind: str, tmp_path: Path) -> None:
    given, net = kinds(tmp_path)[kind]
    model = ADAPTER.load(given)
    assert ADAPTER.load(given) is model and ADAPTER.twin(model) is model
    with pytest.raises(InputError, match="changes weights"):
        ADAPTER.twin(model, share_weights=False)
    listed = {layer.name: layer for layer in ADAPTER.layers(model, [IMAGES])}
    assert listed["act"].kind == "Relu" and listed["act"].output_shape == (6, 5, 4)
    assert not any(layer.kind in ("Const", "Identity", "ReadVariableOp") for layer in listed.values())
    check(model, [IMAGES], ["Conv2D", "act"], call=lambda x: tf.nn.softmax(net.logits(x)))
    assert apart(ADAPTER.activations(model, [IMAGES], ["act"])["act"], relu(net)) < 1e-6
    logits = ADAPTER.without_softmax(model, [IMAGES])
    check(logits, [IMAGES], ["act"], call=net.logits)
    # In closed form: the mean over 30 places, then the weights.
    cotangent = random(2, 3).numpy()
    expected = np.broadcast_to((cotangent @ net.weights.numpy().T / 30)[:, None, None], (2, 6, 5, 4))
    assert apart(ADAPTER.layer_gradients(logits, [IMAGES], [cotangent], ["act"])["act"], expected) < 1e-6
    with pytest.raises(LayerError, match=r"'nowhere'.*Choose one of: .*act"):
        ADAPTER.runner(model, [IMAGES], ["nowhere"])


@pytest.mark.parametrize("kind", ["module with a signature", "concrete function", "restored function"])
def test_signatures_declare_inputs(kind: str, tmp_path: Path) -> None:
    given, _net = kinds(tmp_path)[kind]
    model = ADAPTER.load(given)
    assert ADAPTER.input_shapes(model) == ((None, 6, 5, 2),)
    assert ADAPTER.declares_integer(model, 0) is False and ADAPTER.declares_integer(model, 1) is None
    assert {layer.name: layer.output_shape for layer in ADAPTER.layers(model)}["act"] == (6, 5, 4)
    assert ADAPTER.layer_name(model, "act") == "act" and ADAPTER.layer_name(model, "nowhere") is None
    with pytest.raises(InputError, match="takes 1 inputs, and 2 are given"):
        ADAPTER.outputs(model, [IMAGES, IMAGES])


def test_a_module_declares_nothing_without_a_signature() -> None:
    model = ADAPTER.load(Net())
    assert ADAPTER.input_shapes(model) is None and ADAPTER.declares_integer(model, 0) is None
    assert ADAPTER.layers(model) == () and ADAPTER.layer_name(model, "act") == "act"


@pytest.mark.parametrize("kind", NAMES)
def test_changed_variables_are_noticed(kind: str, tmp_path: Path) -> None:
    given, net = kinds(tmp_path)[kind]
    model = ADAPTER.load(given)
    before, runner, output = (
        ADAPTER.fingerprint(model),
        ADAPTER.runner(model, [IMAGES]),
        ADAPTER.outputs(model, [IMAGES]),
    )
    ADAPTER.outputs(model, [IMAGES])
    assert ADAPTER.fingerprint(model) == before
    variable = given.variables[0] if kind == "concrete function" else net.filters
    if kind == "restored function":
        variable = given.concrete_functions[0].variables[0]
    variable.assign(variable * 2.0)
    assert ADAPTER.fingerprint(model) != before
    assert apart(runner.run(0, [IMAGES])[0], output) < 1e-6
    changed = ADAPTER.outputs(model, [IMAGES])
    assert apart(changed, output) > 1e-3
    assert apart(ADAPTER.runner(model, [IMAGES]).run(0, [IMAGES])[0], changed) < 1e-6


def test_changed_globals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (scaled, lambda x: scaled(x)):
        model = ADAPTER.load(function)
        before = ADAPTER.fingerprint(model)
        assert ADAPTER.fingerprint(model) == before
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "SCALE", 3.0)
            assert ADAPTER.fingerprint(model) != before
        assert ADAPTER.fingerprint(model) == before
    model = ADAPTER.load(stepped)
    before = ADAPTER.fingerprint(model)
    STEPS["steps"][0].assign_add(1.0)
    assert ADAPTER.fingerprint(model) != before


@pytest.mark.parametrize("levels", [5, 5000])
def test_no_variable_lies_too_deep_to_be_seen(levels: int) -> None:
    variable = tf.Variable(1.0)
    held: Any = variable
    for _ in range(levels):
        held = [held]
    model = ADAPTER.load(lambda x: x * len(held))
    before = ADAPTER.fingerprint(model)
    assert ADAPTER.fingerprint(model) == before
    variable.assign(2.0)
    assert ADAPTER.fingerprint(model) != before


def test_a_signature_by_name_with_a_dict_of_outputs(tmp_path: Path) -> None:
    """Its inputs come in the order of their names."""

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="z"), tf.TensorSpec([None, 2], name="a")])
        def __call__(self, z: Any, a: Any) -> Any:
            return {"second": tf.reduce_sum(z * 3.0, 1, keepdims=True) * a, "first": z}

    tf.saved_model.save(Two(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    model = ADAPTER.load(loaded.signatures["serving_default"])
    assert ADAPTER.input_shapes(model) == ((None, 2), (None, 3))
    a, z = random(2, 2), random(2, 3)
    outputs = ADAPTER.outputs(model, [a, z])
    assert list(outputs) == ["first", "second"]
    np.testing.assert_allclose(outputs["second"], 3 * z.numpy().sum(1, keepdims=True) * a.numpy(), rtol=1e-5)
    check(model, [a, z], call=lambda a, z: [z, tf.reduce_sum(z * 3.0, 1, keepdims=True) * a])
    with pytest.raises(InputError, match=r"loaded\.signatures\['serving_default'\], loaded\.__call__"):
        ADAPTER.load(loaded)


def test_an_exported_keras_model(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    original = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="relu", name="body"),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    original.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    given = random(2, 4)
    for served in (loaded.serve, loaded.signatures["serving_default"]):
        model = ADAPTER.load(served)
        names = [layer.name for layer in ADAPTER.layers(model)]
        body = next(name for name in names if name.endswith("/Relu"))
        assert "PartitionedCall" not in body
        check(model, [given], [body], call=original)
        logits = ADAPTER.without_softmax(model, [given])
        kernel, bias = original.layers[1].get_weights()
        (output,) = flatten(ADAPTER.outputs(logits, [given]))
        assert apart(output, original.layers[0](given).numpy() @ kernel + bias) < 1e-6
    with pytest.raises(InputError, match=r"loaded\.serve"):
        ADAPTER.load(loaded)


def test_a_function_that_has_outlived_its_saved_model(tmp_path: Path) -> None:
    tf.saved_model.save(Signed(), str(tmp_path))
    for function in (
        tf.saved_model.load(str(tmp_path)).__call__,
        tf.saved_model.load(str(tmp_path)).signatures["serving_default"],
    ):
        gc.collect()
        with pytest.raises(InputError, match=r"Keep .* what tf\.saved_model\.load returned"):
            ADAPTER.load(function)


def test_functions_that_look_at_values_run_eagerly() -> None:
    def function(x: Any) -> Any:
        return x * 2.0 if x.numpy().sum() > 1e6 else x * x

    model = ADAPTER.load(function)
    check(model, [random(2, 3)], kind=EagerRunner, call=function)
    assert ADAPTER.layers(model, [random(2, 3)]) == () and ADAPTER.without_softmax(model, [random(2, 3)]) is None
    with pytest.raises(LayerError, match="looks at values"):
        ADAPTER.runner(model, [random(2, 3)], ["mul"])


def test_loops_and_branches_of_the_users_functions_stay_the_users() -> None:
    """Freezing a copy must not reach the functions that TensorFlow holds by name."""
    weight = tf.Variable(2.0)

    @tf.function
    def function(x: Any) -> Any:
        for _ in tf.range(3):
            x = x * weight
        if tf.reduce_sum(x) > 0:
            x = x + weight
        return x

    x = tf.ones([2, 2])
    np.testing.assert_array_equal(function(x), np.full((2, 2), 10.0))
    runner = check(ADAPTER.load(function), [x], call=function)
    weight.assign(3.0)
    np.testing.assert_array_equal(function(x), np.full((2, 2), 30.0))
    np.testing.assert_array_equal(function(tf.ones([4, 2])), np.full((4, 2), 30.0))
    np.testing.assert_array_equal(runner.run(0, [x])[0], np.full((2, 2), 10.0))
    gradient = ADAPTER.layer_gradients(ADAPTER.load(lambda x: function(x * 1.0)), [x], [np.ones((2, 2), np.float32)])
    np.testing.assert_array_equal(gradient["mul"], np.full((2, 2), 27.0))


def test_modules_are_told_not_to_train() -> None:
    class Dropping(tf.Module):
        def __call__(self, x: Any, is_training: bool) -> Any:
            return x * 0.0 if is_training else x

    np.testing.assert_array_equal(ADAPTER.outputs(ADAPTER.load(Dropping()), [IMAGES]), IMAGES)


def test_integer_inputs_of_a_signature() -> None:
    table = tf.Variable(random(11, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int64)])
    def function(x: Any) -> Any:
        return tf.reduce_sum(tf.gather(table, x) ** 2, [1, 2], keepdims=False)[:, None]

    given = tokens(2, 3)
    model = ADAPTER.load(function)
    assert ADAPTER.declares_integer(model, 0) is True
    name = next(layer.name for layer in ADAPTER.layers(model) if layer.output_shape == (3, 4))
    _, _, at_layers, activations = chain(ADAPTER.runner(model, [given], [name]), [given], [tf.ones([2, 1])])
    assert apart(activations[name], tf.gather(table, given)) < 1e-6
    assert apart(at_layers[name], 2 * tf.gather(table, given)) < 1e-6


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tf.Module(), "no __call__"),
        (keras.layers.Dense(3), "a Keras layer, not a model"),
        (3, "cannot be called"),
    ],
)
def test_what_is_no_model(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ADAPTER.load(model)


def test_a_gradient_is_missing_where_other_code_runs() -> None:
    class Sorted(Net):
        def __call__(self, x: Any) -> Any:
            return self.logits(
                tf.ensure_shape(tf.py_function(lambda one: np.sort(one.numpy()), [x], tf.float32), x.shape)
            )

    class Read(Net):
        def __call__(self, x: Any) -> Any:
            return self.logits(tf.constant(np.sort(x.numpy())))

    images = tf.constant(random(2, 6, 5, 2))
    for model in (Sorted(), Read()):
        loaded = ADAPTER.load(model)
        assert "outside of TensorFlow" in ADAPTER.missing_gradient(ADAPTER.twin(loaded), [images])
    for model in (Net(), Signed()):
        assert ADAPTER.missing_gradient(ADAPTER.twin(ADAPTER.load(model)), [images]) == ""
