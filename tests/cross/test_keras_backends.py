"""Keras models on its torch and JAX backends, with their layers; each backend has a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LAYERS = ["conv", "dropout", "flatten", "scores"]


def run(backend: str) -> dict[str, Any]:
    """What `keras_backends.py` found there."""
    script, environment = Path(__file__).with_name("keras_backends.py"), {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_models_are_explained_on_their_own_backend(backend: str) -> None:
    found = run(backend)
    assert found["layers"] == LAYERS
    assert found["inner layers"][1:] == [f"{found['inner layers'][0]}/{name}" for name in LAYERS]
    assert found["dims"] == ["sample", "height", "width", "channel"]
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    assert set(numbers) >= {"saliency of sequential", "saliency of nested", "saliency of subclassed", "by name"}
    assert set(numbers) >= {"activation by Conv2D", "activation by str"}
    assert all(value < 1e-5 for value in numbers.values()), numbers
    for toolset in ("tf-keras-vis", "tf-explain"):
        assert "Keras on TensorFlow" in found[toolset], found[toolset]
        assert backend in found[toolset]
        assert "conversion" not in found[toolset]
