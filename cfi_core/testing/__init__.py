"""A kit for authors of plugins: a fake plugin, a registry of one's own, and tests to inherit.

    from cfi_core.testing import use_plugins
    from cfi_core.testing.conformance import TranslatorConformance

See `docs/writing-a-plugin.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cfi_core.discovery import PluginInfo, announcements
from cfi_core.errors import ArgumentError
from cfi_core.hookspec import ENTRY_POINT_GROUP
from cfi_core.registry import Registry, load, registry, replace_registry


@contextmanager
def use_plugins(*modules: Any, with_installed: bool = False) -> Iterator[Registry]:
    """Lets this process see the given plugins instead of the installed ones.

    Args:
        *modules: Plugin modules (or objects with hook implementations).
        with_installed: See the installed plugins too.

    Yields:
        The registry that is in place inside the context.

    Raises:
        ArgumentError: One of the given plugins is installed, so that it would be seen twice.
    """
    names = [str(getattr(module, "__name__", type(module).__name__)) for module in modules]
    given = [PluginInfo(name, f"dist-of-{name}", "1.0", name) for name in names]
    installed = announcements(ENTRY_POINT_GROUP) if with_installed else []
    for info, _ in installed:
        if info.module in names:
            shown = f"{info.module} is installed by {info.label}, and with_installed=True shows it already"
            raise ArgumentError(f"{shown}: leave it out of use_plugins().")
    former = replace_registry(load([*installed, *zip(given, modules, strict=True)]))
    try:
        yield registry()
    finally:
        replace_registry(former)
