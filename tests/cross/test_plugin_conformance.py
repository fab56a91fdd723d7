"""The project's own plugins pass the tests that every plugin can inherit."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cfi_core.discovery import announcements
from cfi_core.hookspec import ENTRY_POINT_GROUP
from cfi_core.testing.conformance import PluginConformance

FOLDERS = Path(__file__).parents[2] / "plugins"
NAMES = sorted(tomllib.loads(path.read_text())["project"]["name"] for path in FOLDERS.glob("*/pyproject.toml"))
PLUGINS = {info.distribution: point.load() for info, point in announcements(ENTRY_POINT_GROUP) if point}


@pytest.mark.parametrize("check", [name for name in dir(PluginConformance) if name.startswith("test_")])
@pytest.mark.parametrize("name", NAMES)
def test_our_plugins_conform(name: str, check: str) -> None:
    class Ours(PluginConformance):
        plugin = PLUGINS[name]
        beside = tuple(other for key, other in PLUGINS.items() if key != name and hasattr(other, "cfi_frameworks"))
        distribution = name

    getattr(Ours(), check)()
