"""JAX computes on the device while captum explains, by a bridge, and the explanation is that of plain JAX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import cfi_core as cfi

W1, W2 = (np.random.default_rng(seed).normal(size=size).astype(np.float32) for seed, size in ((1, (6, 8)), (2, (8, 4))))
X = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


def model(x: Any) -> Any:
    return jnp.tanh(x @ jnp.asarray(W1)) @ jnp.asarray(W2)


@pytest.fixture(autouse=True)
def _exact_products_of_jax() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def test_input_gradients(device: torch.device) -> None:
    assert jax.default_backend() == ("gpu" if device.type == "cuda" else "cpu")
    found = cfi.attribute(model, "saliency", "captum", inputs=jnp.asarray(X), target=1)
    expected = jax.grad(lambda x: model(x)[:, 1].sum())(jnp.asarray(X))
    assert found.route == ("bridge-to-torch",)
    np.testing.assert_allclose(found.values, np.asarray(expected), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_are_complete(device: torch.device) -> None:
    steps = {"n_steps": 64}
    found = cfi.attribute(model, "integrated_gradients", "captum", inputs=jnp.asarray(X), target=1, exec_args=steps)
    difference = np.asarray(model(jnp.asarray(X)) - model(jnp.zeros_like(X)))[:, 1]
    np.testing.assert_allclose(found.values.sum(1), difference, rtol=1e-3, atol=1e-4)


def test_perturbations(device: torch.device) -> None:
    found = cfi.attribute(model, "feature_ablation", "captum", inputs=jnp.asarray(X), target=1)
    at = np.asarray(model(jnp.asarray(X)))[:, 1]
    for column in range(X.shape[1]):
        without = X.copy()
        without[:, column] = 0
        expected = at - np.asarray(model(jnp.asarray(without)))[:, 1]
        np.testing.assert_allclose(found.values[:, column], expected, rtol=1e-3, atol=1e-4)
