"""Models in half precision: over a bridge as they are, converted from a copy in single precision, which is told."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi

layers = keras.layers


def make_torch(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    return net.eval().to(dtype)


@pytest.fixture
def images() -> np.ndarray:
    # Numbers that the coarsest of the types holds exactly.
    return np.random.default_rng(0).integers(0, 64, (3, 3, 8, 8)).astype(np.float32) / 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_torch_model_in_half_precision_is_converted_in_single(dtype: torch.dtype, images: np.ndarray) -> None:
    model = make_torch(dtype)
    leaf = torch.tensor(images, requires_grad=True)
    (wanted,) = torch.autograd.grad(copy.deepcopy(model).float()(leaf)[:, 1].sum(), leaf)
    found = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1, translator="conversion")
    np.testing.assert_allclose(found.values, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert str(dtype).removeprefix("torch.") in found.provenance["precision"]
    assert "float32" in found.provenance["precision"]
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    bridged = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1)
    assert "precision" not in bridged.provenance


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_a_keras_model_in_half_precision_is_converted_in_single(policy: str, images: np.ndarray) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        conv = layers.Conv2D(4, 3, activation="relu")
        model = keras.Sequential([keras.Input((8, 8, 3)), conv, layers.Flatten(), layers.Dense(5)])
    finally:
        keras.config.set_dtype_policy("float32")
    pixels = images.transpose(0, 2, 3, 1)
    kernel, bias, weight, _ = (np.asarray(keras.ops.cast(one, "float32")) for one in model.get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))
    hidden = np.einsum("nyxcij,ijck->nyxk", windows, kernel) + bias
    into, wanted = weight[:, 1].reshape(hidden.shape[1:]) * (hidden > 0), np.zeros_like(pixels)
    for i in range(3):
        for j in range(3):
            wanted[:, i : i + 6, j : j + 6] += into @ kernel[i, j].T
    found = cfi.attribute(model, "saliency", "captum", inputs=pixels, target=1, translator="conversion")
    assert found.route == ("keras-torch",)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    assert "float32" in found.provenance["precision"]


def test_a_change_of_the_users_model_is_seen_while_a_layer_is_awaited(images: np.ndarray) -> None:
    model = make_torch(torch.bfloat16)
    pending: Any = cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=1, translator="conversion")
    found = cfi.finish_execution_with_layer(pending, "2")
    assert "precision" in found.provenance
    with torch.no_grad():
        model[5].bias += 1  # type: ignore[operator]
    with pytest.raises(cfi.ArgumentError, match="has changed"):
        cfi.finish_execution_with_layer(pending, "2")
