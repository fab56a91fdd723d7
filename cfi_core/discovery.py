"""Which plugins the installed distributions announce; every distribution is read on its own.

One whose metadata is damaged is reported if it announces a plugin, and of no concern otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import importlib_metadata
from importlib_metadata import Distribution, EntryPoint
from packaging.utils import canonicalize_name

from cfi_core.errors import FOREIGN
from cfi_core.requirements import installed_distribution

_FILE = "entry_points.txt"


@dataclass(frozen=True)
class Announcement:
    """An entry point of a distribution, or why there is none to be read.

    Attributes:
        distribution: Name of the distribution; of its folder, if it does not tell its name.
        version: Its version; empty where it cannot be read.
        entry_point: What it announces; None if that cannot be read.
        error: Why not.
    """

    distribution: str
    version: str = ""
    entry_point: EntryPoint | None = None
    error: str = ""


def announcements(group: str) -> list[Announcement]:
    """All entry points of a group, each once, in the order of `sys.path`."""
    found: dict[tuple[str, str], Announcement] = {}
    distributions: Iterable[Any] = importlib_metadata.distributions()
    for distribution in distributions:
        if not _mentions(distribution, group):
            continue
        for announcement in _read(distribution, group):
            point = announcement.entry_point
            # An editable install can be announced by two metadata folders of one distribution.
            found.setdefault((canonicalize_name(announcement.distribution), point.value if point else ""), announcement)
    return list(found.values())


def _mentions(distribution: Distribution, group: str) -> bool:
    """Whether the group's name stands in the file, readable or not: a glance that spares parsing all others."""
    try:
        return group in (distribution.read_text(_FILE) or "")
    except UnicodeDecodeError as error:
        return group.encode() in error.object
    except FOREIGN:
        return False


def _read(distribution: Distribution, group: str) -> Iterator[Announcement]:
    folder = PurePath(str(getattr(distribution, "_path", "unknown distribution"))).name
    try:
        name, version = distribution.metadata.get("Name"), distribution.metadata.get("Version") or ""
    except FOREIGN as error:
        yield Announcement(folder, error=f"its metadata cannot be read ({type(error).__name__}: {error})")
        return
    if not name:
        yield Announcement(folder, error="its metadata does not tell its name")
        return
    try:
        if not _is_shadowed(distribution, name):
            for point in distribution.entry_points.select(group=group):
                yield Announcement(name, version, point)
    except FOREIGN as error:
        yield Announcement(name, version, error=f"its {_FILE} cannot be read ({type(error).__name__}: {error})")


def _is_shadowed(distribution: Distribution, name: str) -> bool:
    """Whether another version, in front of this one on `sys.path`, is the one that Python imports."""
    first = installed_distribution(name)
    return first is not None and first.read_text(_FILE) != distribution.read_text(_FILE)
