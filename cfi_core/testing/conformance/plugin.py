"""What a plugin announces and offers."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from abc import ABC
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK
from cfi_core.discovery import PluginInfo, announcements
from cfi_core.errors import FOREIGN, PluginWarning, summary
from cfi_core.hookspec import ENTRY_POINT_GROUP
from cfi_core.registry import Registry
from cfi_core.requirements import unmet
from cfi_core.specs import (
    ANY,
    CommandSpec,
    FrameworkSpec,
    MethodSpec,
    MetricSpec,
    PlotterSpec,
    TranslatorSpec,
    WriterSpec,
    resolve,
)
from cfi_core.testing import use_plugins


class PluginConformance(ABC):
    """What a plugin announces and offers, before any model comes into it.

    Attributes:
        plugin: The plugin's module (or an object with hook implementations).
        beside: Plugins that bring what this one builds on, such as the toolset that its methods belong to.
        distribution: Name of the installed distribution that announces it; empty if it is not installed.
    """

    plugin: ClassVar[Any]
    beside: ClassVar[tuple[Any, ...]] = ()
    distribution: ClassVar[str] = ""

    def load(self) -> tuple[Registry, PluginInfo]:
        """The plugin, loaded beside nothing but those that it builds on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # the tests tell what it says
            with use_plugins(*self.beside, self.plugin) as current:
                return current, current.plugins[-1]

    def test_it_loads(self) -> None:
        """It was built for this contract, its hooks are core's, and its specs hold what they should."""
        _, plugin = self.load()
        assert not plugin.error, f"core leaves the plugin out: {plugin.error}"

    def test_all_that_it_offers_can_be_used(self) -> None:
        """Its names are its own, and its methods belong to toolsets that somebody describes."""
        _, plugin = self.load()
        assert not plugin.withdrawn, f"core withdraws a part of it: {'; '.join(plugin.withdrawn)}"

    def test_its_frameworks_are_known(self) -> None:
        """Toolsets and translators name frameworks that it, one beside it, or a plugin of the project describes."""
        current, _ = self.load()
        known = {ANY, *current.frameworks, *DISTRIBUTION_OF_FRAMEWORK}
        for spec in self._specs(current):
            for field in ("framework", "source", "target"):  # of a toolset; of a translator
                name = getattr(spec, field, ANY)
                assert name in known, f"{spec.name} names the framework {name!r}; known are {sorted(known)}"

    def test_its_implementations_exist_and_take_what_core_passes(self) -> None:
        """Those whose requirements are installed."""
        current, _ = self.load()
        for spec in self._specs(current):
            reference, arguments = _entrance(current, spec)
            if reference:
                _check_callable(reference, spec.title, arguments)
                _check_guard(spec)

    def test_importing_it_imports_no_framework(self) -> None:
        """Listing what is installed stays quick; implementations are named by strings."""
        if not isinstance(self.plugin, ModuleType):
            return
        name = self.plugin.__name__
        current, _ = self.load()
        heavy = {spec.module for spec in current.frameworks.values()} | set(DISTRIBUTION_OF_FRAMEWORK)
        script = f"""
            import sys, numpy, cfi_core.testing
            before = set(sys.modules)
            sys.path[:] = {sys.path!r}
            import {name}
            print(*sorted({heavy - {name}!r} & set(sys.modules) - before))
        """
        ran = subprocess.run([sys.executable, "-c", inspect.cleandoc(script)], capture_output=True, text=True)
        assert ran.returncode == 0, f"{name} cannot be imported by itself: {ran.stderr.strip()}"
        assert not ran.stdout.strip(), f"importing {name} imports {ran.stdout.strip()}"

    def test_it_is_announced(self) -> None:
        """An entry point of its distribution names it."""
        if not self.distribution:
            return
        found = [pair for pair in announcements(ENTRY_POINT_GROUP) if pair[0].distribution == self.distribution]
        named = any(point is not None and point.load() is self.plugin for _, point in found)
        assert named, f"no entry point of {self.distribution} names the plugin: {found}"

    def _specs(self, current: Registry) -> list[Any]:
        owners, mine = current.origins.items(), current.plugins[-1].name
        return [getattr(current, table)[name] for (table, name), owner in owners if owner.name == mine]


def _check_callable(reference: str, title: str, arguments: int | None) -> None:
    """What a spec names can be imported, and called with so many arguments; None: with whatever it takes."""
    try:
        implementation = resolve(reference)
    except FOREIGN as error:
        raise AssertionError(f"{reference!r} of {title} cannot be imported: {summary(error)}") from error
    try:
        signature = inspect.signature(implementation)
        if arguments is not None:
            signature.bind(*[None] * arguments)
    except TypeError as error:
        what = f"{reference!r} of {title} cannot be called with {arguments} arguments"
        raise AssertionError(f"{what}: {error}") from error


def _check_guard(spec: Any) -> None:
    guard = spec.guard if isinstance(spec, MethodSpec) else None
    if guard is None:
        return
    for reference in filter(None, (guard.check, guard.knows)):
        _check_callable(reference, f"the guard of {spec.title}", 1)
    for reference in guard.modules.values():
        _check_callable(reference, f"the guard of {spec.title}", None)


def _entrance(current: Registry, spec: Any) -> tuple[str, int | None]:
    """What core imports for a spec, and how many arguments it passes; nothing where something is not installed."""
    match spec:
        case FrameworkSpec() if find_spec(spec.module.partition(".")[0]) is not None:
            return spec.adapter, 0
        case MethodSpec() if not current.lacks(current.toolsets[spec.toolset]):
            return spec.implementation, 1
        case TranslatorSpec() if not current.lacks(spec):
            return spec.implementation, 1 if spec.kind == "bridge" else 2
        case PlotterSpec() if not unmet(spec.requirements):
            return spec.implementation, 1
        case WriterSpec() if not unmet(spec.requirements):
            return spec.implementation, 2
        case MetricSpec() if not unmet(spec.requirements):
            return spec.implementation, 3
        case CommandSpec() if not unmet(spec.requirements):
            return spec.implementation, None  # typer calls it with what it declares
    return "", 0
