"""A model in stages computes what it computes in one piece, and so do the gradients; against JAX itself."""

from __future__ import annotations

import gc
import weakref
from threading import Thread
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_models import (
    ADAPTER,
    CLASSES,
    LinenBlock,
    NnxBlock,
    NnxCNN,
    bound,
    images,
    linen_cnn,
    perceptron,
    relative,
    tensors,
    whole,
)

from cfi_core.errors import LayerError, NoGradientError


class Residual(nnx.Module):
    """`y = a·w + x·v` with `a = (x·u)²`: the input also goes around the layer `square`."""

    def __init__(self) -> None:
        class Square(nnx.Module):
            def __call__(self, x: jax.Array) -> jax.Array:
                return (3 * x) ** 2

        self.square = Square()

    def __call__(self, x: jax.Array) -> jax.Array:
        return 5 * self.square(x) + 7 * x


def test_a_path_around_an_opened_layer_counts_by_itself() -> None:
    (x,) = tensors(np.array([[1.0], [2.0]], np.float32))
    runner, values = whole(Residual(), [x], ["square"])
    np.testing.assert_array_equal(values[1], 9 * x**2)
    replaced = jnp.full_like(x, 4.0)
    (results, pullback) = runner.linearize(1, [x, replaced])
    np.testing.assert_array_equal(results[0], 5 * 4 + 7 * x)
    to_input, to_layer = pullback([jnp.ones_like(x)], [True, True])
    np.testing.assert_array_equal(to_input, jnp.full_like(x, 7))
    np.testing.assert_array_equal(to_layer, jnp.full_like(x, 5))
    (_, pullback) = runner.linearize(0, [x])
    np.testing.assert_array_equal(pullback([jnp.ones_like(x)], [True])[0], 18 * x)


@pytest.mark.parametrize("make", [NnxCNN, linen_cnn])
def test_stages_make_up_the_model(make: Any) -> None:
    """Two layers of which the second lies inside of a block that depends on the first, asked for in the wrong order."""
    model = ADAPTER.twin(make())
    inner = "blocks.1.conv1" if make is NnxCNN else "block.last"
    (x,) = tensors(images())
    runner, values = whole(model, [x], [inner, "stem"])
    assert runner.layers == ("stem", inner)
    assert relative(runner.run(2, values)[0], ADAPTER.outputs(model, [x])) < 1e-6
    direct = ADAPTER.activations(model, [x], ["stem", inner])
    assert relative(values[1], direct["stem"]) < 1e-6
    assert relative(values[2], direct[inner]) < 1e-6


@pytest.mark.parametrize("make", [NnxCNN, linen_cnn])
def test_gradients_along_the_stages_are_those_of_the_model(make: Any) -> None:
    model = ADAPTER.twin(make())
    inner = "blocks.1.conv1" if make is NnxCNN else "block.last"
    (x,) = tensors(images())
    runner, values = whole(model, [x], ["stem", inner])
    cotangent = np.random.default_rng(3).normal(size=(2, CLASSES)).astype(np.float32)
    x_bar, stem_bar, inner_bar = runner.linearize(2, values)[1]([jnp.asarray(cotangent)], [True] * 3)
    inner_gradient = inner_bar
    more_x, more_stem = runner.linearize(1, values[:2])[1]([inner_bar], [True, True])
    x_bar, stem_bar = x_bar + more_x, stem_bar + more_stem
    x_bar = x_bar + runner.linearize(0, [x])[1]([stem_bar], [True])[0]
    expected = jax.grad(lambda x: (model(x) * cotangent).sum())(x)
    assert relative(x_bar, expected) < 1e-5
    at_layers = ADAPTER.layer_gradients(model, [x], [cotangent], ["stem", inner])
    assert relative(stem_bar, at_layers["stem"]) < 1e-5
    assert relative(inner_gradient, at_layers[inner]) < 1e-5


def test_only_the_gradients_that_are_wanted_are_given() -> None:
    (x,) = tensors(images())
    runner, values = whole(ADAPTER.twin(NnxCNN()), [x], ["stem"])
    (results, pullback) = runner.linearize(1, values)
    assert pullback([None], [True, True]) == (None, None)
    assert pullback([jnp.ones_like(results[0])], [False, False]) == (None, None)
    first, second = pullback([jnp.ones_like(results[0])], [False, True])
    assert first is None and second is not None
    np.testing.assert_array_equal(second, pullback([jnp.ones_like(results[0])], [True, True])[1])


def test_several_inputs_and_outputs_of_several_types() -> None:
    def model(x: jax.Array, index: jax.Array) -> dict[str, Any]:
        return {"later": x[:, :1] * 2, "best": x.argmax(1), "first": (x**2, index[:, None] * x)}

    x = jnp.asarray([[1.0, 2.0], [4.0, 3.0]])
    index = jnp.asarray([1, 5])
    runner = ADAPTER.runner(model, [x, index])
    results, pullback = runner.linearize(0, [x, index])
    # In the order in which the model returns them, also where JAX would sort them.
    for result, expected in zip(results, [x[:, :1] * 2, [1, 0], x**2, index[:, None] * x], strict=True):
        np.testing.assert_array_equal(result, expected)
    gradients = pullback([None, None, jnp.ones_like(x), None], [True, True])
    np.testing.assert_array_equal(gradients[0], 2 * x)
    assert gradients[1] is None


def test_a_function_and_its_jitted_self() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    expected, vjp = jax.vjp(perceptron, x)
    for model in (perceptron, jax.jit(perceptron), jax.jit(jax.jit(perceptron))):
        results, pullback = ADAPTER.runner(model, [x]).linearize(0, [x])
        assert relative(results[0], expected) < 1e-6
        assert relative(pullback([expected], [True])[0], vjp(expected)[0]) < 1e-6


def test_linen_modules_inside_a_jitted_function_are_layers() -> None:
    module = linen_cnn()
    plain, variables = module.unbind()
    function = jax.jit(lambda x: plain.apply(variables, x, train=False), donate_argnums=0)
    (x,) = tensors(images())
    runner, values = whole(function, [x], ["block"])
    assert relative(runner.run(1, values)[0], ADAPTER.outputs(module, [x])) < 1e-6
    assert not x.is_deleted()


def test_a_batch_size_is_compiled_once() -> None:
    traces = []

    def model(x: jax.Array) -> jax.Array:
        traces.append(x.shape[0])
        return x**2

    x = jnp.ones((3, 2))
    runner = ADAPTER.runner(model, [x])
    for samples in (3, 1, 3, 1, 1):
        values = [jnp.full((samples, 2), 3.0)]
        results, pullback = runner.linearize(0, values)
        np.testing.assert_array_equal(results[0], np.full((samples, 2), 9.0))
        np.testing.assert_array_equal(pullback([jnp.ones((samples, 2))], [True])[0], np.full((samples, 2), 6.0))
        runner.run(0, values)
    assert sorted(traces) == [1, 3, 3]  # once for each size, and once to look for layers


def test_python_code_that_asks_for_values_runs_uncompiled() -> None:
    class Branch(nnx.Module):
        def __init__(self) -> None:
            self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.linear(x) if x.sum() > 0 else -3 * self.linear(x)

    model = Branch()
    for sign, factor in ((1, 1), (-1, -3)):
        x = sign * jnp.ones((2, 2))
        runner, values = whole(model, [x], ["linear"])
        results, pullback = runner.linearize(1, values)
        assert relative(results[0], model(x)) < 1e-6
        np.testing.assert_array_equal(pullback([jnp.ones((2, 2))], [False, True])[1], np.full((2, 2), factor))


def test_half_precision_is_kept() -> None:
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.asarray([[1.0, 2.0]], dtype)
        results, pullback = ADAPTER.runner(lambda x: x * x, [x]).linearize(0, [x])
        assert results[0].dtype == dtype
        (gradient,) = pullback([jnp.ones_like(x)], [True])
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, 2 * x)


def test_double_precision_holds_in_another_thread() -> None:
    """Backward passes of other frameworks run in threads of their own, where settings made by `with` are not seen."""
    with jax.enable_x64(True):
        x = jnp.asarray([[1 / 3]], jnp.float64)
        runner = ADAPTER.runner(lambda x: jnp.sin(x) / 3, [x])
        results, pullback = runner.linearize(0, [x])
    gradients: list[Any] = []
    thread = Thread(target=lambda: gradients.extend(pullback([jnp.ones_like(results[0])], [True])))
    thread.start()
    thread.join()
    assert gradients[0].dtype == np.float64
    np.testing.assert_allclose(gradients[0], np.cos(1 / 3) / 3, rtol=1e-15)


def test_a_token_model_is_differentiated_at_its_embedding() -> None:
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, ids: jax.Array) -> jax.Array:
            x = nn.Embed(7, 4, name="embedding")(ids)
            x = jax.nn.softmax(x @ x.mT) @ x
            return nn.Dense(2, name="head")(x.mean(1))

    ids = jnp.asarray([[1, 2, 3], [4, 5, 6]])
    model = bound(Tokens(), ids)
    runner, values = whole(model, [ids], ["embedding"])
    results, pullback = runner.linearize(1, values)
    assert relative(results[0], model(ids)) < 1e-6
    to_ids, to_embedding = pullback([jnp.ones_like(results[0])], [True, True])
    assert to_ids is None
    plain, variables = model.unbind()

    def from_table(table: jax.Array) -> jax.Array:
        parameters = {**variables["params"], "embedding": {"embedding": table}}
        return plain.apply({"params": parameters}, ids).sum()

    # Every token occurs once, so the gradient at its row of the table is that at its place in the sequence.
    table = jax.grad(from_table)(variables["params"]["embedding"]["embedding"])
    assert relative(to_embedding.reshape(6, 4), table[1:]) < 1e-5


def test_what_a_module_writes_to_itself_stays_in_the_copy() -> None:
    class Counts(nnx.Module):
        def __init__(self) -> None:
            self.count = nnx.Variable(jnp.zeros(()))
            self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            self.count.set_value(self.count.get_value() + 1)
            return self.linear(x) * self.count.get_value()

    model, x = Counts(), jnp.ones((2, 2))
    runner, values = whole(model, [x], ["linear"])
    first = runner.run(1, values)[0]
    np.testing.assert_array_equal(first, runner.run(1, values)[0])
    assert model.count.get_value() == 0


class Refusals(nnx.Module):
    """Layers that cannot be opened, each for another reason."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.twice = nnx.Linear(2, 2, rngs=rngs)
        self.never = nnx.Linear(2, 2, rngs=rngs)
        self.cell = nnx.LSTMCell(2, 2, rngs=rngs)
        self.hidden = nnx.Linear(2, 2, rngs=rngs)
        self.fine = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        carry, _ = self.cell((x, x), x)
        return self.fine(self.twice(self.twice(carry[0])) + jax.checkpoint(lambda rows: self.hidden(rows))(x))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("twice", "called 2 times"),
        ("never", "is not called"),
        ("cell", r"\(LSTMCell\) gives 3 values"),
        ("hidden", "inside a JAX transformation"),
        ("fien", "such as fine:"),
    ],
)
def test_layers_that_cannot_be_opened_are_refused(layer: str, reason: str) -> None:
    model, x = Refusals(), jnp.ones((3, 2))
    with pytest.raises(LayerError, match=reason):
        ADAPTER.runner(model, [x], [layer])
    assert layer not in ADAPTER.activations(model, [x])


def test_classes_are_as_before_also_after_an_error() -> None:
    class Fails(nnx.Module):
        def __init__(self) -> None:
            self.block = NnxBlock(2, nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            self.block(x)
            raise ZeroDivisionError

    calls = [vars(kind).get("__call__") for kind in (NnxBlock, nnx.Conv, nnx.BatchNorm, LinenBlock)]
    with pytest.raises(ZeroDivisionError):
        ADAPTER.runner(Fails(), [jnp.ones((1, 4, 4, 2))], ["block"])
    whole(ADAPTER.twin(NnxCNN()), tensors(images()), ["stem", "blocks.0"])
    assert [vars(kind).get("__call__") for kind in (NnxBlock, nnx.Conv, nnx.BatchNorm, LinenBlock)] == calls


def test_a_class_that_inherits_its_call_is_as_before() -> None:
    class Inherits(nnx.Linear):
        pass

    class Calls(nnx.Linear):
        def __call__(self, x: jax.Array) -> jax.Array:
            return 2 * super().__call__(x)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.plain = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.inherits = Inherits(2, 2, rngs=nnx.Rngs(1))
            self.calls = Calls(2, 2, rngs=nnx.Rngs(2))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.calls(self.inherits(self.plain(x)))

    model, x = Model(), jnp.ones((2, 2))
    runner, values = whole(model, [x], ["plain", "inherits", "calls"])
    assert relative(values[2], model.inherits(model.plain(x))) < 1e-6
    assert relative(values[3], model(x)) < 1e-6
    np.testing.assert_array_equal(runner.run(3, [x, values[1], values[2], x])[0], x)
    assert "__call__" not in vars(Inherits)


def test_operations_without_a_derivative_are_told() -> None:
    def counts(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda y: y.sum() < 100, lambda y: y * 2, x)

    x = jnp.ones((2, 2))
    runner = ADAPTER.runner(counts, [x])
    np.testing.assert_array_equal(runner.run(0, [x])[0], np.full((2, 2), 32.0))
    with pytest.raises(NoGradientError, match="while_loop"):
        runner.linearize(0, [x])[1]([x], [True])
    with pytest.raises(NoGradientError, match="while_loop"):
        ADAPTER.vjp(counts, [x], [np.ones((2, 2))])


def test_a_runner_that_nobody_needs_is_given_up() -> None:
    big = jnp.ones((300, 300))
    held = weakref.ref(big)
    x = jnp.ones((2, 300))
    runner = ADAPTER.runner(lambda x, big=big: x @ big, [x])
    _, pullback = runner.linearize(0, [x])
    pullback([jnp.ones((2, 300))], [True])
    runner.run(0, [x])
    del runner, pullback, big, _
    gc.collect()
    assert held() is None


def test_only_the_numbers_of_samples_used_last_stay_compiled() -> None:
    runner, _ = whole(Residual(), tensors(np.ones((1, 1), np.float32)), ["square"])
    for count in (*range(1, 20), 1):
        (x,) = tensors(np.full((count, 1), 2.0, np.float32))
        values = [x, *runner.run(0, [x])]
        np.testing.assert_array_equal(runner.run(1, values)[0], np.full((count, 1), 5 * 36 + 7 * 2.0))
    assert [stage.cache_info().currsize for stage in runner._stages] == [8, 8]
    made = runner._stages[1].cache_info().misses
    for count in (1, 19, 14):
        (x,) = tensors(np.ones((count, 1), np.float32))
        runner.run(1, [x, x])
    assert runner._stages[1].cache_info().misses == made
