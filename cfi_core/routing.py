"""Step 3 of a call: choose a method and the translators that lead to its toolset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cfi_core.boundary import ask
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK, DISTRIBUTION_OF_TRANSLATOR
from cfi_core.errors import ChoiceWarning, PluginWarning, RouteError, warn
from cfi_core.records import Choice, Original, Route
from cfi_core.registry import Registry
from cfi_core.specs import ANY, MethodSpec, Need, Translator, TranslatorSpec

KINDS = ("conversion", "bridge")


def find_routes(
    registry: Registry, source: str, target: str, needs: frozenset[Need], translator: Translator = None
) -> tuple[Route, ...]:
    """All routes from one framework to another that preserve the needs: bridges, then conversions, cheapest first.

    Args:
        registry: What is installed.
        source: Framework of the model.
        target: Framework to reach.
        needs: What the method requires.
        translator: The user's wish: a translator's name (part of the route), a list of names (the whole
            route), or a kind. A bridge that is asked for is taken for a native model too.

    Raises:
        RouteError: There is none; says whether a need, a requirement or a plugin is missing.
    """
    _check_wish(registry, translator)
    known = _bridges_within(registry, source) if source == target else _paths(registry, source, target)
    paths = [path for path in known if _fits_wish(path, translator)]
    if source == target and (translator is None or not paths):
        if translator is None or translator in KINDS:
            return (Route(),)
        raise RouteError(f"The model already is a {source} model: translator={translator!r} has no place here.")
    available = [path for path in paths if not _lacking(registry, path)]
    serving = [path for path in available if needs <= path.preserves]
    if not serving:
        raise _refusal(registry, source, target, needs, translator, paths, available)
    return tuple(sorted(serving, key=_order_to_try))


def _order_to_try(path: Route) -> tuple[tuple[int, float], tuple[str, ...]]:
    return path.rank, path.names


def _refusal(
    registry: Registry,
    source: str,
    target: str,
    needs: frozenset[Need],
    translator: Translator,
    paths: Sequence[Route],
    available: Sequence[Route],
) -> RouteError:
    """Says why none of the paths that fit the wish, and of those that are available, will do."""
    start = f"No route from {source} to {target}" + (f" with translator={translator!r}" if translator else "")
    if available:
        missing = min((needs - path.preserves for path in available), key=len)
        return RouteError(
            f"{start} preserves what the method needs: missing {_names(missing)} "
            f"(tried {'; '.join(map(str, available))}). {_way_out(registry, source, target, needs)}",
            missing,
        )
    if paths:
        nearest = _nearest(registry, paths)
        lacking = ", ".join(_lacking(registry, nearest))
        return RouteError(f"{start} can be used: {nearest} lacks {lacking}.{_pip_line(registry, nearest)}")
    others = _paths(registry, source, target)
    if translator and others:
        named = [name for name in DISTRIBUTION_OF_TRANSLATOR if name.startswith(str(translator))]
        hint = f" pip install {_distributions(named)} brings one." if named else ""
        return RouteError(f"{start}. There are: {'; '.join(map(str, others))}.{hint}")
    install = f"pip install {_distributions(DISTRIBUTION_OF_TRANSLATOR)} brings one."
    return RouteError(f"{start}: no installed translator leads there. {install}")


def _distributions(translators: Iterable[str]) -> str:
    return " or ".join(sorted({DISTRIBUTION_OF_TRANSLATOR[name] for name in translators}))


def _lacking(registry: Registry, path: Route) -> tuple[str, ...]:
    """What has to be installed before a route can be used."""
    return tuple(dict.fromkeys(text for step in path.translators for text in registry.missing(step)))


def _nearest(registry: Registry, paths: Sequence[Route]) -> Route:
    """The route that lacks the least, the cheapest of several."""
    return min(paths, key=lambda path: (len(_lacking(registry, path)), path.rank, path.names))


def _pip_line(registry: Registry, path: Route) -> str:
    """A sentence with the line that installs what a route lacks; nothing where no distribution is known to bring it."""
    wanted: dict[str, None] = {}
    for step in path.translators:
        for text in registry.missing(step):
            if text not in step.requirements and text not in DISTRIBUTION_OF_FRAMEWORK.values():
                return ""
            wanted[step.extra if step.extra and text in step.requirements else text] = None
    return f" pip install {' '.join(map(repr, wanted))} brings it."


def way_to_install(registry: Registry, route: Route) -> str:
    """Which conversion would lead where a route leads if what it lacks were installed, as a sentence; or nothing."""
    paths = _paths(registry, route.translators[0].source, route.translators[-1].target)
    lacking = [path for path in paths if not path.bridge and _lacking(registry, path)]
    if not lacking:
        return ""
    nearest = _nearest(registry, lacking)
    return f"There is another way, {nearest}, which is not installed.{_pip_line(registry, nearest)}"


def _way_out(registry: Registry, source: str, target: str, needs: frozenset[Need]) -> str:
    """What a user can do whose routes do not keep what the method needs."""
    paths = _paths(registry, source, target)
    others = [path for path in paths if needs <= path.preserves]
    usable = [path for path in others if not _lacking(registry, path)]
    if usable:
        best = min(usable, key=_order_to_try)
        return f"There is {best}: leave translator= out, or pass translator={list(best.names)!r}."
    if source in registry.frameworks and (hint := registry.frameworks[source].without_gradients):
        return hint
    if others or not all(path.bridge for path in paths):
        return "Choose another translator or method."
    if source not in DISTRIBUTION_OF_FRAMEWORK:  # what converts its models is not known
        return "Choose another method."
    conversions = [name for name in DISTRIBUTION_OF_TRANSLATOR if not name.startswith("bridge")]
    return f"A conversion might: pip install {_distributions(conversions)}. Or choose another method."


def choose(registry: Registry, methods: Sequence[MethodSpec], original: Original, translator: Translator) -> Choice:
    """The method and route to take: native, then a bridge, then the cheapest conversion that meets the needs.

    Warns:
        ChoiceWarning: Several toolsets would have served.

    Raises:
        RouteError: No candidate can be reached.
    """
    source = original.framework
    candidates: list[tuple[MethodSpec, tuple[Route, ...]]] = []
    errors: list[RouteError] = []
    for method in methods:
        framework = registry.toolsets[method.toolset].framework
        try:
            candidates.append((method, find_routes(registry, source, framework, method.needs, translator)))
        except RouteError as error:
            errors.append(error)
    if not candidates:
        raise RouteError(
            f"{methods[0].key!r} cannot be reached from a {source} model. " + " ".join(map(str, errors)),
            frozenset().union(*(error.missing_needs for error in errors)),
        )
    candidates.sort(key=lambda pair: (pair[1][0].rank, pair[0].toolset))
    method, routes = candidates[0]
    others = tuple(other.toolset for other, _ in candidates[1:])
    if others:
        warn(
            f"{method.key!r} is offered by {', '.join([method.toolset, *others])}; {method.toolset} is taken "
            f"({routes[0]}). Pass toolset= to choose.",
            ChoiceWarning,
        )
    ordered = _order(registry, routes, method)
    reason = _reason(registry, method, source, ordered[0], routes[0], translator)
    return Choice(method, registry.toolsets[method.toolset].framework, ordered, others, reason)


def _reason(
    registry: Registry, method: MethodSpec, source: str, route: Route, cheapest: Route, translator: Translator
) -> str:
    if route.native:
        return "the toolset works on the model as it is"
    if translator is not None:
        return f"as translator={translator!r} asks"
    if route != cheapest:
        return "chosen by a cfi_choose_route hook"
    if route.bridge:
        return f"the model runs where it lives; that keeps {_names(method.needs)}"
    if ruled_out := _bridges_lack(registry, source, method):
        return f"the cheapest that keeps {_names(method.needs)}; a bridge has no {_names(ruled_out)}"
    return "the cheapest that keeps " + _names(method.needs)


def _bridges_lack(registry: Registry, source: str, method: MethodSpec) -> frozenset[Need]:
    """What the method needs and the installed bridges to its toolset do not keep."""
    paths = _paths(registry, source, registry.toolsets[method.toolset].framework)
    return min((method.needs - path.preserves for path in paths if path.bridge), key=len, default=frozenset())


def choose_conversion(registry: Registry, source: str, target: str, translator: Translator) -> tuple[Route, ...]:
    """The routes of conversions for `cfi.translate`, the one to try first in front.

    Raises:
        RouteError: There is none, or a bridge was asked for.
    """
    routes = find_routes(registry, source, target, frozenset(), translator or "conversion")
    if all(route.bridge for route in routes):
        raise RouteError(
            f"translator={translator!r} is a bridge: it runs the model where it lives, for one call of cfi.attribute, "
            f"and makes no {target} model. Pass translator='conversion' or leave it out."
        )
    return _order(registry, tuple(route for route in routes if not route.bridge), None)


def _order(registry: Registry, routes: tuple[Route, ...], method: MethodSpec | None) -> tuple[Route, ...]:
    """The policy hook's choice in front; a policy that fails or invents a route is reported and passed over."""
    for plugin, chosen in ask(registry, "cfi_choose_route", candidates=routes, method=method):
        if isinstance(chosen, Route) and chosen in routes:
            return (chosen, *(route for route in routes if route != chosen))
        shown = str(chosen) if isinstance(chosen, Route) else f"a {type(chosen).__name__}"
        warn(
            f"The cfi_choose_route hook of {plugin.label} chose {shown}, which is none of the candidates.",
            PluginWarning,
        )
    return routes


def _paths(registry: Registry, source: str, target: str, seen: tuple[str, ...] = ()) -> list[Route]:
    """All chains of translators without a loop; a bridge is a whole chain by itself."""
    paths: list[Route] = []
    for step in (_from(registry, source, step) for step in registry.translators.values()):
        if step.source != source or step.target in (*seen, source):
            continue
        if step.target == target and not (step.kind == "bridge" and seen):
            paths.append(Route((step,)))
        elif step.kind == "conversion":
            for rest in _paths(registry, step.target, target, (*seen, source)):
                if all(later.kind == "conversion" for later in rest.translators):
                    paths.append(Route((step, *rest.translators)))
    return paths


def _bridges_within(registry: Registry, framework: str) -> list[Route]:
    """Bridges from a framework to itself: they give a toolset the form of model that it wants."""
    steps = (_from(registry, framework, step) for step in registry.translators.values() if step.kind == "bridge")
    return [Route((step,)) for step in steps if step.source == step.target == framework]


def _from(registry: Registry, source: str, step: TranslatorSpec) -> TranslatorSpec:
    """A bridge from any framework, seen from one of them: it keeps what that framework's models can do."""
    if step.source != ANY or source not in registry.frameworks:
        return step
    return replace(step, source=source, preserves=step.preserves & registry.frameworks[source].offers)


def _fits_wish(route: Route, translator: Translator) -> bool:
    if translator is None:
        return True
    if isinstance(translator, str):
        if translator in KINDS:
            return all(step.kind == translator for step in route.translators)
        return translator in route.names
    return route.names == tuple(translator)


def _check_wish(registry: Registry, translator: Translator) -> None:
    if not isinstance(translator, str | list | tuple | None):
        raise RouteError(f"translator={translator!r} is neither a name nor a list of names.")
    names = () if translator is None else (translator,) if isinstance(translator, str) else tuple(translator)
    for name in names:
        if name in registry.translators or (name in KINDS and isinstance(translator, str)):
            continue
        hint = (
            f" pip install {DISTRIBUTION_OF_TRANSLATOR[name]} brings it." if name in DISTRIBUTION_OF_TRANSLATOR else ""
        )
        known = ", ".join(sorted(registry.translators)) or "none"
        raise RouteError(f"No translator {name!r} is installed; installed are {known} (and the kinds {KINDS}).{hint}")


def _names(needs: frozenset[Need]) -> str:
    return ", ".join(sorted(needs)) or "nothing in particular"
