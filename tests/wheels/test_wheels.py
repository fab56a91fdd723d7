"""The built distributions: what is in them, and what a user gets who installs two of them."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import venv
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from distributions import distributions
from packaging.requirements import Requirement

DISTRIBUTIONS = distributions()
PLUGINS = [name for name, found in DISTRIBUTIONS.items() if name != "cfi-core" and not found.is_library]
FOLDER = Path(os.environ["CFI_WHEELS"])

# What a user asks for, and which distributions of this project that brings.
WANTED = ("cfi-core", "cfi-captum")
BROUGHT = {"cfi-core", "cfi-captum", "cfi-torch", "cfi-torchgraph", "cfi-matplotlib"}
STAYS_AWAY = {"tensorflow", "keras", "tf-keras-vis", "onnx", "onnxruntime", "jax", "torchvision", "tf2onnx"}

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
result.save("picture.png")
result.save("numbers.npz")
"""

BRIDGED = """
import numpy as np

import cfi_core as cfi

# A plain function of arrays, run where it lives: no framework but torch is installed.
inputs = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], np.float32)
weights = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])
result = cfi.attribute(lambda rows: rows @ weights, "feature_ablation", "captum", inputs=inputs, target=1)
np.testing.assert_allclose(result.values, inputs * weights[:, 1], rtol=1e-5)
assert result.route == ("bridge-to-torch",)
"""


def wheel(name: str) -> Path:
    (path,) = FOLDER.glob(f"{DISTRIBUTIONS[name].package}-*.whl")
    return path


def read(name: str, file: str) -> str:
    """A file of the wheel's metadata."""
    with ZipFile(wheel(name)) as archive:
        (path,) = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{file}")]
        return archive.read(path).decode()


def metadata(name: str) -> Message:
    return Parser().parsestr(read(name, "METADATA"))


def requirements(name: str) -> dict[str, Requirement]:
    """What the distribution requires without an extra."""
    found = map(Requirement, metadata(name).get_all("Requires-Dist") or [])
    return {one.name: one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})}


def test_every_distribution_is_built():
    assert len(list(FOLDER.iterdir())) == 2 * len(DISTRIBUTIONS)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_ships_its_types_and_licence_and_nothing_else(name):
    package = DISTRIBUTIONS[name].package
    with ZipFile(wheel(name)) as archive:
        shipped = archive.namelist()
    assert f"{package}/py.typed" in shipped
    assert {top for top in (entry.split("/")[0] for entry in shipped) if not top.endswith(".dist-info")} == {package}
    assert "Apache License" in read(name, "licenses/LICENSE")
    told = metadata(name)
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Version"] == DISTRIBUTIONS["cfi-core"].project["version"]
    assert told["Description-Content-Type"] == "text/markdown"


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_an_sdist_holds_the_package_of_the_wheel(name):
    found = DISTRIBUTIONS[name]
    with ZipFile(wheel(name)) as archive:
        expected = {entry for entry in archive.namelist() if entry.startswith(f"{found.package}/")}
    (path,) = FOLDER.glob(f"{found.package}-*.tar.gz")
    with tarfile.open(path) as archive:
        shipped = {entry.partition("/")[2].removeprefix("src/") for entry in archive.getnames()}
    assert expected <= shipped
    assert {"pyproject.toml", "README.md", "LICENSE"} <= shipped


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_found_by_its_entry_point_and_needs_the_core(name):
    entry_points = read(name, "entry_points.txt")
    assert "[cfi_core.plugins]" in entry_points
    assert f"= {DISTRIBUTIONS[name].package}.plugin" in entry_points
    core, version = requirements(name)["cfi-core"], DISTRIBUTIONS["cfi-core"].project["version"]
    major, minor = version.split(".")[:2]
    assert core.specifier.contains(version)
    assert not core.specifier.contains(f"{major}.{int(minor) + 1}.0")


@pytest.mark.parametrize("name", [name for name, found in DISTRIBUTIONS.items() if found.is_library])
def test_a_library_is_found_as_no_plugin(name):
    with ZipFile(wheel(name)) as archive:
        assert not any(entry.endswith("entry_points.txt") for entry in archive.namelist())


def run(python: Path, *arguments: object, folder: Path | None = None) -> str:
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(python: Path, *names: str) -> dict[str, str]:
    """Installs what the names bring, from the folder of wheels or from an index; says where each came from."""
    report = python.parent / "report.json"
    options = ["--quiet", "--no-compile", "--find-links", FOLDER, "--report", report]
    run(python, "-m", "pip", "install", *options, *names)
    return {one["metadata"]["name"]: one["download_info"]["url"] for one in json.loads(report.read_text())["install"]}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """The interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def brought(empty) -> dict[str, str]:
    """What came into it with the distributions that were asked for, and from where."""
    return install(empty, *WANTED)


def test_what_comes_along_and_what_does_not(brought):
    assert {name for name in brought if name in DISTRIBUTIONS} == BROUGHT
    assert {brought[name] for name in BROUGHT} == {wheel(name).as_uri() for name in BROUGHT}
    assert brought.keys() >= {"torch", "captum", "numpy", "matplotlib"}
    assert not {name.lower().replace("_", "-") for name in brought} & STAYS_AWAY


def test_it_works_from_an_empty_directory(empty, brought, tmp_path):
    run(empty, "-W", "error::UserWarning:cfi_core", "-c", SCRIPT, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbers.npz", "picture.png"]


def test_a_bridge_that_is_added_brings_no_framework(empty, brought, tmp_path):
    added = install(empty, "cfi-bridge")
    assert set(added) == {"cfi-bridge"}
    run(empty, "-W", "error::UserWarning:cfi_core", "-c", BRIDGED, folder=tmp_path)


def test_nothing_is_amiss(empty, brought):
    assert "No broken requirements" in run(empty, "-m", "pip", "check")
