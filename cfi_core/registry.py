"""What the plugins offer, gathered: each is loaded on its own, and what does not fit is reported and left out."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import Any, Generic, TypeVar

import pluggy
from importlib_metadata import EntryPoint
from packaging.utils import NormalizedName, canonicalize_name

from cfi_core import builtin, hookspec
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK
from cfi_core.discovery import DISABLED, PluginInfo, announcements
from cfi_core.errors import FOREIGN, PluginConflictError, PluginWarning, UnknownMethodError, summary, warn
from cfi_core.requirements import unmet, version_of
from cfi_core.specs import (
    ANY,
    CommandSpec,
    FrameworkSpec,
    MethodSpec,
    MetricSpec,
    PlotterSpec,
    PreparationSpec,
    Spec,
    ToolsetSpec,
    TranslatorSpec,
    WriterSpec,
)
from cfi_core.turns import Lock
from cfi_core.validation import Checked, Refused

_Name = TypeVar("_Name")
_Spec = TypeVar("_Spec")


@dataclass(frozen=True)
class Withdrawn(Generic[_Spec]):
    """A spec that cannot be used, and why, although the plugin that offers it was loaded."""

    plugin: PluginInfo
    spec: _Spec
    reason: str


@dataclass(frozen=True, eq=False)
class Names(Mapping[_Name, _Spec]):
    """Specs by their names. To ask for one that several plugins claim is an error; `contested` has its words."""

    specs: dict[_Name, _Spec]
    contested: dict[_Name, str]

    def __getitem__(self, name: _Name) -> _Spec:
        if name in self.contested:
            raise PluginConflictError(f"{self.contested[name]}.")
        return self.specs[name]

    def __iter__(self) -> Iterator[_Name]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


@dataclass(frozen=True)
class _Slot:
    """What one hook brings into one table, and the names that it claims there."""

    table: str
    spec: type
    noun: str
    names: Callable[[Any], tuple[Hashable, ...]] = lambda spec: (spec.name,)

    @property
    def hook(self) -> str:
        return f"cfi_{self.table}"

    def describe(self, name: Any) -> str:
        return f"{self.noun} {name[0]!r} of {name[1]!r}" if isinstance(name, tuple) else f"{self.noun} {name!r}"

    def gather(self, implementations: Iterable[pluggy.HookImpl]) -> list[Any]:
        """What a plugin's implementations of the hook return, each name once."""
        specs: list[Any] = []
        for offered in (implementation.function() for implementation in implementations):
            if not isinstance(offered, Iterable):
                given, wanted = type(offered).__name__, self.spec.__name__
                raise Refused(f"{self.hook} returned a {given}; it must return a list of {wanted}s")
            specs.extend(offered)
        for spec in specs:
            if not isinstance(spec, self.spec):
                shown = f"the {spec.title}" if isinstance(spec, Checked) else repr(spec)
                raise Refused(f"{self.hook} returned {shown}, which is no {self.spec.__name__}")
        for name, count in Counter(name for spec in specs for name in self.names(spec)).items():
            if count > 1:
                raise Refused(f"{self.hook} returned the {self.describe(name)} twice")
        return specs


_Offer = dict[_Slot, list[Any]]
_SLOTS = (
    _Slot("frameworks", FrameworkSpec, "framework"),
    _Slot("toolsets", ToolsetSpec, "toolset"),
    _Slot("methods", MethodSpec, "method", lambda spec: ((spec.key, spec.toolset),)),
    _Slot("translators", TranslatorSpec, "translator"),
    _Slot("preparations", PreparationSpec, "preparation"),
    _Slot("plotters", PlotterSpec, "plotter"),
    _Slot("writers", WriterSpec, "file suffix", lambda spec: spec.suffixes),
    _Slot("metrics", MetricSpec, "metric", lambda spec: ((spec.name, spec.library),)),
    _Slot("commands", CommandSpec, "command"),
)


@dataclass(frozen=True)
class Registry:
    """Everything that the loaded plugins offer, by name.

    Methods are known by key and toolset, metrics by name and library, writers by file suffix.

    Attributes:
        manager: Holds the hooks that are called while a call runs.
        plugins: All that were found.
        origins: For each table and name, the plugin that brings it.
        withdrawn: What cannot be used: names that several plugins claim, methods of a toolset that nobody describes.
    """

    manager: pluggy.PluginManager
    plugins: tuple[PluginInfo, ...]
    frameworks: Names[str, FrameworkSpec]
    toolsets: Names[str, ToolsetSpec]
    methods: Names[tuple[str, str], MethodSpec]
    translators: Names[str, TranslatorSpec]
    preparations: Names[str, PreparationSpec]
    plotters: Names[str, PlotterSpec]
    writers: Names[str, WriterSpec]
    metrics: Names[tuple[str, str], MetricSpec]
    commands: Names[str, CommandSpec]
    origins: Mapping[tuple[str, Hashable], PluginInfo]
    withdrawn: tuple[Withdrawn[Any], ...] = ()

    def absence_note(self) -> str:
        """A sentence about the plugins that were left out or switched off, for errors; empty if there are none."""
        absent = "; ".join(f"{plugin.label} ({plugin.state})" for plugin in self.plugins if not plugin.loaded)
        return f" Not loaded: {absent}." if absent else ""

    def origin_of(self, spec: Spec) -> PluginInfo:
        """The plugin that brings a spec (or the one that a changed copy of it was made from)."""
        names = [(slot.table, name) for slot in _SLOTS if isinstance(spec, slot.spec) for name in slot.names(spec)]
        unknown = PluginInfo("unknown", "a plugin that is not registered", "", "")
        return next((self.origins[name] for name in names if name in self.origins), unknown)

    def lacks(self, spec: ToolsetSpec | TranslatorSpec) -> tuple[str, ...]:
        """The distributions (for its frameworks) and PEP 508 requirements that a toolset or translator lacks."""
        frameworks = (spec.framework,) if isinstance(spec, ToolsetSpec) else (spec.source, spec.target)
        absent = [name for name in dict.fromkeys(frameworks) if name != ANY and name not in set(self.frameworks)]
        return (*(self._distribution_of(name) for name in absent), *unmet(spec.requirements))

    def _distribution_of(self, framework: str) -> str:
        labels = [entry.plugin.label for entry in self._withdrawn(FrameworkSpec) if entry.spec.name == framework]
        if labels:
            return f"one plugin alone for the framework {framework!r} (there are {' and '.join(labels)})"
        return DISTRIBUTION_OF_FRAMEWORK.get(framework, f"a plugin for the framework {framework!r}")

    def contested_frameworks(self) -> dict[str, FrameworkSpec]:
        """The frameworks that several plugins claim, each with all that they say of its models and tensors."""
        merged: dict[str, FrameworkSpec] = {}
        for spec in (entry.spec for entry in self._withdrawn(FrameworkSpec)):
            other = merged.get(spec.name, spec)
            signs = ("model_types", "tensor_types", "file_suffixes")
            merged[spec.name] = replace(spec, **{name: getattr(other, name) + getattr(spec, name) for name in signs})
        return merged

    def _withdrawn(self, kind: type[_Spec]) -> list[Withdrawn[_Spec]]:
        return [entry for entry in self.withdrawn if isinstance(entry.spec, kind)]

    def refuse_withdrawn(self, key: str) -> None:
        """Says why a method cannot be used that plugins do offer.

        Raises:
            PluginConflictError: Its name, or its toolset's, is claimed by several plugins.
            UnknownMethodError: No plugin describes its toolset.
        """
        reasons = dict.fromkeys(entry.reason for entry in self._withdrawn(MethodSpec) if entry.spec.key == key)
        if reasons:
            contested = any(name[0] == key for name in self.methods.contested)
            kind = PluginConflictError if contested else UnknownMethodError
            raise kind(f"The method {key!r} cannot be used. {'; '.join(reasons)}.")

    def implementations(self, hook: str) -> tuple[tuple[PluginInfo, Callable[..., Any]], ...]:
        """Who implements a hook, and how; the one that pluggy would ask first in front.

        The functions take all arguments of the hook by keyword, and pass on those that the plugin asks for.
        """
        owners = {_handle(plugin): plugin for plugin in self.plugins if not plugin.error}
        found = reversed(getattr(self.manager.hook, hook).get_hookimpls())
        return tuple((owners[entry.plugin_name], _by_keyword(entry)) for entry in found)


def _by_keyword(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    return lambda **given: implementation.function(*(given[name] for name in implementation.argnames))


def _handle(plugin: PluginInfo) -> str:
    return f"{plugin.distribution}:{plugin.name}"


def _read_disabled() -> set[NormalizedName]:
    return {canonicalize_name(name.strip()) for name in os.environ.get(DISABLED, "").split(",")} - {""}


def load(plugins: Iterable[tuple[PluginInfo, Any]]) -> Registry:
    """Builds a registry of core's own plugin and the given ones, each with its entry point or module (None, if broken).

    Warns:
        PluginWarning: A plugin, or something that it offers, was left out.
    """
    manager = pluggy.PluginManager(hookspec.PROJECT)
    manager.add_hookspecs(hookspec)
    core = PluginInfo("core", "cfi-core", version_of("cfi-core"), builtin.__name__)
    offers = [_offer(manager, info, module) for info, module in ((core, builtin), *plugins)]
    tables: dict[str, Names[Any, Any]] = {slot.table: Names({}, {}) for slot in _SLOTS}
    toolsets, origins, withdrawn = tables["toolsets"], {}, []
    for (slot, name), claimants in _claims(offers).items():
        table, (plugin, spec) = tables[slot.table], claimants[0]
        if len(claimants) > 1:
            labels = " and by ".join(claimant.label for claimant, _ in claimants)
            reason = f"The {slot.describe(name)} is claimed by {labels}; uninstall one of them, or set {DISABLED}"
            table.contested[name] = reason
        elif slot.spec is not MethodSpec or spec.toolset in toolsets.specs:
            origins[slot.table, name], table.specs[name] = plugin, spec
            continue
        elif spec.toolset in toolsets.contested:
            table.contested[name] = reason = toolsets.contested[spec.toolset]
        else:
            reason = f"No installed plugin describes the toolset {spec.toolset!r}"
        withdrawn += [Withdrawn(*claim, reason) for claim in claimants]
    infos = tuple(_with_reasons(info, withdrawn) for info, _ in offers)
    return Registry(manager, infos, **tables, origins=origins, withdrawn=tuple(withdrawn))


def _claims(offers: list[tuple[PluginInfo, _Offer]]) -> dict[tuple[_Slot, Hashable], list[tuple[PluginInfo, Any]]]:
    """Who claims each name, and for what; sorted, so that nothing depends on the order in which plugins were found."""
    claims = defaultdict(list)
    ordered = sorted(offers, key=lambda pair: (pair[0].distribution, pair[0].name))
    for slot, (info, offer) in product(_SLOTS, ordered):
        for spec in offer.get(slot, ()):
            for name in slot.names(spec):
                claims[slot, name].append((info, spec))
    return claims


def _with_reasons(plugin: PluginInfo, withdrawn: list[Withdrawn[Any]]) -> PluginInfo:
    """The plugin with what of it cannot be used, which is reported."""
    reasons = tuple(dict.fromkeys(entry.reason for entry in withdrawn if entry.plugin == plugin))
    if reasons:
        offered = f"Not all that plugin {plugin.name!r} of {plugin.label} offers can be used"
        warn(f"{offered}: {'; '.join(reasons)}.", PluginWarning)
    return replace(plugin, withdrawn=reasons)


def _offer(manager: pluggy.PluginManager, info: PluginInfo, module: Any) -> tuple[PluginInfo, _Offer]:
    """What one plugin offers: nothing where it is switched off, or where anything about it fails, which is reported."""
    if {canonicalize_name(info.name), canonicalize_name(info.distribution)} & _read_disabled():
        return replace(info, disabled=True, error=""), {}
    cause: BaseException | None = None
    if not info.error:
        try:
            return info, _accept(manager, info, module.load() if isinstance(module, EntryPoint) else module)
        except FOREIGN as error:
            cause = error
            info = replace(info, error=str(error) if isinstance(error, Refused) else summary(error))
    advice = f"Update or uninstall {info.distribution}; everything else works."
    warn(f"Plugin {info.name!r} of {info.label} was left out: {info.error}. {advice}", PluginWarning, cause)
    return info, {}


def _accept(manager: pluggy.PluginManager, info: PluginInfo, module: Any) -> _Offer:
    """Registers the plugin, or leaves no trace of it."""
    _check_contract(module)
    if manager.has_plugin(_handle(info)):
        raise Refused(f"{info.distribution} announces two plugins of that name")
    if other := manager.get_name(module):
        raise Refused(f"{info.module} is loaded already, as {other}")
    try:
        manager.register(module, name=_handle(info))
        hooks = manager.get_hookcallers(module) or []
        marked = {hook.name: [entry for entry in hook.get_hookimpls() if entry.plugin is module] for hook in hooks}
        _check_hooks(module, marked)
        return {slot: slot.gather(marked.get(slot.hook, [])) for slot in _SLOTS}
    except FOREIGN:
        if manager.has_plugin(_handle(info)):
            manager.unregister(name=_handle(info))
        raise


def _check_hooks(module: Any, marked: Mapping[str, list[pluggy.HookImpl]]) -> None:
    """Every hook that the plugin marks exists, every one that it has is marked, and none wraps those of others."""
    hooks = [name for name in vars(hookspec) if name.startswith("cfi_")]
    for name in sorted(set(marked) - set(hooks)):
        nearest = get_close_matches(name, hooks, n=1)
        raise Refused(f"there is no hook {name!r}" + (f"; nearest: {nearest[0]}" if nearest else ""))
    for name in hooks:
        if name not in marked and callable(getattr(module, name, None)):
            raise Refused(f"its {name} is not marked with @hookimpl (from cfi_core.hookspec)")
        if any(entry.wrapper or entry.hookwrapper for entry in marked.get(name, ())):
            raise Refused(f"its {name} is a wrapper around the hooks of other plugins, which no plugin may put there")


def _check_contract(module: Any) -> None:
    built_for = getattr(module, "CFI_CONTRACT", 1)
    if type(built_for) is not int:
        raise Refused(f"its CFI_CONTRACT is {built_for!r}, which is no whole number")
    if built_for != hookspec.CONTRACT:
        ours = f"this cfi-core ({version_of('cfi-core')}) has contract {hookspec.CONTRACT}"
        advice = "; it needs a newer cfi-core" if built_for > hookspec.CONTRACT else ""
        raise Refused(f"it was built for contract {built_for} between cfi-core and its plugins, and {ours}{advice}")


_lock = Lock()
_loading = False
_registry: Registry | None = None


def registry() -> Registry:
    """The registry of this process; plugins are loaded on first use.

    Warns:
        PluginWarning: A plugin was left out (see `load`), or `CFI_DISABLE_PLUGINS` names one that is not installed.

    Raises:
        RuntimeError: A plugin asks for it while it is being loaded itself.
    """
    global _registry, _loading
    with _lock:
        if _loading:
            raise RuntimeError("a plugin cannot ask what is installed while plugins are being loaded")
        if _registry is None:
            _loading = True
            try:
                loaded = load(announcements(hookspec.ENTRY_POINT_GROUP))
                _report_unknown(loaded.plugins)
                _registry = loaded
            finally:
                _loading = False
        return _registry


def _report_unknown(plugins: Sequence[PluginInfo]) -> None:
    names = {canonicalize_name(name) for plugin in plugins for name in (plugin.name, plugin.distribution)}
    if unknown := sorted(_read_disabled() - names):
        absent = f"{', '.join(map(repr, unknown))}, and no installed plugin is called that"
        installed = ", ".join(sorted(f"{plugin.name} ({plugin.distribution})" for plugin in plugins))
        warn(f"{DISABLED} names {absent}; installed are {installed}.", PluginWarning)


def replace_registry(new: Registry | None) -> Registry | None:
    """Puts another registry in place and returns the former one (for `cfi_core.testing`); None loads anew."""
    global _registry
    with _lock:
        former, _registry = _registry, new
        return former
