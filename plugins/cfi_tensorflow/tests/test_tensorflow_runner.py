"""TensorFlow's runner on Keras models, against TensorFlow alone."""

from __future__ import annotations

import gc
import threading
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow_checks import ADAPTER, apart, chain, check, random, tokens

from cfi_core.errors import LayerError
from cfi_tensorflow.gradients import split
from cfi_tensorflow.runners import EagerRunner, GraphRunner, TapedRunner


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(3)


def residual() -> keras.Model:
    x = keras.Input((12, 10, 3))
    y = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="relu")(y)
    z = layers.Conv2D(6, 3, padding="same", activation="relu", name="inner")(y)
    y = layers.Add(name="sum")([y, z])
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(x, layers.Dense(4, activation="softmax", name="head")(y))


def randomise(model: keras.Model) -> keras.Model:
    """Weights with which every layer matters and no ReLU is dead."""
    generator = np.random.default_rng(7)
    for weight in model.weights:
        if weight.path.endswith(("moving_mean", "beta", "bias")):
            weight.assign(generator.normal(0, 0.2, weight.shape))
        elif weight.path.endswith(("moving_variance", "gamma")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


def test_a_residual_network() -> None:
    check(randomise(residual()), [random(2, 12, 10, 3)], ["relu", "sum", "stem"])


def test_layers_come_in_the_order_of_the_computation() -> None:
    runner = ADAPTER.runner(residual(), [random(2, 12, 10, 3)], ["sum", "stem", "inner"])
    assert runner.layers == ("stem", "inner", "sum")


def test_a_path_around_a_replaced_layer_in_closed_form() -> None:
    """y = a·f + x·g with a the layer's activation, replaced by one that the layer would not give."""
    x = keras.Input((3,))
    a = layers.Dense(3, use_bias=False, name="f")(x)
    around = layers.Dense(3, use_bias=False, name="g")(x)
    model = keras.Model(x, layers.Add()([layers.Multiply()([a, a]), around]))
    given, other, cotangent = random(2, 3), random(2, 3) + 1.0, random(2, 3) - 0.5
    runner = ADAPTER.runner(model, [given], ["f"])
    (output,), pullback = runner.linearize(1, [given, other])
    g = model.get_layer("g").kernel.numpy()
    np.testing.assert_allclose(output, other.numpy() ** 2 + given.numpy() @ g, rtol=1e-5)
    to_input, to_layer = pullback([cotangent], [True, True])
    np.testing.assert_allclose(to_input, cotangent.numpy() @ g.T, rtol=1e-5)
    np.testing.assert_allclose(to_layer, 2 * other.numpy() * cotangent.numpy(), rtol=1e-5)
    assert pullback([cotangent], [False, True])[0] is None
    assert pullback([None], [True, True]) == (None, None)


def test_a_layer_that_depends_on_another_takes_its_replacement() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="one", use_bias=False), layers.Dense(2, name="two", use_bias=False)]
    )
    runner = ADAPTER.runner(model, [random(2, 3)], ["one", "two"])
    replaced = random(2, 3) * 3.0
    (second,), pullback = runner.linearize(1, [random(2, 3), replaced])
    kernel = model.get_layer("two").kernel.numpy()
    np.testing.assert_allclose(second, replaced.numpy() @ kernel, rtol=1e-5)
    to_input, to_first = pullback([tf.ones([2, 2])], [True, True])
    assert to_input is None
    np.testing.assert_allclose(to_first, np.ones((2, 2)) @ kernel.T, rtol=1e-5)


def test_the_same_tensor_given_for_two_values_gets_two_gradients() -> None:
    """A layer that returns its input must not make the input's gradient count twice."""
    x = keras.Input((3,))
    model = keras.Model(x, layers.Add()([layers.Dropout(0.5, name="drop")(x), layers.Rescaling(2.0)(x)]))
    given = random(2, 3)
    check(model, [given], ["drop"])
    _, pullback = ADAPTER.runner(model, [given], ["drop"]).linearize(1, [given, given])
    to_input, to_layer = pullback([tf.ones([2, 3])], [True, True])
    np.testing.assert_array_equal(to_input, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(to_layer, np.ones((2, 3)))
    np.testing.assert_array_equal(
        ADAPTER.layer_gradients(model, [given], [np.ones((2, 3), np.float32)], ["drop"])["drop"], np.ones((2, 3))
    )


def test_a_backbone_inside() -> None:
    inner = keras.Sequential(
        [keras.Input((12, 10, 3)), layers.Conv2D(4, 3, name="conv"), layers.MaxPooling2D(name="pool")], name="backbone"
    )
    x = keras.Input((12, 10, 3))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten()(inner(layers.Rescaling(0.5)(x)))))
    check(model, [random(2, 12, 10, 3)], ["backbone/conv", "backbone"])
    shapes = {layer.name: layer.output_shape for layer in ADAPTER.layers(model)}
    assert shapes["backbone/conv"] == (10, 8, 4) and shapes["backbone"] == (5, 4, 4)
    assert ADAPTER.layer_name(model, "conv") == ADAPTER.layer_name(model, inner.layers[0]) == "backbone/conv"
    np.testing.assert_allclose(
        ADAPTER.activations(model, [random(2, 12, 10, 3)], ["backbone/conv"])["backbone/conv"],
        inner.layers[0](random(2, 12, 10, 3) * 0.5),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_shared_layer_is_refused_and_the_others_are_not() -> None:
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="head")(shared(layers.ReLU(name="relu")(shared(x)))))
    check(model, [random(2, 4)], ["relu"])
    with pytest.raises(LayerError, match=r"'shared' \(Dense\) is called 2 times"):
        ADAPTER.runner(model, [random(2, 4)], ["shared"])
    assert set(ADAPTER.activations(model, [random(2, 4)])) == {"relu", "head"}
    assert {layer.name: layer.output_shape for layer in ADAPTER.layers(model, [random(2, 4)])}["shared"] is None


class Block(layers.Layer):
    """A composite layer."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.first = layers.Dense(5, activation="tanh", name="first")
        self.second = layers.Dense(5, name="second")

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((*shape[:-1], 5))

    def call(self, x: Any) -> Any:
        return x + self.second(self.first(x))


class Chooser(keras.Model):
    """Its way depends on the values."""

    def __init__(self, *, graph: bool) -> None:
        super().__init__()
        self.graph = graph
        self.block = Block(name="block")
        self.left, self.right = layers.Dense(3, name="left"), layers.Dense(3, name="right")
        self.unused = layers.Dense(2, name="unused")

    def call(self, x: Any) -> Any:
        x = self.block(x)
        if self.graph:
            return tf.cond(tf.reduce_sum(x) > 1e6, lambda: self.left(x), lambda: self.right(x))
        return self.left(x) if float(tf.reduce_sum(x)) > 1e6 else self.right(x)


def test_a_subclassed_model_that_looks_at_values_runs_eagerly() -> None:
    model = Chooser(graph=False)
    model(random(2, 5))
    runner = check(model, [random(2, 5)], ["block/first", "block", "right"], kind=EagerRunner)
    with pytest.raises(LayerError, match=r"'right' \(Dense\) is not called"):
        runner.run(1, [random(2, 5) * 1e9, random(2, 5)])
    with pytest.raises(LayerError, match=r"'unused' \(Dense\) is not called"):
        ADAPTER.runner(model, [random(2, 5)], ["unused"])
    assert [layer.name for layer in ADAPTER.layers(model)] == [
        "block", "block/first", "block/second", "left", "right", "unused",
    ]  # fmt: skip
    shapes = {layer.name: layer.output_shape for layer in ADAPTER.layers(model, [random(2, 5)])}
    assert shapes["block/second"] == (5,) and shapes["left"] is None


def test_a_branch_of_tensorflow_is_part_of_the_graph() -> None:
    model = Chooser(graph=True)
    model(random(2, 5))
    runner = check(model, [random(2, 5)], ["block/first", "block"])
    large = random(2, 5) * 1e9
    activation = runner.run(0, [large])[0]
    whole = runner.run(1, [large, activation])[0]
    assert apart(runner.run(2, [large, activation, whole])[0], model(large)) < 1e-6
    check(model, [random(2, 5)], ["right"], kind=EagerRunner)  # inside the branch, which the graph hides


def test_a_model_whose_trace_computes_something_else_runs_eagerly() -> None:
    class Counting(keras.Model):
        def call(self, x: Any) -> Any:
            return x * (2.0 if isinstance(x, tf.Tensor) and tf.is_symbolic_tensor(x) else 3.0)

    model = Counting()
    model(random(2, 5))
    check(model, [random(2, 5)], kind=EagerRunner)


def test_a_recurrent_classifier() -> None:
    x = keras.Input((4, 3))
    y = layers.Masking(name="mask")(x)
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(y)
    model = keras.Model(x, layers.Dense(3, name="head")(layers.GRU(5, name="gru")(y)))
    given = random(2, 4, 3).numpy()
    given[1, 2:] = 0  # masked
    check(model, [tf.constant(given)], ["both", "gru"])
    with pytest.raises(LayerError, match=r"'gru/.*' \(GRUCell\) is called 5 times.*loop"):
        ADAPTER.runner(model, [tf.constant(given)], [next(n.name for n in ADAPTER.layers(model) if "gru/" in n.name)])


def test_a_recurrent_model_read_in_several_ways() -> None:
    """TensorFlow rewrites a loop for its gradient; one reading must not stand in the way of another."""

    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layers.LSTM(4, return_sequences=True, name="first"), layers.GRU(3, name="second")
            self.head = layers.Dense(3, name="head", activation="softmax")

        def call(self, x: Any) -> Any:
            return self.head(self.second(self.first(x)))

    model, given, cotangent = Classifier(), random(2, 4, 3), random(2, 3)
    model(given)
    logits = ADAPTER.without_softmax(model, [given])
    activation = model.first(given)
    with tf.GradientTape() as tape:
        tape.watch(activation)
        total = tf.reduce_sum((model.second(activation) @ model.head.kernel + model.head.bias) * cotangent)
    expected = tape.gradient(total, activation)
    for names in (["first"], None):
        found = ADAPTER.layer_gradients(logits, [given], [cotangent.numpy()], names)
        assert apart(found["first"], expected) < 1e-5
    for _ in range(2):
        runner = ADAPTER.runner(logits, [given], ["first", "second"])
        _, _, at_layers, _ = chain(runner, [given], [cotangent])
        assert apart(at_layers["first"], expected) < 1e-5


@pytest.mark.parametrize(("relu", "above"), [(tf.nn.relu, np.inf), (tf.nn.relu6, 6.0)])
def test_of_a_relu_only_a_mask_is_kept(relu: Any, above: float) -> None:
    function = tf.compat.v1.wrap_function(lambda x: relu(x) * 2.0, [tf.TensorSpec([None, 8])])
    halves = split(function, 1)
    assert halves is not None
    values = tf.constant([[-3.0, -0.0, 0.0, 1e-30, 2.5, 6.0, 6.1, 100.0]])
    outputs, *kept = halves.forward(values)
    assert [value.dtype for value in kept if value.shape == values.shape] == [tf.bool]
    cotangent = tf.fill(values.shape, 3.0)
    (found,) = halves.backward((True,))(values, *kept, cotangent)
    inside = (values.numpy() > 0) & (values.numpy() < above)
    np.testing.assert_array_equal(found, np.where(inside, 6.0, 0.0))
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = relu(values) * 2.0
    np.testing.assert_array_equal(found, tape.gradient(result, values, cotangent))
    np.testing.assert_array_equal(outputs, result)


@pytest.mark.parametrize(("size", "strides", "padding"), [(2, 2, "VALID"), (3, 2, "SAME"), (3, 1, "VALID")])
@pytest.mark.parametrize("ties", [False, True])
def test_a_max_pooling_has_its_gradient_also_at_ties(size: int, strides: int, padding: str, ties: bool) -> None:
    def pool(x: Any) -> Any:
        return tf.nn.max_pool2d(x, size, strides, padding)

    halves = split(tf.compat.v1.wrap_function(pool, [tf.TensorSpec([None, 9, 8, 3])]), 1)
    assert halves is not None
    values = tf.constant(np.round(random(2, 9, 8, 3)) if ties else random(2, 9, 8, 3))
    results = halves.forward(values)
    assert len(results) == 1  # what was largest is found again, and nothing is kept of it
    cotangent = tf.random.normal(results[0].shape)
    (found,) = halves.backward((True,))(values, *results[1:], cotangent)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = pool(values)
    np.testing.assert_array_equal(results[0], result)
    np.testing.assert_allclose(found, tape.gradient(result, values, cotangent), atol=1e-6)


def test_a_swish_has_its_gradient_and_so_has_a_gradient_of_the_users_own() -> None:
    @tf.custom_gradient
    def straight(x: Any) -> Any:
        return tf.sign(x), lambda cotangent: cotangent * 7.0

    class Straight(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return straight(x)

    dense = [keras.Input((4,)), layers.Dense(5, activation="silu", name="one"), layers.Dense(3, name="two")]
    check(keras.Sequential(dense), [random(2, 4)], ["one"])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="one", use_bias=False), Straight(name="own")])
    runner = check(model, [random(2, 4)], ["one"], kind=EagerRunner)
    _, pullback = runner.linearize(1, [random(2, 4), random(2, 3)])
    np.testing.assert_array_equal(pullback([tf.ones([2, 3])], [False, True])[1], np.full((2, 3), 7.0))


def test_a_swish_between_convolutions() -> None:
    """An operation with several results, of which the gradient needs some."""
    convolutions = [layers.Conv2D(4, 3, activation="swish", name="first"), layers.Conv2D(4, 3, name="second")]
    model = keras.Sequential([keras.Input((8, 9, 3)), *convolutions, layers.GlobalAveragePooling2D()])
    check(model, [random(2, 8, 9, 3)])
    check(model, [random(2, 8, 9, 3)], ["first"])


def test_a_grouped_convolution_runs_eagerly() -> None:
    """Keras computes it by a function that XLA compiles, which cannot be inlined."""
    convolutions = [layers.Conv2D(6, 3, name="first"), layers.Conv2D(6, 3, groups=6, name="grouped")]
    model = keras.Sequential([keras.Input((8, 9, 3)), *convolutions, layers.GlobalAveragePooling2D()])
    check(model, [random(2, 8, 9, 3)], ["first", "grouped"], kind=EagerRunner)


def test_a_transformer_on_tokens() -> None:
    x = keras.Input((6,), dtype="int64")
    y = layers.Embedding(11, 8, name="embedding", mask_zero=True)(x)
    z = layers.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = layers.LayerNormalization(name="norm")(y + z)
    model = keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D(name="pool")(y)))
    given = tokens(2, 6).numpy()
    given[0, 4:] = 0  # masked
    check(model, [tf.constant(given)], ["embedding", "attention", "norm"])
    assert "attention/query" in {layer.name for layer in ADAPTER.layers(model)}
    gradient = ADAPTER.layer_gradients(model, [tf.constant(given)], [np.ones((2, 3), np.float32)], ["embedding"])
    assert np.abs(gradient["embedding"]).max() > 0


def test_two_inputs_and_a_dict_of_outputs() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    y = layers.Concatenate(name="both")([layers.Dense(5, name="left")(a), b])
    model = keras.Model({"a": a, "b": b}, {"z": layers.Dense(2)(y), "m": layers.Dense(3)(y)})
    runner = check(
        model,
        [random(2, 4), random(2, 3)],
        ["left", "both"],
        call=lambda a, b: [model({"a": a, "b": b})[key] for key in ("m", "z")],
    )
    values = [random(2, 4), random(2, 3)]
    left = runner.run(0, values)
    assert [output.shape[1] for output in runner.run(2, [*values, *left, *runner.run(1, [*values, *left])])] == [3, 2]
    assert list(ADAPTER.outputs(model, values)) == ["m", "z"]


def test_a_subclassed_model_whose_inputs_come_one_by_one() -> None:
    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, a: Any, b: Any, training: bool = False) -> Any:
            return self.dense(a) * b

    model = Two()
    model(random(2, 4), random(2, 3))
    check(model, [random(2, 4), random(2, 3)], ["dense"], call=model)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions(rank: int) -> None:
    convolution = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
    pool = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)[rank - 1]
    shape = (6, 5, 4)[:rank]
    model = keras.Sequential([keras.Input((*shape, 2)), convolution(3, 2, name="conv"), pool(), layers.Dense(2)])
    check(model, [random(2, *shape, 2)], ["conv"])


@pytest.mark.parametrize(
    ("policy", "given", "within"),
    [
        ("float64", "float64", (1e-12, 1e-12)),
        ("float16", "float16", (5e-3, 2e-2)),
        ("mixed_float16", "float32", (5e-3, 2e-2)),
        ("bfloat16", "bfloat16", (2e-2, 1e-1)),
    ],
)
def test_other_floating_point_types(policy: str, given: str, within: tuple[float, float]) -> None:
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 2), dtype=given),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
    finally:
        keras.config.set_dtype_policy(former)
    check(model, [random(2, 8, 8, 2, dtype=given)], ["conv"], outputs_within=within[0], gradients_within=within[1])


def test_other_numbers_of_samples_trace_nothing_anew() -> None:
    traces: list[int] = []

    class Traced(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x: Any) -> Any:
            traces.append(1)
            return self.dense(x)

    model = Traced()
    model(random(2, 4))
    runner = ADAPTER.runner(model, [random(2, 4)], ["dense"])
    runner.settle()
    before = len(traces)
    for samples in (3, 1, 5, 1):
        x = random(samples, 4)
        activation = runner.run(0, [x])[0]
        runner.linearize(1, [x, activation])[1]([tf.ones([samples, 3])], [True, True])
    assert len(traces) == before


def test_few_passes_trace_nothing_and_many_trace_the_model_once() -> None:
    """By their number and size alone: the first answer is not kept waiting for a graph that would serve one pass."""
    traces: list[bool] = []

    class Traced(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x: Any) -> Any:
            traces.append(tf.is_symbolic_tensor(x))
            return self.dense(x)

    model = Traced()
    x = random(4, 4)
    model(x)
    runner = ADAPTER.runner(model, [x])
    for _ in range(3):
        results, pullback = runner.linearize(0, [x])
        pullback([tf.ones([4, 3])], [True])
    assert not any(traces)
    assert type(runner.current) is EagerRunner
    for _ in range(20):
        again = runner.run(0, [x])
    assert sum(traces) == 1 and type(runner.current) is GraphRunner
    assert apart(again[0], results[0]) < 1e-6
    of_many = ADAPTER.runner(model, [x])
    of_many.run(0, [random(64, 4)])
    assert type(of_many.current) is GraphRunner


def test_a_graph_with_another_gradient_than_the_model_takes_nothing_over() -> None:
    model = randomise(residual())
    x = random(2, 12, 10, 3)
    runner = ADAPTER.runner(model, [x])
    make = runner._make

    class Wrong(TapedRunner):
        def __init__(self, graph: Any) -> None:
            self.graph, self.layers = graph, graph.layers

        def _results(self, stage: int, values: Any) -> Any:
            return self.graph.run(stage, values)

        def linearize(self, stage: int, values: Any) -> Any:
            results, pullback = self.graph.linearize(stage, values)
            return results, lambda *given: tuple(1.01 * one for one in pullback(*given))

    runner._make = lambda: Wrong(make())
    runner.settle()
    assert type(runner.current) is EagerRunner


def test_calls_leave_nothing_behind() -> None:
    model = residual()
    runner = ADAPTER.runner(model, [random(2, 12, 10, 3)], ["sum"])
    runner.settle()

    def call(samples: int) -> None:
        x = random(samples, 12, 10, 3)
        activation = runner.run(0, [x])[0]
        runner.linearize(1, [x, activation])[1]([tf.ones([samples, 4])], [True, True])

    def count() -> int:
        gc.collect()
        return sum(issubclass(type(value), tf.Tensor | tf.Graph) for value in gc.get_objects())

    for samples in (1, 2, 3):
        call(samples)
    before = count()
    for samples in (1, 2, 3, 2, 1):
        call(samples)
    assert count() <= before


@pytest.mark.parametrize("kind", [layers.Dense, layers.SimpleRNN])
def test_changed_weights_are_noticed_and_a_new_runner_has_them(kind: Any) -> None:
    """Also where the graph is frozen, because it has loops."""
    shape = (3,) if kind is layers.Dense else (4, 3)
    model = keras.Sequential([keras.Input(shape), kind(2, name="only")])
    given = random(2, *shape)
    ADAPTER.runner(model, [given])
    mark = ADAPTER.fingerprint(model)
    model.weights[0].assign_add(tf.ones(model.weights[0].shape))
    assert ADAPTER.fingerprint(model) != mark
    assert apart(ADAPTER.runner(model, [given]).run(0, [given])[0], model(given)) < 1e-6


def test_a_graph_without_calls_shares_the_weights() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])
    runner = ADAPTER.runner(model, [random(2, 3)])
    runner.settle()
    graph = runner.current._stages[0].graph
    assert {variable.ref() for variable in graph.variables} == {weight.value.ref() for weight in model.weights}
    assert not any(
        operation.type == "Const" and operation.outputs[0].shape.rank for operation in graph.get_operations()
    )


def marks(inner: list[Any]) -> list[Any]:
    return [(set(vars(layer)), list(map(id, layer._losses)), len(layer._outbound_nodes)) for layer in inner]


def test_nothing_stays_on_the_model() -> None:
    class Failing(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if tf.is_symbolic_tensor(x):
                raise RuntimeError("not like this")
            return x

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    x = keras.Input((4,))
    y = layers.Dense(3, activity_regularizer="l2", name="dense")(x)
    model = keras.Model(x, y)
    subclassed = Chooser(graph=False)
    subclassed(random(2, 5))
    failing = keras.Sequential([layers.Dense(3), Failing()])
    failing(random(2, 4))
    for each, given in ((model, random(2, 4)), (subclassed, random(2, 5)), (failing, random(2, 4))):
        inner = [each, *each._flatten_layers()]

        each(given)
        before = marks(inner)
        with pytest.raises(LayerError):
            ADAPTER.runner(each, [given], ["nowhere"])
        names = list(ADAPTER.activations(each, [given]))
        ADAPTER.runner(each, [given], names)
        ADAPTER.layer_gradients(each, [given], [np.ones((2, 3), np.float32)])
        ADAPTER.outputs(each, [given])
        with pytest.raises(Exception):  # noqa: B017, PT011 - the user's model refuses 77 features as it pleases
            ADAPTER.runner(each, [tf.ones([2, 77])], names)
        assert marks(inner) == before
        assert not tf.config.functions_run_eagerly()


def test_another_thread_may_run_the_model_meanwhile() -> None:
    elsewhere: list[Any] = []

    class Asking(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x: Any) -> Any:
            if not tf.is_symbolic_tensor(x):
                thread = threading.Thread(target=lambda: elsewhere.append(self.dense(x * 2.0)))
                thread.start()
                thread.join()
            return self.dense(x)

    model = Asking()
    given = random(2, 4)
    model(given)
    elsewhere.clear()
    # The layer is called once by the model; a second call that was seen would leave it without a single activation.
    found = ADAPTER.activations(model, [given], ["dense"])
    assert apart(found["dense"], model.dense(given)) < 1e-6
    assert apart(elsewhere[0], model.dense(given * 2.0)) < 1e-6


def test_pullbacks_may_be_asked_for_in_several_threads() -> None:
    model = residual()  # a runner does not keep the model alive
    runner = ADAPTER.runner(model, [random(2, 12, 10, 3)], ["sum"])
    given = random(2, 12, 10, 3)
    activation = runner.run(0, [given])[0]
    found: list[tuple[int, Any]] = []

    def pull(number: int) -> None:
        _, pullback = runner.linearize(1, [given, activation])
        found.append((number, pullback([tf.constant(np.eye(2, 4, dtype=np.float32))], [number % 2 == 0, True])[1]))

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(apart(one, found[0][1]) < 1e-6 for _, one in found)


def test_a_runner_holds_the_weights_of_its_model() -> None:
    given = random(2, 12, 10, 3)
    runner = ADAPTER.runner(residual(), [given], ["sum"])
    gc.collect()
    assert runner.run(0, [given])[0].shape == (2, 12, 10, 6)


def test_a_layer_compiled_by_itself_is_seen_inside() -> None:
    class Compiled(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="compiled")
            self.inner = layers.Dense(3, name="inner")

        def build(self, shape: Any) -> None:
            self.inner.build(shape)

        @tf.function
        def call(self, x: Any) -> Any:
            return tf.nn.relu(self.inner(x))

    model = keras.Sequential([keras.Input((4,)), Compiled(), layers.Dense(2)])
    model(random(2, 4))
    runner = ADAPTER.runner(model, [random(2, 4)], ["compiled/inner"])
    runner.settle()
    check(model, [random(2, 4)], ["compiled/inner"], kind=type(runner.current))


def test_a_layer_with_one_tensor_in_a_structure() -> None:
    class Named(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return {"value": x * 2.0, "nothing": None}

    class Both(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x, x + 1.0

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.named, self.both = Named(name="named"), Both(name="both")

        def call(self, x: Any) -> Any:
            a, b = self.both(self.named(x)["value"])
            return a * b

    model = Model()
    model(random(2, 4))
    check(model, [random(2, 4)], ["named"])
    with pytest.raises(LayerError, match=r"'both' \(Both\) gives 2 values"):
        ADAPTER.runner(model, [random(2, 4)], ["both"])


def test_no_gradient_is_recorded_in_a_run() -> None:
    model = residual()
    given = random(2, 12, 10, 3)
    runner = ADAPTER.runner(model, [given])
    with tf.GradientTape() as tape:
        tape.watch(given)
        output = runner.run(0, [given])[0]
    assert tape.gradient(output, given) is None


@pytest.mark.parametrize("graph", [True, False])
def test_a_softmax_of_a_subclassed_model_is_left_out(graph: bool) -> None:
    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body = layers.Dense(5, activation="relu", name="body")
            self.head = layers.Dense(3, name="head", activation="softmax" if graph else None)

        def call(self, x: Any) -> Any:
            y = self.head(self.body(x))
            return y if graph else tf.reshape(tf.nn.softmax(y), [-1, 3])

    model = Classifier()
    model(random(2, 4))
    given = random(2, 4)
    logits = ADAPTER.without_softmax(model, [given])
    body, head = model.body, model.head

    def expected(x: Any) -> Any:
        return body(x) @ head.kernel + head.bias

    assert apart(ADAPTER.outputs(logits, [given]), expected(given)) < 1e-6
    check(logits, [given], ["body", "head"], call=expected)
    cotangent = random(2, 3).numpy()
    # The layer that ended in the softmax gives the logits now.
    assert apart(ADAPTER.layer_gradients(logits, [given], [cotangent], ["head"])["head"], cotangent) < 1e-6
    assert ADAPTER.layer_name(logits, model.body) == "body"
    assert ADAPTER.twin(logits) is logits and ADAPTER.without_softmax(logits, [given]) is None
    assert [layer.name for layer in ADAPTER.layers(logits)] == ["body", "head"]
    assert ADAPTER.fingerprint(logits) != ADAPTER.fingerprint(model)


def test_a_model_without_softmax_has_none_to_leave_out() -> None:
    model = Chooser(graph=True)
    model(random(2, 5))
    assert ADAPTER.without_softmax(model, [random(2, 5)]) is None


def test_a_deep_network() -> None:
    model = randomise(keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=5))
    given = random(2, 64, 64, 3)
    logits = ADAPTER.without_softmax(model, [given])
    runner = ADAPTER.runner(logits, [given], ["block_6_expand_relu"])
    outputs, (gradient,), _, _ = chain(runner, [given], [tf.ones([2, 5])])
    expected = ADAPTER.vjp(logits, [given], [np.ones((2, 5), np.float32)])[1][0]
    assert np.abs(expected).max() > 0 and np.std(outputs[0], axis=0).max() > 0
    assert apart(outputs[0], logits(given, training=False)) < 1e-6
    assert apart(gradient, expected) < 1e-5
