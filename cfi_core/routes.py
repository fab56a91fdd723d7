"""The routes that translators make between two frameworks, and what has to be installed before one can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK
from cfi_core.records import Route
from cfi_core.registry import Registry
from cfi_core.specs import ANY, TranslatorSpec


def all_routes(registry: Registry, source: str, target: str) -> list[Route]:
    """Bridges, then chains of conversions without a loop; from a framework to itself, bridges alone."""
    steps = (_narrow_bridge(registry, source, step) for step in registry.translators.values() if step.kind == "bridge")
    bridges = [Route((step,)) for step in steps if (step.source, step.target) == (source, target)]
    return bridges if source == target else [*bridges, *_chains(registry, source, target)]


def _narrow_bridge(registry: Registry, source: str, step: TranslatorSpec) -> TranslatorSpec:
    """A bridge from any framework, seen from one of them: it keeps what that framework's models can do."""
    if step.source != ANY or source not in registry.frameworks:
        return step
    return replace(step, source=source, preserves=step.preserves & registry.frameworks[source].offers)


def _chains(registry: Registry, source: str, target: str, seen: tuple[str, ...] = ()) -> list[Route]:
    seen, chains = (*seen, source), []
    for step in registry.translators.values():
        if step.kind == "conversion" and step.source == source and step.target not in seen:
            rests = [Route()] if step.target == target else _chains(registry, step.target, target, seen)
            chains += [Route((step, *rest.translators)) for rest in rests]
    return chains


def lacks(registry: Registry, route: Route) -> tuple[str, ...]:
    """What has to be installed before a route can be used."""
    return tuple(dict.fromkeys(text for step in route.translators for text in registry.lacks(step)))


def nearest_route(registry: Registry, routes: Sequence[Route]) -> Route:
    """The route that lacks the least, the cheapest of several."""
    return min(routes, key=lambda route: (len(lacks(registry, route)), route.rank))


def pip_line(registry: Registry, route: Route) -> str:
    """A sentence with the line that installs what a route lacks; nothing where no distribution is known to bring it."""
    absent = [(step, text) for step in route.translators for text in registry.lacks(step)]
    if any(text not in (*step.requirements, *DISTRIBUTION_OF_FRAMEWORK.values()) for step, text in absent):
        return ""
    wanted = dict.fromkeys(step.extra if step.extra and text in step.requirements else text for step, text in absent)
    return f" pip install {' '.join(map(repr, wanted))} brings it."


def way_to_install(registry: Registry, route: Route) -> str:
    """Which conversion would lead where a route leads if what it lacks were installed, as a sentence; or nothing."""
    routes = all_routes(registry, route.translators[0].source, route.translators[-1].target)
    others = [other for other in routes if not other.bridge and lacks(registry, other)]
    if not others:
        return ""
    nearest = nearest_route(registry, others)
    return f"There is another way, {nearest}, which is not installed.{pip_line(registry, nearest)}"
