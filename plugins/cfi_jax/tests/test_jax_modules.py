"""Layers of modules that take one sample, of modules behind functions, and of the same inside `jax.vmap`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cfi_jax.adapter import JaxAdapter

ADAPTER = JaxAdapter()


class Module:
    """As Equinox has it: a dataclass that JAX can take apart."""

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_dataclass(dataclass(frozen=True, eq=False)(cls))


class Linear(Module):
    weight: Any

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        assert x.ndim == 1  # of one sample
        return self.weight @ x


class Conv(Module):
    kernel: Any

    num_spatial_dims = 2
    in_channels = 2
    out_channels = 3

    def __call__(self, x: Any) -> Any:
        return jax.lax.conv(x[None], self.kernel, (1, 1), "VALID")[0]


class Net(Module):
    conv: Conv
    head: tuple[Linear, ...]

    def __call__(self, x: Any) -> Any:
        x = jax.nn.relu(self.conv(x)).reshape(-1)
        return self.head[1](jax.nn.relu(self.head[0](x)))


class Batch(Module):
    """Takes a batch, and runs another module on each of its samples."""

    net: Net

    def __call__(self, x: Any) -> Any:
        return jax.vmap(self.net)(x)


@pytest.fixture(autouse=True)
def equinox(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(Module=Module, nn=SimpleNamespace(inference_mode=lambda model: model))
    monkeypatch.setitem(sys.modules, "equinox", library)


@pytest.fixture
def net() -> Net:
    keys = jax.random.split(jax.random.key(0), 3)
    head = Linear(jax.random.normal(keys[1], (5, 48))), Linear(jax.random.normal(keys[2], (3, 5)))
    return Net(Conv(jax.random.normal(keys[0], (3, 2, 3, 3))), head)


@pytest.fixture
def images() -> jax.Array:
    return jax.random.uniform(jax.random.key(1), (3, 2, 6, 6))


WAYS: dict[str, Callable[[Net], Any]] = {
    "one sample": lambda net: net,
    "vmap": jax.vmap,
    "jitted": lambda net: jax.jit(jax.vmap(net)),
    "function": lambda net: lambda x: jax.vmap(net)(x),
    "batch": Batch,
}


@pytest.mark.parametrize("way", WAYS)
def test_modules_that_take_one_sample_have_layers(way: str, net: Net, images: jax.Array) -> None:
    model, prefix = WAYS[way](net), "net." if way == "batch" else ""
    hidden = jax.lax.conv(images, net.conv.kernel, (1, 1), "VALID")
    first = jax.nn.relu(hidden).reshape(3, -1) @ net.head[0].weight.T
    outputs = jax.nn.relu(first) @ net.head[1].weight.T
    named = [layer.name for layer in ADAPTER.layers(model, [images])]
    assert [name for name in named if name != "net"] == [prefix + name for name in ("conv", "head.0", "head.1")]
    assert ADAPTER.layer_name(model, net.head[1]) == f"{prefix}head.1"
    np.testing.assert_allclose(ADAPTER.outputs(model, [images]), outputs, rtol=1e-5)
    found = ADAPTER.activations(model, [images])
    np.testing.assert_allclose(found[f"{prefix}conv"], hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[f"{prefix}head.0"], first, rtol=1e-5, atol=1e-6)
    cotangent = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    gradients = ADAPTER.layer_gradients(model, [images], [cotangent])
    wanted = np.asarray(cotangent @ net.head[1].weight) * (np.asarray(first) > 0)
    np.testing.assert_allclose(gradients[f"{prefix}head.0"], wanted, rtol=1e-5)
    runner = ADAPTER.runner(model, [images], [f"{prefix}head.0"])
    (activation,) = runner.run(0, [images])
    (replaced,) = runner.run(1, [images, 2 * jnp.abs(activation)])
    np.testing.assert_allclose(replaced, 2 * jnp.abs(first) @ net.head[1].weight.T, rtol=1e-5)


def test_the_channels_of_such_convolutions_are_on_axis_1(net: Net) -> None:
    assert ADAPTER.channel_axis(net, (3, 2, 6, 6)) == 1
    assert ADAPTER.channel_axis(net, (3, 3, 4, 4), layer="conv") == 1
    assert ADAPTER.channel_axis(net, (3, 6, 6, 2)) == 3  # a model that moves its channels itself
    assert ADAPTER.channel_axis(jax.vmap(net), (3, 3, 4, 4), layer="conv") == 1


def test_a_square_batch_is_a_batch() -> None:
    """As many samples as there are features: the module would take the batch for one sample with columns."""
    layer, rows = Linear(jnp.arange(12.0).reshape(3, 4)), jnp.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(ADAPTER.outputs(layer, [rows]), rows @ layer.weight.T)


class Stack(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.last = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(jax.nn.relu(self.first(x)))

    def encode(self, x: Any) -> Any:
        return self.first(x)


@pytest.mark.parametrize(
    ("wrap", "called"),
    [
        (lambda stack: stack.encode, {"first"}),
        (lambda stack: functools.partial(stack), {"first", "last"}),
        (lambda stack: lambda x: stack(x), {"first", "last"}),
        (lambda stack: jax.vmap(stack), {"first", "last"}),
    ],
)
def test_modules_behind_functions_have_their_layers(wrap: Callable[[Stack], Any], called: set[str]) -> None:
    stack, rows = Stack(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (5, 4))
    model = wrap(stack)
    assert ADAPTER.layer_name(model, stack.first) == "first"
    found = ADAPTER.activations(model, [rows])
    assert set(found) == called
    np.testing.assert_allclose(found["first"], stack.first(rows), rtol=1e-5)


def test_two_modules_behind_a_function_are_not_told_apart() -> None:
    one, other = Stack(nnx.Rngs(0)), Stack(nnx.Rngs(1))
    assert ADAPTER.layers(lambda x: one(x) + other(x)) == ()
