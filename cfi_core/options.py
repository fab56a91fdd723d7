"""Options of plotters and writers: their functions' own keyword arguments, checked before anything is drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

from cfi_core.errors import PlotError
from cfi_core.specs import PlotterSpec, WriterSpec, resolve

Outlet = PlotterSpec | WriterSpec

BUILTIN_WRITER = WriterSpec(name="npz", suffixes=(".npz",), implementation="cfi_core.archive:write_npz")


def check_options(spec: Outlet, options: Mapping[str, Any], others: Sequence[Outlet] = ()) -> None:
    """Checks that a plotter or writer takes options of these names.

    Args:
        spec: What is called with them.
        options: By name.
        others: What could be called in its place.

    Raises:
        PlotError: One is unknown; says what is known, and which of the others takes it.
    """
    kind, known = _kind(spec), options_of(spec)
    unknown = [name for name in options if known is not None and name not in known]
    if not unknown:
        return
    name, known = unknown[0], known or ()
    if not known:
        raise PlotError(f"The {kind} {spec.name!r} takes no options, and {name!r} was given.")
    takers = [one.name for one in others if _is_loaded(one) and name in (options_of(one) or ())]
    near = get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if takers:
        hint = f" The {kind} {takers[0]!r} has it: plot({takers[0]!r}, {name}=…)."
    raise PlotError(f"The {kind} {spec.name!r} has no option {name!r}; its options are {', '.join(known)}.{hint}")


def options_of(spec: Outlet) -> tuple[str, ...] | None:
    """Names of the options; None where the function takes any and hands them on."""
    parameters = list(signature(resolve(spec.implementation)).parameters.values())
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
        return None
    first = 1 if isinstance(spec, PlotterSpec) else 2
    return tuple(one.name for one in parameters[first:] if one.kind is not Parameter.VAR_POSITIONAL)


def _is_loaded(spec: Outlet) -> bool:
    """A hint is not worth an import."""
    return spec.implementation.partition(":")[0] in sys.modules


def _kind(spec: Outlet) -> str:
    return "plotter" if isinstance(spec, PlotterSpec) else "writer"
