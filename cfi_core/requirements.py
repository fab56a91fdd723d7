"""PEP 508 requirements, and whether what is installed meets them. Only metadata is read; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import importlib_metadata
from packaging.version import InvalidVersion

from cfi_core.errors import FOREIGN
from cfi_core.validation import parse_requirement


def unmet(requirements: Iterable[str]) -> tuple[str, ...]:
    """Those of the PEP 508 requirements that the installed distributions do not meet."""
    return tuple(text for text in requirements if not _is_met(text))


@cache
def version_of(distribution: str) -> str:
    """Version of an installed distribution; empty if it is not installed."""
    found = installed_distribution(distribution)
    return "" if found is None else found.version


def installed_distribution(name: str) -> importlib_metadata.Distribution | None:
    """The distribution of that name that comes first on `sys.path`, folders with damaged metadata left out."""
    found: Iterable[Any] = importlib_metadata.distributions(name=name)
    for distribution in found:
        try:
            metadata = distribution.metadata  # parsed anew each time that it is asked for
            if metadata.get("Name") and metadata.get("Version"):
                return distribution
        except FOREIGN:
            continue  # what an interrupted update leaves behind
    return None


def _is_met(text: str) -> bool:
    requirement = parse_requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    version = version_of(requirement.name)
    try:
        return bool(version) and requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False
