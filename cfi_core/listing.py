"""Lists what is installed. Nothing here imports a framework or a toolset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from cfi_core.adapters import is_importable
from cfi_core.discovery import PluginInfo
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


def methods(
    key: str | None = None, *, toolset: str | None = None, kind: str | Kind | None = None
) -> Listing[MethodSpec]:
    """Methods of all installed toolsets, sorted by key.

    Args:
        key: Only methods of that key.
        toolset: Only methods of that toolset.
        kind: Only methods of that kind: `"attribution"`, `"layer"`, `"neuron"` or `"feature visualization"`.
    """
    return Listing(
        spec
        for _, spec in sorted(registry().methods.items())
        if key in (None, spec.key) and toolset in (None, spec.toolset) and kind in (None, spec.kind)
    )


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
