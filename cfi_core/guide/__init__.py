"""One method in full, for who looks it up: what the toolset itself says of its arguments, routes, and a call.

`make_guide` imports the toolset; nothing is copied from it by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cfi_core.adapters import is_importable, known_frameworks, remedy
from cfi_core.coexistence import load_safely
from cfi_core.errors import FOREIGN, summary
from cfi_core.guide.record import ArgumentGuide, MethodGuide, RouteGuide
from cfi_core.guide.signatures import REQUIRED, Parameter, read_parameters, show
from cfi_core.registry import Registry
from cfi_core.routes import all_routes, lacks, nearest_route, pip_line
from cfi_core.silence import without_warnings
from cfi_core.specs import UNIFORM_ARGUMENTS, Kind, MethodSpec, Role

__all__ = ["ArgumentGuide", "MethodGuide", "RouteGuide", "make_guide", "write_example"]

_MEANS = {Role.ONE_OR_SEVERAL: "inputs", Role.OWN_TARGET: "target", **{Role(name): name for name in UNIFORM_ARGUMENTS}}


def make_guide(registry: Registry, spec: MethodSpec) -> MethodGuide:
    """All that is known of a method; imports its toolset, unless that is not installed."""
    toolset = registry.toolsets[spec.toolset]
    absent = registry.lacks(toolset)
    read, failure = ({}, "") if absent else _read(registry, spec)
    taken = {*spec.init_args, *spec.exec_args}
    return MethodGuide(
        key=spec.key,
        toolset=spec.toolset,
        framework=toolset.framework,
        kind=str(spec.kind),
        citation=spec.citation,
        head=str(spec.head),
        needs=tuple(sorted(spec.needs)),
        required=spec.required,
        optional=spec.optional,
        arguments=tuple(_arguments(registry, spec, read)),
        set_by_cfi=tuple(
            dict.fromkeys(
                name for found in read.values() for name, one in found.items() if one.signed and name not in taken
            )
        ),
        routes=tuple(_routes(registry, spec, toolset.framework)),
        example=write_example(spec),
        missing=", ".join(absent) or failure,
    )


def _read(registry: Registry, spec: MethodSpec) -> tuple[dict[str, Mapping[str, Parameter]], str]:
    """What the toolset has for the arguments of constructor and call, and why that cannot be read, if so."""
    found: dict[str, Mapping[str, Parameter]] = {}
    load_safely(registry)
    try:
        with without_warnings():
            for where in ("init_args", "exec_args"):
                places = [read_parameters(place) for place in getattr(spec.documentation, where)]
                found[where] = {name: place[name] for place in reversed(places) for name in place}
    except FOREIGN as error:
        return {}, f"{spec.toolset} cannot be read ({summary(error)})"
    return found, ""


def _arguments(
    registry: Registry, spec: MethodSpec, read: Mapping[str, Mapping[str, Parameter]]
) -> Iterator[ArgumentGuide]:
    raw, toolset, words = spec.defaults.raw, spec.defaults.toolset, spec.documentation.words
    for where in ("init_args", "exec_args"):
        for name in getattr(spec, where):
            found = read.get(where, {}).get(name)
            told = found.meaning if found else ""
            yield ArgumentGuide(
                name=name,
                where=where,
                meaning=told or words.get(name, ""),
                type=found.type if found else "",
                default=found.default if found else _default_of_own(spec, name),
                raw=_show_setting(raw, name),
                toolset=_show_setting(toolset, name),
                required=name in spec.own_required,
                uniform=_MEANS.get(spec.roles.get(name), ""),  # type: ignore[arg-type]
                source=found.place if found else registry.origin_of(spec).distribution,
            )


def _default_of_own(spec: MethodSpec, name: str) -> str:
    """Of an argument that the toolset does not have: what is left out is None, but for that of a wrapped method."""
    named = spec.wraps or name in {*spec.defaults.raw, *spec.defaults.toolset}
    return REQUIRED if named else "None"


def _show_setting(settings: Mapping[str, Any], name: str) -> str:
    return show(settings[name]) if name in settings else ""


def _routes(registry: Registry, spec: MethodSpec, target: str) -> Iterator[RouteGuide]:
    for source, framework in sorted(known_frameworks(registry).items()):
        if source not in registry.frameworks:
            yield RouteGuide(source, "", remedy(registry, source))
        elif not is_importable(framework.module):
            yield RouteGuide(source, "", f"no module {framework.module!r} is installed")
        elif source == target:
            yield RouteGuide(source, "native")
        else:
            yield _route(registry, spec, source, target)


def _route(registry: Registry, spec: MethodSpec, source: str, target: str) -> RouteGuide:
    """The one that a call takes: of those that can be used, a bridge first, or else the one that lacks the least."""
    fitting = [route for route in all_routes(registry, source, target) if spec.needs <= route.preserves]
    usable = [route for route in fitting if not lacks(registry, route)]
    if usable:
        return RouteGuide(source, str(min(usable, key=lambda route: route.rank)))
    if fitting:
        nearest = nearest_route(registry, fitting)
        line = pip_line(registry, nearest).removesuffix(" brings it.").strip()
        return RouteGuide(source, str(nearest), line or ", ".join(lacks(registry, nearest)))
    kept = [route.preserves for route in all_routes(registry, source, target)]
    absent = min((spec.needs - one for one in kept), key=len, default=frozenset())
    return RouteGuide(source, "", f"no route keeps {', '.join(sorted(absent))}" if absent else "no route leads there")


def write_example(spec: MethodSpec) -> str:
    """A call of the method as Python text, on a `model` and its `inputs`."""
    visualizes = spec.kind is Kind.FEATURE_VISUALIZATION
    words = {"inputs": "inputs[:1]" if visualizes else "inputs"}
    words |= {name: text for name, text in _UNIFORM_EXAMPLES.items() if name in spec.required}
    if "neuron" in words:  # a unit of a layer that is named
        words["layer"] = "cfi.layers(model)[0].name"
    if "target" in (*spec.required, *spec.optional):
        words["target"] = "0"
    for where in ("init_args", "exec_args"):
        own = {name: text for name, text in spec.documentation.example.items() if name in getattr(spec, where)}
        if own:
            words[where] = "{" + ", ".join(f'"{name}": {text}' for name, text in own.items()) + "}"
    call = "cfi.visualize_features" if visualizes else "cfi.attribute"
    return _write_call(call, (f'"{spec.key}"', f'"{spec.toolset}"'), words)


_UNIFORM_EXAMPLES = {"layer": '"auto"', "neuron": "(0, 0, 0)", "baselines": "0 * inputs"}


def _write_call(call: str, positional: Sequence[str], words: Mapping[str, str]) -> str:
    """On one line, where it fits."""
    parts = ["model", *positional, *(f"{name}={text}" for name, text in words.items())]
    line = f"{call}({', '.join(parts)})"
    if len(line) <= 96:
        return line
    head, rest = ", ".join(parts[:3]), ", ".join(parts[3:])
    rows = [head, rest] if len(rest) <= 90 else [head, *parts[3:]]
    return f"{call}(\n" + "".join(f"    {row},\n" for row in rows) + ")"
