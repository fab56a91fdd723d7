"""The built wheels, installed as a user would, with torch and without this checkout on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import pytest

PACKAGES = {
    "cfi-core": "cfi_core",
    "cfi-torch": "cfi_torch",
    "cfi-tensorflow": "cfi_tensorflow",
    "cfi-onnx": "cfi_onnx",
    "cfi-captum": "cfi_captum",
    "cfi-tfkerasvis": "cfi_tfkerasvis",
    "cfi-translate": "cfi_translate",
    "cfi-bridge": "cfi_bridge",
    "cfi-jax": "cfi_jax",
}
INSTALLED = ("cfi-core", "cfi-torch", "cfi-captum", "cfi-bridge")

SCRIPT = """
import numpy as np
import torch

import cfi_core as cfi

torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
inputs = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], np.float32)
result = cfi.attribute(model, "integrated_gradients", "captum", inputs=inputs, target=1)
# Integrated gradients of a linear function from a zero baseline: weight times input.
np.testing.assert_allclose(result.values, inputs * model.weight[1].detach().numpy(), rtol=1e-5)
assert result.route == ()
# A plain function of arrays, run where it lives: no framework but torch is installed.
weights = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])
bridged = cfi.attribute(lambda rows: rows @ weights, "feature_ablation", "captum", inputs=inputs, target=1)
np.testing.assert_allclose(bridged.values, inputs * weights[:, 1], rtol=1e-5)
assert bridged.route == ("bridge-to-torch",)
result.save("picture.png")
result.save("numbers.npz")
"""


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    folder = Path(os.environ["CFI_WHEELS"])
    return {name: next(folder.glob(f"{package}-*.whl")) for name, package in PACKAGES.items()}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_ships_its_types_and_nothing_else(wheels, name):
    with ZipFile(wheels[name]) as wheel:
        shipped = wheel.namelist()
        (record,) = [entry for entry in shipped if entry.endswith(".dist-info/METADATA")]
        text = wheel.read(record).decode()
    assert f"{PACKAGES[name]}/py.typed" in shipped
    top = {entry.split("/")[0] for entry in shipped}
    assert {entry for entry in top if not entry.endswith(".dist-info")} == {PACKAGES[name]}
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "cfi-core"])
def test_a_plugin_is_found_by_its_entry_point_and_needs_the_core(wheels, name):
    package = PACKAGES[name]
    with ZipFile(wheels[name]) as wheel:
        (path,) = [entry for entry in wheel.namelist() if entry.endswith("entry_points.txt")]
        entry_points = wheel.read(path).decode()
        (path,) = [entry for entry in wheel.namelist() if entry.endswith("METADATA")]
        text = wheel.read(path).decode()
    assert "[cfi_core.plugins]" in entry_points
    assert f"= {package}.plugin" in entry_points
    assert "Requires-Dist: cfi-core>=0.1" in text


@pytest.mark.parametrize("name", INSTALLED)
def test_the_wheel_is_what_is_installed(name):
    package = files(PACKAGES[name])
    assert "site-packages" in str(package)
    assert package.joinpath("py.typed").is_file()
    assert metadata.version(name) == "0.1.0"


def test_it_works_from_an_empty_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:cfi_core", "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbers.npz", "picture.png"]
