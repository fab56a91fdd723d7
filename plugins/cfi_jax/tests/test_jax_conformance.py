"""JAX passes the tests that every framework can inherit, on a Flax module and a plain function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from cfi_core.testing.conformance import FrameworkConformance


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4 * 5 * 6, 7, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(jax.nn.relu(self.conv(x)).reshape(len(x), -1))


class TestJax(FrameworkConformance):
    framework = "jax"

    def make_model(self) -> nnx.Module:
        return Network(nnx.Rngs(0))

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 5, 6, 3)).astype(np.float32)

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Callable[..., Any]:
        return jax.jit(lambda x: x @ weights.T + bias)
