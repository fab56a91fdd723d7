"""What several attributions have in common, and what tells them apart, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cfi_core import Attribution
from cfi_core.errors import PlotError

_ABSENT = {"layer": "inputs", "target": "own targets", "neuron": "no unit", "defaults": "raw"}
"""What is said of an attribution that lacks what others have."""


def titles_of(attributions: Sequence[Attribution], titles: Sequence[str] | None) -> list[str]:
    """The given titles, or what each attribution differs in from the others.

    Raises:
        PlotError: There is not one for each.
    """
    if titles is not None:
        if isinstance(titles, str) or len(titles) != len(attributions):
            raise PlotError(f"titles={titles!r} must hold a title for each of the {len(attributions)} attributions.")
        return [str(title) for title in titles]
    facts = [_facts(attribution) for attribution in attributions]
    differing = [name for name in facts[0] if len({repr(one[name]) for one in facts}) > 1]
    found = [" · ".join(filter(None, (one[name] for name in differing))) for one in facts]
    found = [title or " · ".join(filter(None, map(_ABSENT.get, differing))) for title in found]
    if len(set(found)) == len(found):
        return found
    # Alike in all that is named: told apart by their settings, or at least by their order.
    settings = [_settings(attribution) for attribution in attributions]
    apart = sorted(name for name in set().union(*settings) if len({repr(one.get(name)) for one in settings}) > 1)
    more = [", ".join(f"{name}={one.get(name, '–')}" for name in apart[:3]) for one in settings]
    if apart and len({*zip(found, more, strict=True)}) == len(found):
        return [" · ".join(filter(None, pair)) for pair in zip(found, more, strict=True)]
    return [" · ".join(filter(None, (f"{place + 1}", title))) for place, title in enumerate(found)]


def common_heading(attributions: Sequence[Attribution]) -> str:
    """What all of them share: method, toolset, target, layer, route."""
    facts = [_facts(attribution) for attribution in attributions]
    told = [name for name in facts[0] if name != "model"]
    shared = [facts[0][name] for name in told if len({repr(one[name]) for one in facts}) == 1]
    return " · ".join(filter(None, shared))


def _facts(attribution: Attribution) -> dict[str, str]:
    provenance, layer = attribution.provenance, attribution.layer
    return {
        "method": attribution.method_key,
        "toolset": attribution.toolset,
        "target": _target(attribution),
        "layer": f"layer {layer}" if isinstance(layer, str) else ", ".join(layer or ()),
        "neuron": "" if provenance.get("neuron") is None else f"unit {provenance['neuron']}",
        "model": str(provenance.get("model", "")).rpartition(".")[2],
        "defaults": f"defaults of the {provenance['defaults']}" if provenance.get("defaults") == "toolset" else "",
        "route": " → ".join(attribution.route) if attribution.route else "native",
    }


def _target(attribution: Attribution) -> str:
    """The target of all samples, with the name of its class; nothing where each has its own, which stands beside it."""
    target, names = attribution.provenance.get("target", attribution.target), attribution.provenance.get("classes")
    target = target.tolist() if hasattr(target, "tolist") else target
    each = isinstance(target, list) or (isinstance(target, tuple) and target and isinstance(target[0], tuple))
    if target is None or (each and len(set(map(repr, target))) != 1):
        return ""
    target = target[0] if each else target
    if isinstance(target, tuple | list) and len(target) == 1:
        target = target[0]
    name = names[0] if isinstance(names, tuple | list) and len(set(names)) == 1 else None
    text = getattr(target, "__name__", str(target))
    return f"target {text}" + (f" “{name}”" if name not in (None, text) else "")


def _settings(attribution: Attribution) -> dict[str, Any]:
    provenance = attribution.provenance
    own = {name: provenance.get(name) for name in ("seed", "explained") if provenance.get(name) is not None}
    return {
        **own,
        **provenance.get("applied", {}),
        **provenance.get("init_args", {}),
        **provenance.get("exec_args", {}),
    }
