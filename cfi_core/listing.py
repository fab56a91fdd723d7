"""Lists what is installed. Nothing here imports a framework or a toolset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from cfi_core.adapters import is_importable
from cfi_core.discovery import PluginInfo
from cfi_core.errors import ArgumentError, UnknownMethodError
from cfi_core.guide import make_guide
from cfi_core.guide.record import MethodGuide
from cfi_core.lookup import check_toolset, describe_unknown
from cfi_core.registry import registry
from cfi_core.rows import html_listing
from cfi_core.specs import FrameworkSpec, Kind, MethodSpec, ToolsetSpec, TranslatorSpec

_Spec = TypeVar("_Spec", FrameworkSpec, ToolsetSpec, TranslatorSpec)
_Entry = TypeVar("_Entry")


class Listing(list[_Entry]):
    """A list that prints one entry per line."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        return html_listing(self)


class Methods(Listing[MethodSpec]):
    """The methods that go by one key: a list of them that prints each in full."""

    @property
    def guides(self) -> tuple[MethodGuide, ...]:
        """Each in full, as data; imports their toolsets."""
        return tuple(make_guide(registry(), spec) for spec in self)

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self.guides)) or "no method of that toolset and kind goes by this key"

    def _repr_html_(self) -> str:
        return "".join(guide._repr_html_() for guide in self.guides)


@dataclass(frozen=True)
class Installed(Generic[_Spec]):
    """A listed framework, toolset or translator, and whether it can be used here.

    Attributes:
        spec: What its plugin says of it.
        missing: PEP 508 requirements that are not met, modules, and plugins for its frameworks; empty if usable.
    """

    spec: _Spec
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def usable(self) -> bool:
        """Whether everything that it requires is installed."""
        return not self.missing

    def __repr__(self) -> str:
        state = "usable" if self.usable else f"not usable: {', '.join(self.missing)} not installed"
        return f"{self.spec!r}, {state}"


@overload
def methods(key: None = None, *, toolset: str | None = None, kind: str | Kind | None = None) -> Listing[MethodSpec]: ...
@overload
def methods(key: str, *, toolset: str | None = None, kind: str | Kind | None = None) -> Methods: ...
def methods(
    key: str | None = None, *, toolset: str | None = None, kind: str | Kind | None = None
) -> Listing[MethodSpec]:
    """Methods of all installed toolsets, sorted by key; those of one key print in full.

    Args:
        key: Only methods of that key. Printed, each is shown in full, which imports its toolset: every argument with
            its default and meaning, needs, routes, an example call; `methods(key).guides` gives the same as data.
        toolset: Only methods of that toolset.
        kind: Only methods of that kind: `"attribution"`, `"layer"`, `"neuron"` or `"feature visualization"`.

    Raises:
        UnknownMethodError: Nothing installed goes by that key or toolset; names what was probably meant.
        ArgumentError: There is no such kind.
    """
    current = registry()
    if kind is not None and kind not in tuple(Kind):
        raise ArgumentError(f"There is no kind {kind!r} of methods; there are {', '.join(map(repr, map(str, Kind)))}.")
    if toolset is not None:
        check_toolset(current, toolset)
    found = [
        spec
        for _, spec in sorted(current.methods.items())
        if key in (None, spec.key) and toolset in (None, spec.toolset) and kind in (None, spec.kind)
    ]
    if key is None:
        return Listing(found)
    if not any(name == key for name, _ in current.methods):
        raise UnknownMethodError(describe_unknown(current, key, toolset))
    return Methods(found)


def frameworks() -> Listing[Installed[FrameworkSpec]]:
    """All frameworks whose models plugins understand, sorted by name."""
    specs = (spec for _, spec in sorted(registry().frameworks.items()))
    return Listing(Installed(spec, () if is_importable(spec.module) else (spec.module,)) for spec in specs)


def toolsets() -> Listing[Installed[ToolsetSpec]]:
    """All toolsets that plugins describe, sorted by name."""
    return Listing(Installed(spec, registry().lacks(spec)) for _, spec in sorted(registry().toolsets.items()))


def translators() -> Listing[Installed[TranslatorSpec]]:
    """All translators that plugins describe, sorted by name."""
    return Listing(Installed(spec, registry().lacks(spec)) for _, spec in sorted(registry().translators.items()))


def plugins() -> Listing[PluginInfo]:
    """All plugins found: loaded, left out and why, or switched off by `CFI_DISABLE_PLUGINS`."""
    return Listing(registry().plugins)
