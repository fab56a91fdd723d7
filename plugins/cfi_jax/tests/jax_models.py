"""Small models of every kind, and inputs for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cfi_jax.adapter import JaxAdapter

ADAPTER = JaxAdapter()
CLASSES = 4


def images(samples: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, 8, 6, 3)).astype(np.float32)


def tensors(*arrays: np.ndarray, model: Any = None) -> list[jax.Array]:
    return [ADAPTER.tensor(array, model) for array in arrays]


class NnxBlock(nnx.Module):
    """A block whose input goes around what it computes."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv2(nnx.relu(self.norm(self.conv1(x))))


class NnxCNN(nnx.Module):
    """Named so that the order of definition is not the alphabetical one."""

    def __init__(self, seed: int = 0) -> None:
        rngs = nnx.Rngs(seed)
        self.stem = nnx.Conv(3, 5, (3, 3), rngs=rngs)
        self.blocks = nnx.List([NnxBlock(5, rngs) for _ in range(2)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(5, CLASSES, rngs=rngs)
        self.blocks[0].norm.mean.set_value(jnp.linspace(-0.2, 0.3, 5))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.dense(self.drop(x.mean((1, 2))))


class LinenBlock(nn.Module):
    """The same block."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(self.channels, (3, 3))(x)))
        return x + nn.Conv(self.channels, (3, 3), name="last")(y)


class LinenCNN(nn.Module):
    """A convolution, a block, a classifier."""

    softmax: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(nn.Conv(5, (3, 3), name="stem")(x))
        x = LinenBlock(5, name="block")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        scores = nn.Dense(CLASSES, name="head")(x.mean((1, 2)))
        return nn.softmax(scores) if self.softmax else scores


def linen_cnn(softmax: bool = False, seed: int = 0) -> nn.Module:
    return bound(LinenCNN(softmax), images(), seed=seed)


def bound(module: nn.Module, *inputs: Any, seed: int = 0) -> nn.Module:
    """With random variables; those of `init` take a second to compile."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return module.bind(
        jax.tree.map(lambda shape: jnp.asarray(generator.uniform(0.1, 0.5, shape.shape), shape.dtype), shapes)
    )


W1 = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
W2 = jnp.asarray(np.random.default_rng(2).normal(size=(4, 2)), jnp.float32)


def perceptron(x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ W1) @ W2


def relative(ours: Any, theirs: Any) -> float:
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def whole(model: Any, inputs: Sequence[Any], layers: Sequence[str]) -> tuple[Any, list[Any]]:
    """A runner, and the values with which its last stage computes what the model computes."""
    runner = ADAPTER.runner(model, inputs, layers)
    values = list(inputs)
    for stage in range(len(runner.layers)):
        values.extend(runner.run(stage, values))
    return runner, values
