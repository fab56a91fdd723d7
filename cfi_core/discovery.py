"""Which plugins the installed distributions announce; every distribution is read on its own.

One whose metadata is damaged is reported if it announces a plugin, and of no concern otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import importlib_metadata
from importlib_metadata import Distribution, EntryPoint
from packaging.utils import canonicalize_name

from cfi_core.errors import FOREIGN
from cfi_core.requirements import installed_distribution

DISABLED = "CFI_DISABLE_PLUGINS"
"""Environment variable: names of entry points or distributions, with commas between them, that are not loaded."""

_FILE = "entry_points.txt"


@dataclass(frozen=True)
class PluginInfo:
    """One plugin, loaded or not.

    Attributes:
        name: Name of its entry point.
        distribution: Distribution that brings it.
        version: Version of that distribution.
        module: Module that the entry point names.
        error: Why it was left out; empty if it was loaded.
        disabled: Whether `CFI_DISABLE_PLUGINS` switches it off.
        withdrawn: What of it cannot be used although it was loaded, and why.
    """

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""
    disabled: bool = False
    withdrawn: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def loaded(self) -> bool:
        """Whether what it offers counts."""
        return not (self.error or self.disabled)

    @property
    def state(self) -> str:
        """In words, whether it was loaded."""
        if self.disabled:
            return f"switched off by {DISABLED}"
        return f"left out: {self.error}" if self.error else "; ".join(("loaded", *self.withdrawn))

    def __repr__(self) -> str:
        return f"{self.name:<16} {self.label:<24} {self.state}"


def announcements(group: str) -> list[tuple[PluginInfo, EntryPoint | None]]:
    """All plugins that are announced in a group of entry points, each once, in the order of `sys.path`.

    With each its entry point; None where that cannot be read, for the reason that is given.
    """
    found: dict[tuple[str, str], tuple[PluginInfo, EntryPoint | None]] = {}
    distributions: Iterable[Any] = importlib_metadata.distributions()
    for distribution in distributions:
        if _mentions(distribution, group):
            for info, point in _read(distribution, group):
                # An editable install can be announced by two metadata folders of one distribution.
                found.setdefault((canonicalize_name(info.distribution), info.module), (info, point))
    return list(found.values())


def _mentions(distribution: Distribution, group: str) -> bool:
    """Whether the group's name stands in the file, readable or not: a glance that spares parsing all others."""
    try:
        return group in (distribution.read_text(_FILE) or "")
    except UnicodeDecodeError as error:
        return group.encode() in error.object
    except FOREIGN:
        return False


def _read(distribution: Distribution, group: str) -> list[tuple[PluginInfo, EntryPoint | None]]:
    folder = PurePath(str(getattr(distribution, "_path", "unknown distribution"))).name
    name, version, file = "", "", "metadata"
    try:
        metadata = distribution.metadata  # parsed anew each time that it is asked for
        name, version = metadata.get("Name") or "", metadata.get("Version") or ""
        if not name:
            return [(PluginInfo("unknown", folder, "", "", "its metadata does not tell its name"), None)]
        file = _FILE
        first = installed_distribution(name)  # in front on `sys.path`, so the one that Python imports
        shadowed = first is not None and first.read_text(_FILE) != distribution.read_text(_FILE)
        points = () if shadowed else distribution.entry_points.select(group=group)
        return [(PluginInfo(point.name, name, version, point.value), point) for point in points]
    except FOREIGN as error:
        reason = f"its {file} cannot be read ({type(error).__name__}: {error})"
        return [(PluginInfo("unknown", name or folder, version, "", reason), None)]
