"""Both frameworks in one process do not crash it, whichever was imported first.

With a CUDA build of torch, tensorflow loaded before triton is a segmentation fault unless it is guarded against.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
{imports}
import numpy as np
{model}
import cfi_core as cfi
for translator in (None, "conversion"):
    result = cfi.attribute(model, "saliency", {toolset!r}, inputs=x, target=0, translator=translator)
import torchvision  # loads triton, if nothing has before
import torch
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
print("alive", result.route)
"""
TORCH_MODEL = """
import torch
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
x = np.ones((2, 3, 2, 2), np.float32)
"""
KERAS_MODEL = """
import keras
model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
x = np.ones((2, 2, 2, 3), np.float32)
"""


@pytest.mark.parametrize(
    ("imports", "model", "toolset"),
    [
        ("import tensorflow", TORCH_MODEL, "tf-keras-vis"),
        ("import torch", KERAS_MODEL, "captum"),
        ("import keras", KERAS_MODEL, "captum"),
        ("", TORCH_MODEL, "tf-keras-vis"),
    ],
)
def test_any_order(imports, model, toolset):
    script = SCRIPT.format(imports=imports, model=model, toolset=toolset)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.startswith("alive")


@pytest.mark.parametrize(("first", "imports"), [("tensorflow", "tensorflow"), ("tfkerasvis", ""), ("torch", "torch")])
def test_tests_of_plugins_of_both_frameworks_run_in_one_process(first, imports):
    """Pytest runs the conftest files of the folders that it is given before their tests import anything."""
    conftest = ROOT / "plugins" / f"cfi_{first}" / "tests" / "conftest.py"
    lines = ["import runpy", f"runpy.run_path({str(conftest)!r})", f"import {imports}" if imports else ""]
    script = "\n".join([*lines, "import tensorflow, torch, torchvision", "print('alive')"])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "alive\n", result.stderr[-2000:]
