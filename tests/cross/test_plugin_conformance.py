"""The project's own plugins pass the tests that every plugin can inherit."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cfi_core.discovery import announcements
from cfi_core.hookspec import ENTRY_POINT_GROUP
from cfi_core.registry import registry
from cfi_core.testing.conformance import PluginConformance

FOLDERS = Path(__file__).parents[2] / "plugins"
PROJECTS = [tomllib.loads(path.read_text())["project"] for path in FOLDERS.glob("*/pyproject.toml")]
# One without an entry point is a library that plugins share.
NAMES = sorted(project["name"] for project in PROJECTS if "entry-points" in project)
PLUGINS = {info.distribution: point.load() for info, point in announcements(ENTRY_POINT_GROUP) if point}


@pytest.mark.parametrize("check", [name for name in dir(PluginConformance) if name.startswith("test_")])
@pytest.mark.parametrize("name", NAMES)
def test_our_plugins_conform(name: str, check: str) -> None:
    class Ours(PluginConformance):
        plugin = PLUGINS[name]
        beside = tuple(other for key, other in PLUGINS.items() if key != name and hasattr(other, "cfi_frameworks"))
        distribution = name

    getattr(Ours(), check)()


OFFERED = [
    (word, name)
    for word, table in (("toolset", "toolsets"), ("framework", "frameworks"), ("plotter", "plotters"))
    for (kind, name), plugin in registry().origins.items()
    if kind == table
    and (FOLDERS / plugin.distribution.replace("-", "_") / "tests").exists()
    # What draws checks has tests of its own: the kit's are of attributions.
    and not (kind == "plotters" and registry().plotters[name].draws == "checks")
]


@pytest.mark.parametrize(("word", "name"), OFFERED)
def test_all_that_our_plugins_offer_is_tested_by_the_kit(word: str, name: str) -> None:
    """A toolset on models with known answers too, unless there are no linear models."""
    texts = [path.read_text() for path in FOLDERS.glob("*/tests/*.py")]
    found = [text for text in texts if re.search(rf'^    {word}(, linear)? = "{name}"', text, re.MULTILINE)]
    answers = word == "toolset" and name != "shap-trees"
    for wanted in (f"{word.title()}Conformance", *(["KnownAnswerConformance"] if answers else [])):
        assert any(wanted in text for text in found), f"no test of {name} inherits {wanted}"
