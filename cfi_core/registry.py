"""Finds plugins, loads each on its own, and gathers what they offer into one registry."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType
from typing import Any, TypeVar

import importlib_metadata
import pluggy

from cfi_core import builtin, hookspec
from cfi_core.errors import PluginConflictError, PluginWarning
from cfi_core.requirements import version_of
from cfi_core.specs import (
    FrameworkSpec,
    MethodSpec,
    PlotterSpec,
    ToolsetSpec,
    TranslatorSpec,
    WriterSpec,
)

_Spec = TypeVar("_Spec")


@dataclass(frozen=True)
class PluginInfo:
    """One plugin, loaded or not.

    Attributes:
        name: Name of its entry point.
        distribution: Distribution that brings it.
        version: Version of that distribution.
        module: Module that the entry point names.
        error: Why it was left out; empty if it was loaded.
    """

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""

    @property
    def label(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Registry:
    """Everything that the loaded plugins offer."""

    manager: pluggy.PluginManager
    plugins: tuple[PluginInfo, ...]
    frameworks: Mapping[str, FrameworkSpec]
    toolsets: Mapping[str, ToolsetSpec]
    methods: Mapping[tuple[str, str], MethodSpec]
    translators: Mapping[str, TranslatorSpec]
    plotters: Mapping[str, PlotterSpec]
    writers: Mapping[str, WriterSpec]
    conflicts: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[PluginInfo, ...]:
        """Plugins that were left out."""
        return tuple(plugin for plugin in self.plugins if plugin.error)


@dataclass
class _Offer:
    """All specs of one plugin, gathered before any of them counts."""

    frameworks: list[FrameworkSpec] = field(default_factory=list)
    toolsets: list[ToolsetSpec] = field(default_factory=list)
    methods: list[MethodSpec] = field(default_factory=list)
    translators: list[TranslatorSpec] = field(default_factory=list)
    plotters: list[PlotterSpec] = field(default_factory=list)
    writers: list[WriterSpec] = field(default_factory=list)


_HOOKS: Mapping[str, tuple[str, type]] = MappingProxyType(
    {
        "cfi_frameworks": ("frameworks", FrameworkSpec),
        "cfi_toolsets": ("toolsets", ToolsetSpec),
        "cfi_methods": ("methods", MethodSpec),
        "cfi_translators": ("translators", TranslatorSpec),
        "cfi_plotters": ("plotters", PlotterSpec),
        "cfi_writers": ("writers", WriterSpec),
    }
)


class _Loader:
    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspec.PROJECT)
        self.manager.add_hookspecs(hookspec)
        self.plugins: list[PluginInfo] = []
        self.offers: list[tuple[PluginInfo, _Offer]] = []

    def load(self, info: PluginInfo, module: Any) -> None:
        """Registers one plugin; reports and leaves it out if anything about it fails."""
        name = f"{info.distribution}:{info.name}"
        try:
            if isinstance(module, importlib_metadata.EntryPoint):
                module = module.load()
            self.manager.register(module, name=name)
            self.manager.check_pending()
            offer = self._gather(module)
        except Exception as error:  # noqa: BLE001 - a plugin is foreign code: whatever it raises must not take the host down
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            info = replace(info, error=f"{type(error).__name__}: {error}")
            warnings.warn(
                f"Plugin {info.name!r} of {info.label} was left out: {info.error}. "
                f"Update or uninstall {info.distribution}; everything else works.",
                PluginWarning,
                stacklevel=2,
            )
        else:
            self.offers.append((info, offer))
        self.plugins.append(info)

    def _gather(self, module: Any) -> _Offer:
        offer = _Offer()
        for hook, (attribute, spec_type) in _HOOKS.items():
            for implementation in getattr(self.manager.hook, hook).get_hookimpls():
                if implementation.plugin is not module:
                    continue
                specs = list(implementation.function())
                for spec in specs:
                    if not isinstance(spec, spec_type):
                        raise TypeError(f"{hook} returned {spec!r}, which is no {spec_type.__name__}")
                getattr(offer, attribute).extend(specs)
        return offer

    def registry(self) -> Registry:
        conflicts: list[str] = []

        def merge(what: str, entries: Iterable[tuple[PluginInfo, Any, _Spec]]) -> Mapping[Any, _Spec]:
            merged: dict[Any, _Spec] = {}
            owners: dict[Any, PluginInfo] = {}
            for info, name, spec in entries:
                if name in merged:
                    conflicts.append(
                        f"{what} {name!r} is claimed by {owners[name].label} and by {info.label}; "
                        f"uninstall one of the two"
                    )
                    continue
                merged[name], owners[name] = spec, info
            return MappingProxyType(merged)

        # Sorted by distribution, so that nothing depends on the order in which plugins were found.
        offers = sorted(self.offers, key=lambda pair: (pair[0].distribution, pair[0].name))
        return Registry(
            manager=self.manager,
            plugins=tuple(self.plugins),
            frameworks=merge("Framework", ((i, s.name, s) for i, o in offers for s in o.frameworks)),
            toolsets=merge("Toolset", ((i, s.name, s) for i, o in offers for s in o.toolsets)),
            methods=merge("Method", ((i, (s.key, s.toolset), s) for i, o in offers for s in o.methods)),
            translators=merge("Translator", ((i, s.name, s) for i, o in offers for s in o.translators)),
            plotters=merge("Plotter", ((i, s.name, s) for i, o in offers for s in o.plotters)),
            writers=merge("File suffix", ((i, x, s) for i, o in offers for s in o.writers for x in s.suffixes)),
            conflicts=tuple(conflicts),
        )


def load(plugins: Iterable[tuple[PluginInfo, Any]]) -> Registry:
    """Builds a registry of core's own plugin and the given ones.

    Args:
        plugins: Pairs of what is known of a plugin, and its entry point or module.
    """
    loader = _Loader()
    loader.load(PluginInfo("core", "cfi-core", version_of("cfi-core"), builtin.__name__), builtin)
    for info, module in plugins:
        loader.load(info, module)
    return loader.registry()


def installed() -> list[tuple[PluginInfo, importlib_metadata.EntryPoint]]:
    """The plugins that installed distributions announce, each once."""
    found: dict[tuple[str, str], tuple[PluginInfo, importlib_metadata.EntryPoint]] = {}
    for point in importlib_metadata.entry_points(group=hookspec.ENTRY_POINT_GROUP):
        name = point.dist.name if point.dist else "unknown distribution"
        info = PluginInfo(point.name, name, point.dist.version if point.dist else "", point.value)
        # An editable install can be announced by two metadata folders of one distribution.
        found.setdefault((name, point.value), (info, point))
    return list(found.values())


_lock = Lock()
_registry: Registry | None = None


def loaded() -> Registry:
    """The registry of this process, whatever state it is in; plugins are loaded on first use."""
    global _registry
    with _lock:
        if _registry is None:
            _registry = load(installed())
        return _registry


def registry() -> Registry:
    """The registry of this process.

    Raises:
        PluginConflictError: Two distributions claim one name.
    """
    current = loaded()
    if current.conflicts:
        raise PluginConflictError("; ".join(current.conflicts) + ".")
    return current


def replace_registry(new: Registry | None) -> Registry | None:
    """Puts another registry in place and returns the former one (for `cfi_core.testing`); None loads anew."""
    global _registry
    with _lock:
        former, _registry = _registry, new
        return former
