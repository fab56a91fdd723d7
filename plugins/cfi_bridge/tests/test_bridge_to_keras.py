"""Models of a framework that TensorFlow has never heard of, as Keras models: numbers against its own tapes."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hand_made import TABLE, A, B, C, D, E, F, G, HandModel, Q, images, request, residual, tokens

from cfi_bridge import keras_host
from cfi_bridge.keras_host import bridge
from cfi_core.adapters import adapter_for
from cfi_core.errors import LayerError, NoGradientError
from cfi_core.registry import registry

TOLERANCE = {"float16": 3e-2, "float32": 2e-5, "float64": 1e-12}


def opened(layers: Sequence[str] = (), *, channel: int = 1, dtype: Any = np.float32) -> Any:
    return bridge(request(residual(channel, dtype), *images(channel, dtype=dtype), layers=layers)).model


def inputs(*, samples: int = 2, dtype: Any = np.float32) -> list[Any]:
    """Channels last."""
    return [tf.constant(array) for array in images(-1, samples, dtype)]


def plain(x: Any, z: Any, first: Any = None, second: Any = None) -> dict[str, Any]:
    """What `residual` computes, in TensorFlow and channels last; layers may be replaced."""
    a, b, c, d, e, f, g, q = (tf.constant(weight, dtype=x.dtype) for weight in (A, B, C, D, E, F, G, Q))

    def mix(value: Any, weight: Any) -> Any:
        return tf.einsum("nhwc,cd->nhwd", value, weight)

    first = tf.tanh(mix(x, a)) if first is None else first
    second = mix(first**2, b) + mix(x, c) if second is None else second
    scores = tf.reduce_mean(mix(second, d) + mix(first, e) + mix(x, f), [1, 2]) + z @ g
    return {"first": first, "second": second, "scores": scores, "mask": mix(second, q) + x}


def weighted(scores: Any, mask: Any) -> Any:
    """One number that depends on everything."""
    weights = tf.reshape(tf.cast(tf.linspace(-1.0, 2.0, tf.size(mask)), mask.dtype), tf.shape(mask))
    return tf.reduce_sum(scores**2) + tf.reduce_sum(mask * weights)


def close(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        tolerance = TOLERANCE[one.dtype.name]
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * 10)


def gradients(compute: Callable[[], Sequence[Any]], sources: Sequence[Any]) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(sources)
        total = weighted(*compute())
    return tape.gradient(total, sources)


@pytest.mark.parametrize("channel", [-1, 1])
@pytest.mark.parametrize("layers", [(), ("first",), ("second",), ("second", "first")])
def test_outputs_and_input_gradients(channel: int, layers: tuple[str, ...]) -> None:
    model, given = opened(layers, channel=channel), inputs()
    expected = plain(*given)
    close(model(given), [expected["scores"], expected["mask"]])
    close(
        gradients(lambda: model(given), given),
        gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given),
    )


def test_axes_and_shapes_are_declared() -> None:
    converted = bridge(request(residual(1), *images(1), layers=("second",)))
    assert converted.input_axes == ((0, 2, 3, 1), None)
    assert converted.output_axes == (None, (0, 2, 3, 1))
    assert {name: (layer.name, layer.axes) for name, layer in converted.layers.items()} == {
        "second": ("layer_0", (0, 2, 3, 1))
    }
    model = converted.model
    assert [tensor.shape for tensor in model.inputs] == [(None, 4, 6, 3), (None, 4)]
    assert [tensor.shape for tensor in model.outputs] == [(None, 4), (None, 4, 6, 3)]
    assert model.get_layer("layer_0").output.shape == (None, 4, 6, 2)
    assert not model.weights
    assert bridge(request(residual(-1), *images(-1))).input_axes == (None, None)


def test_sizes_that_depend_on_the_number_of_samples_are_open() -> None:
    """As in a layer of windows, or one whose first axis is time."""
    hand = HandModel(
        ("x",),
        (type(residual().steps[0])("turned", ("x",), lambda x: x.transpose(1, 0, 2), lambda v, r, ct: (ct,)),),
        ("turned",),
    )
    model = bridge(request(hand, np.zeros((2, 5, 3), np.float32), layers=("turned",))).model
    assert model.get_layer("layer_0").output.shape == (None, None, 3)
    assert model(np.zeros((7, 5, 3), np.float32)).shape == (5, 7, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_stay_what_they_are(dtype: Any) -> None:
    model, given = opened(("first",), dtype=dtype), inputs(dtype=dtype)
    expected = plain(*given)
    close(model(given), [expected["scores"], expected["mask"]])
    close(
        gradients(lambda: model(given), given),
        gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given),
    )


def test_a_policy_of_keras_changes_nothing() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = opened(("first",))
        close(model(inputs()), [plain(*inputs())[k] for k in ("scores", "mask")])
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("samples", [1, 5])
def test_the_number_of_samples_is_open(samples: int) -> None:
    given = inputs(samples=samples)
    close(opened(("first", "second"))(given), [plain(*given)[k] for k in ("scores", "mask")])


def test_layer_gradients_hold_every_path() -> None:
    """Of two taps, the second depends on the first, and both have ways around them."""
    model, given = opened(("first", "second")), inputs()
    taps = [model.get_layer(name).output for name in ("layer_0", "layer_1")]
    reader = keras.Model(model.inputs, [*taps, *model.outputs])  # as the toolset does it
    with tf.GradientTape() as tape:
        tape.watch(given)
        *activations, scores, mask = reader(given)
        total = weighted(scores, mask)
    ours = tape.gradient(total, [*activations, *given])
    with tf.GradientTape() as tape:
        tape.watch(given)
        expected = plain(*given)
        total = weighted(expected["scores"], expected["mask"])
    layers = [expected["first"], expected["second"]]
    close(activations, layers)
    close(ours, tape.gradient(total, [*layers, *given]))


def test_gradient_of_a_unit() -> None:
    model, given = opened(("first", "second")), inputs()
    reader = keras.Model(model.inputs, model.get_layer("layer_1").output)

    def unit(compute: Callable[[], Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = tf.reduce_sum(compute()[:, 2, 3, 1])
        return tape.gradient(value, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    close(unit(lambda: reader(given)), unit(lambda: plain(*given)["second"]))


@pytest.mark.parametrize("persistent", [False, True])
def test_a_tape_may_ask_several_times_if_it_is_persistent(persistent: bool) -> None:
    model, given = opened(("first",)), inputs()
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(given)
        total = weighted(*model(given))
    expected = gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given)
    close(tape.gradient(total, given), expected)
    if persistent:
        close(tape.gradient(total, given), expected)


def test_two_passes_do_not_mix() -> None:
    model, (x, z) = opened(("first",)), inputs()
    other = x * -0.5
    for graph in (False, True):

        def both(x: Any, other: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, other])
                total = weighted(*model([x, z])) + weighted(*model([other, z]))
            return tape.gradient(total, [x, other])

        close(
            (tf.function(both) if graph else both)(x, other),
            [gradients(lambda: [plain(y, z)[k] for k in ("scores", "mask")], [y])[0] for y in (x, other)],  # noqa: B023 - called at once
        )


def test_only_watched_inputs_are_asked_for_and_nothing_is_recorded_without_a_tape() -> None:
    hand = residual(1)
    model = bridge(request(hand, *images(1), layers=("first",))).model
    x, z = inputs()
    hand.log.clear()
    model([x, z])
    assert hand.log == [("run", 0), ("run", 1)]
    hand.log.clear()
    with tf.GradientTape():  # watches nothing
        model([x, z])
    assert hand.log == [("run", 0), ("run", 1)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores, _ = model([x, z])
    assert tape.gradient(scores, z) is None
    hand.log.clear()
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores, _ = model([x, z])
    assert tape.gradient(scores, x) is not None
    assert hand.log == [
        ("linearize", 0),
        ("linearize", 1),
        ("pull", 1, (True, False, True)),
        ("pull", 0, (True, False)),
    ]


def test_without_that_knowledge_gradients_are_still_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later TensorFlow may have moved the function that says whether a tape watches."""
    monkeypatch.setattr(keras_host, "should_record_backprop", lambda tensors: True)
    model, given = opened(("first", "second")), inputs()
    close(
        gradients(lambda: model(given), given),
        gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given),
    )


def test_whole_numbers() -> None:
    ids = np.array([[1, 2, 3], [0, 0, 5]])
    model = bridge(request(tokens(), ids, layers=("embedding",))).model
    assert model.inputs[0].dtype == "int64"
    score, start = model(ids)
    np.testing.assert_allclose(score[:, 0], (TABLE[ids] ** 2).sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(start, ids[:, :1])
    # From the embedding on, by the layer that computes the rest.
    rest = model.get_layer("stage_1")
    embedding = tf.constant(TABLE[ids])
    for call in (rest, tf.function(rest)):
        with tf.GradientTape() as tape:
            tape.watch(embedding)
            score, _ = call([tf.constant(ids), embedding])
        np.testing.assert_allclose(tape.gradient(score, embedding), 2 * TABLE[ids], rtol=1e-6)


def test_predict_of_the_model_and_of_a_graph_around_it() -> None:
    model, given = opened(("first", "second")), inputs(samples=5)
    expected = [plain(*given)[k] for k in ("scores", "mask")]
    wrapped = keras.Model(model.inputs, model.outputs)  # runs as a graph, unlike the model itself
    assert model.run_eagerly and not wrapped.run_eagerly
    arrays = [value.numpy() for value in given]
    for predicted in (model.predict(arrays, verbose=0), wrapped.predict(arrays, batch_size=2, verbose=0)):
        close([tf.constant(value) for value in predicted], expected)


def test_in_a_function_of_tensorflow() -> None:
    model, given = opened(("first", "second")), inputs()
    called = tf.function(lambda *values: model(list(values)))
    scores, mask = called.get_concrete_function(*given).structured_outputs
    assert scores.shape[1:] == (4,) and mask.shape[1:] == (4, 6, 3)
    close(called(*given), [plain(*given)[k] for k in ("scores", "mask")])
    expected = gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given)
    close(gradients(lambda: called(*given), given), expected)
    inside = tf.function(lambda *values: gradients(lambda: model(list(values)), values))
    close(inside(*given), expected)


def test_second_derivatives_are_refused() -> None:
    model, given = opened(), inputs()

    def twice() -> Any:
        with tf.GradientTape() as outer:
            outer.watch(given)
            inner = gradients(lambda: model(given), given)
        return outer.gradient(inner, given)

    with pytest.raises(NoGradientError, match="Second derivatives"):
        twice()
    with pytest.raises(NoGradientError, match="Second derivatives"):
        tf.function(twice)()


def test_the_adapter_of_tensorflow_understands_it() -> None:
    adapter: Any = adapter_for(registry(), "tensorflow")
    model, given = opened(("first", "second")), inputs()
    twin = adapter.twin(model)
    assert adapter.fingerprint(model) == adapter.fingerprint(model)
    assert adapter.fingerprint(opened(("first", "second"))) != adapter.fingerprint(model)
    with tf.GradientTape() as tape:
        tape.watch(given)
        expected = plain(*given)
        total = tf.reduce_sum(expected["scores"]) + tf.reduce_sum(expected["mask"])
    layers = {"layer_0": expected["first"], "layer_1": expected["second"]}
    activations = adapter.activations(twin, given, ["layer_0", "layer_1"])
    ones = [np.ones(value.shape, np.float32) for value in model(given)]
    found = adapter.layer_gradients(twin, given, ones, ["layer_0", "layer_1"])
    for (name, value), gradient in zip(layers.items(), tape.gradient(total, [*layers.values()]), strict=True):
        np.testing.assert_allclose(activations[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-5)
    assert adapter.without_softmax(twin, given) is None
    assert adapter.input_shapes(model) == ((None, 4, 6, 3), (None, 4))


def test_copying_and_saving_are_refused(tmp_path: Any) -> None:
    model = opened(("first",))
    for attempt in (
        lambda: keras.models.clone_model(model),
        lambda: model.save(tmp_path / "model.keras"),
        lambda: copy.deepcopy(model),
        lambda: model.to_json(),
    ):
        with pytest.raises(NotImplementedError, match="lives in this process"):
            attempt()


def test_errors_of_the_model_come_through() -> None:
    with pytest.raises(LayerError, match="nowhere"):
        opened(("nowhere",))

    class OwnError(Exception):
        def __init__(self, code: int, reason: str) -> None:
            super().__init__(reason)
            self.code = code

    def fail(*_: Any) -> Any:
        raise OwnError(7, "not today")

    hand = residual(1)
    steps, x = hand.steps, inputs()[0]
    forward = HandModel(("x",), (type(steps[0])("first", ("x",), lambda x: x, fail),), ("first",), 1)
    model = bridge(request(forward, images(1)[0])).model
    with pytest.raises(OwnError) as caught:
        gradients(lambda: [tf.reduce_sum(model(x)), model(x)], [x])
    assert caught.value.code == 7
    object.__setattr__(forward.steps[0], "compute", fail)
    with pytest.raises(OwnError) as caught:
        model(x)
    assert caught.value.code == 7
    with pytest.raises(OwnError):
        model.predict(x, verbose=0)
    # In a graph, TensorFlow makes an error of its own out of it, which says what it was.
    with pytest.raises(tf.errors.OpError, match="not today"):
        keras.Model(model.inputs, model.outputs).predict(x, verbose=0)


def test_nothing_piles_up() -> None:
    model, given = opened(("first", "second")), inputs()

    def tensors_after(passes: int) -> int:
        for _ in range(passes):
            gradients(lambda: model(given), given)
        gc.collect()
        return sum(type(thing).__name__ in ("EagerTensor", "ndarray") for thing in gc.get_objects())

    before = tensors_after(5)
    assert tensors_after(40) <= before


def test_threads_do_not_disturb_each_other() -> None:
    model = opened(("first",))
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            given = [value * number for value in inputs()]
            for _ in range(5):
                close(
                    gradients(lambda: model(given), given),
                    gradients(lambda: [plain(*given)[k] for k in ("scores", "mask")], given),
                )
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
