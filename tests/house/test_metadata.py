"""One version for all distributions, and what else they say of the project, in one place."""

from __future__ import annotations

import shutil
import tomllib
from importlib.metadata import version
from pathlib import Path

import metadata
import pytest
from distributions import ROOT, distributions

import cfi_core as cfi

DISTRIBUTIONS = distributions()
CORE = DISTRIBUTIONS["cfi-core"]
PLUGINS = [found for name, found in DISTRIBUTIONS.items() if name != "cfi-core"]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Nothing but the files that hold shared facts, so that a test can write them."""
    for path in metadata.intended():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(ROOT / "LICENSE", tmp_path / "LICENSE")
    return tmp_path


def write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.write_text(text)


def test_every_copy_is_as_it_should_be():
    assert [str(path) for path, text in metadata.intended().items() if path.read_text() != text] == []


def test_the_package_tells_the_version():
    assert cfi.__version__ == CORE.project["version"] == version("cfi-core")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_says_the_same_as_the_core(plugin):
    for key in ("version", "requires-python", "license", "authors", "keywords", "classifiers", "urls"):
        assert plugin.project[key] == CORE.project[key], key
    assert f"cfi-core~={CORE.project['version']}" in plugin.project["dependencies"]
    assert plugin.project["description"] and (plugin.folder / plugin.project["readme"]).is_file()


def test_a_new_version_reaches_every_distribution(copied):
    write(metadata.intended(copied, "2.7.1"))
    assert metadata.intended(copied) == metadata.intended(copied, "2.7.1")
    for name, found in distributions(copied).items():
        assert found.project["version"] == "2.7.1"
        ours = [text for text in found.requirements(found.extras) if text.startswith("cfi-")]
        assert all(text.endswith("~=2.7.1") for text in ours)
        assert any(text.startswith("cfi-core~=") for text in ours) or name == "cfi-core"
    assert "\nversion: 2.7.1\n" in (copied / "CITATION.cff").read_text()


def test_a_new_plugin_gets_the_shared_facts(copied):
    folder = copied / "plugins" / "cfi_new"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "cfi-new"\nversion = "0.0.1"\nlicense = "MIT"\n'
        'dependencies = [\n    "cfi-core>=0.1",\n    "cfi-translate[libraries]; python_version >= \'3.11\'",\n'
        '    "cfi-core-like>=3",\n]\n\n'
        '[project.entry-points."cfi_core.plugins"]\nnew = "cfi_new.plugin"\n'
    )
    write(metadata.intended(copied))
    text = (folder / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    current = CORE.project["version"]
    assert (project["version"], project["license"], project["urls"]) == (current, "Apache-2.0", CORE.project["urls"])
    assert project["dependencies"] == [
        f"cfi-core~={current}",
        f"cfi-translate[libraries]~={current}; python_version >= '3.11'",
        "cfi-core-like>=3",
    ]
    assert project["entry-points"] == {"cfi_core.plugins": {"new": "cfi_new.plugin"}}
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
