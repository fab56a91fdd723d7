"""The page of images takes the tensors of every framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from jax import numpy as jnp

from cfi_matplotlib import ImageLog

IMAGES = np.random.default_rng(0).uniform(size=(2, 3, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("make", [torch.tensor, tf.constant, jnp.asarray], ids=["torch", "tensorflow", "jax"])
def test_tensors(tmp_path: Path, make: Any) -> None:
    for name, images in (("expected", IMAGES), ("tensors", make(IMAGES)), ("listed", [make(one) for one in IMAGES])):
        ImageLog(tmp_path / f"{name}.html")("stage", images)
    expected, found, listed = ((tmp_path / f"{name}.html").read_text() for name in ("expected", "tensors", "listed"))
    assert "shape 2 × 3 × 6 × 5 (NCHW), float32" in found and found.count("<img") == 2
    assert found.partition("</h2>")[2] == expected.partition("</h2>")[2]
    assert listed.partition("<img")[2] == expected.partition("<img")[2]


def test_a_tensor_with_gradients(tmp_path: Path) -> None:
    ImageLog(tmp_path / "page.html")("stage", torch.tensor(IMAGES, requires_grad=True))
    assert (tmp_path / "page.html").exists()
