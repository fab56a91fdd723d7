"""What to say of the name of a method or toolset that nothing installed goes by."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.catalogue import DISTRIBUTION_OF_TOOLSET, TOOLSETS_OF_METHOD
from cfi_core.errors import ArgumentError, UnknownMethodError
from cfi_core.registry import Registry
from cfi_core.spelling import nearest, nearest_methods


def check_toolset(registry: Registry, toolset: str) -> None:
    """Refuses a toolset that is not installed.

    Raises:
        UnknownMethodError: Names the one that was probably meant, or what brings it.
    """
    if not isinstance(toolset, str):
        raise ArgumentError(
            f"toolset must be the name of a toolset ({_join(registry.toolsets)}), not a {type(toolset).__name__}. "
            f"Everything else is passed by name: inputs=, target=, …"
        )
    if toolset not in registry.toolsets:
        near, distribution = nearest(toolset, registry.toolsets), DISTRIBUTION_OF_TOOLSET.get(toolset)
        raise UnknownMethodError(
            f"No toolset {toolset!r} is installed; installed are {_join(registry.toolsets)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + (f" pip install {distribution} brings it." if distribution else "")
            + registry.absence_note()
        )


def describe_unknown(registry: Registry, key: str, toolset: str | None = None) -> str:
    """What to do about a method that nothing installed offers: what was probably meant, or what brings it."""
    keys = {offered for offered, by in registry.methods if toolset in (None, by)}
    message = f"No installed plugin offers the method {key!r}{f' of toolset {toolset!r}' if toolset else ''}."
    elsewhere = {by for offered, by in registry.methods if offered == key}
    lacking = [name for name in TOOLSETS_OF_METHOD.get(key, ()) if name not in registry.toolsets]
    absent = {DISTRIBUTION_OF_TOOLSET[name] for name in lacking if toolset in (None, name)}
    near = nearest_methods(key, {*keys, *(TOOLSETS_OF_METHOD if toolset is None else ())})
    if toolset and elsewhere:
        message += f" Offered by {_join(elsewhere)}."
    elif absent:
        message += f" pip install {' or '.join(sorted(absent))} brings it."
    elif near:
        message += f" Did you mean {' or '.join(map(repr, near))}?"
    else:
        message += f" {len(keys)} methods are offered; cfi.methods() lists them."
    return message + registry.absence_note()


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
