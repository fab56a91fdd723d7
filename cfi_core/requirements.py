"""PEP 508 requirements, and whether what is installed meets them. Only metadata is read; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import importlib_metadata
from packaging.requirements import Requirement


def unmet(requirements: Iterable[str]) -> tuple[str, ...]:
    """Those of the PEP 508 requirements that the installed distributions do not meet."""
    return tuple(text for text in requirements if not _is_met(text))


@cache
def version_of(distribution: str) -> str:
    """Version of an installed distribution; empty if it is not installed."""
    try:
        return importlib_metadata.version(distribution) or ""
    except importlib_metadata.PackageNotFoundError:
        return ""


def _is_met(text: str) -> bool:
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    version = version_of(requirement.name)
    return bool(version) and requirement.specifier.contains(version, prereleases=True)
