"""The distributions of this repository: the core, and one in each folder under plugins/, a plugin or a library."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINT = "cfi_core.plugins"


@dataclass(frozen=True)
class Distribution:
    """A folder with a `pyproject.toml`."""

    folder: Path

    @property
    def pyproject(self) -> Path:
        """The file that describes it."""
        return self.folder / "pyproject.toml"

    @cached_property
    def project(self) -> dict[str, Any]:
        """The table `[project]` of that file."""
        project: dict[str, Any] = tomllib.loads(self.pyproject.read_text())["project"]
        return project

    @property
    def name(self) -> str:
        """What pip calls it."""
        return str(self.project["name"])

    @property
    def package(self) -> str:
        """What Python calls it."""
        return self.name.replace("-", "_")

    @property
    def is_library(self) -> bool:
        """Whether it is no plugin: it offers nothing by an entry point, and plugins may import it."""
        return self.name != "cfi-core" and ENTRY_POINT not in self.project.get("entry-points", {})

    @property
    def sources(self) -> Path:
        """The folder that its package lies in."""
        src = self.folder / "src"
        return src if src.is_dir() else self.folder

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of its optional sets of requirements."""
        return tuple(self.project.get("optional-dependencies", {}))

    def requirements(self, extras: Iterable[str] = ()) -> list[str]:
        """What it requires, and what the extras add."""
        return [*self.project["dependencies"], *self.extra_requirements(extras)]

    def extra_requirements(self, extras: Iterable[str]) -> list[str]:
        """What these extras add to what it requires anyway."""
        return [text for extra in sorted(extras) for text in self.project["optional-dependencies"][extra]]


def distributions(root: Path = ROOT) -> dict[str, Distribution]:
    """All of them by name, the core first."""
    plugins = sorted(path.parent for path in root.glob("plugins/[!_]*/pyproject.toml"))
    return {found.name: found for found in map(Distribution, [root, *plugins])}


def split(requirement: str) -> tuple[str, set[str]]:
    """Name and extras of a requirement such as `cfi-translate[libraries]~=0.1.0`."""
    name, extras = re.match(r"([\w.-]+)(?:\[(.*?)\])?", requirement).groups()  # type: ignore[union-attr]
    return name, set(filter(None, (extras or "").replace(" ", "").split(",")))
