"""Step 3 of a call: choose a method and the translators that lead to its toolset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cfi_core.boundary import ask
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK, DISTRIBUTION_OF_TRANSLATOR, TARGET_OF_TRANSLATOR
from cfi_core.errors import ChoiceWarning, PluginWarning, RouteError, warn
from cfi_core.records import Choice, Original, Route
from cfi_core.registry import Registry
from cfi_core.routes import all_routes, lacks, nearest_route, pip_line
from cfi_core.specs import TRANSLATOR_KINDS, MethodSpec, Need, Translator


def choose(registry: Registry, methods: Sequence[MethodSpec], original: Original, translator: Translator) -> Choice:
    """The method and route to take: native, then a bridge, then the cheapest conversion that meets the needs.

    Warns:
        ChoiceWarning: Several toolsets would have served.

    Raises:
        RouteError: No candidate can be reached.
    """
    source = original.framework
    candidates: list[tuple[MethodSpec, str, tuple[Route, ...]]] = []
    errors: list[RouteError] = []
    for method in methods:
        framework = registry.toolsets[method.toolset].framework
        try:
            candidates.append((method, framework, find_routes(registry, source, framework, method.needs, translator)))
        except RouteError as error:
            errors.append(error)
    if not candidates:
        raise RouteError(
            f"{methods[0].key!r} cannot be reached from a {source} model. " + " ".join(map(str, errors)),
            frozenset().union(*(error.missing_needs for error in errors)),
        )
    candidates.sort(key=lambda candidate: (candidate[2][0].rank[:2], candidate[0].toolset))
    method, framework, routes = candidates[0]
    others = tuple(other.toolset for other, *_ in candidates[1:])
    if others:
        taken, by = f"{method.toolset} is taken ({routes[0]})", ", ".join([method.toolset, *others])
        warn(f"{method.key!r} is offered by {by}; {taken}. Pass toolset= to choose.", ChoiceWarning)
    ordered = _order(registry, routes, method)
    reason = _reason(method.needs, translator, ordered[0], routes[0], all_routes(registry, source, framework))
    return Choice(method, framework, ordered, others, reason)


def _reason(needs: frozenset[Need], translator: Translator, route: Route, first: Route, known: Sequence[Route]) -> str:
    if route.native:
        return "the toolset works on the model as it is"
    if translator is not None:
        return f"as translator={translator!r} asks"
    if route != first:
        return "chosen by a cfi_choose_route hook"
    if route.bridge:
        return f"the model runs where it lives; that keeps {_names(needs)}"
    ruled_out = _unmet_needs(needs, [other for other in known if other.bridge])
    return f"the cheapest that keeps {_names(needs)}" + (f"; a bridge has no {_names(ruled_out)}" if ruled_out else "")


def choose_conversion(registry: Registry, source: str, target: str, translator: Translator) -> tuple[Route, ...]:
    """The routes of conversions for `cfi.translate`, the one to try first in front.

    Raises:
        RouteError: There is none, or a bridge was asked for.
    """
    routes = find_routes(registry, source, target, frozenset(), translator or "conversion")
    conversions = tuple(route for route in routes if not route.bridge)
    if not conversions:
        raise RouteError(
            f"translator={translator!r} is a bridge: it runs the model where it lives, for one call of cfi.attribute, "
            f"and makes no {target} model. Pass translator='conversion' or leave it out."
        )
    return _order(registry, conversions, None)


def _order(registry: Registry, routes: tuple[Route, ...], method: MethodSpec | None) -> tuple[Route, ...]:
    """The policy hook's choice in front; a policy that fails or invents a route is reported and passed over."""
    for plugin, chosen in ask(registry, "cfi_choose_route", candidates=routes, method=method):
        if isinstance(chosen, Route) and chosen in routes:
            return (chosen, *(route for route in routes if route != chosen))
        shown = str(chosen) if isinstance(chosen, Route) else f"a {type(chosen).__name__}"
        text = f"The cfi_choose_route hook of {plugin.label} chose {shown}, which is none of the candidates."
        warn(text, PluginWarning)
    return routes


def find_routes(
    registry: Registry, source: str, target: str, needs: frozenset[Need], translator: Translator = None
) -> tuple[Route, ...]:
    """All routes from one framework to another that preserve the needs: bridges, then conversions, cheapest first.

    The user's wish (`translator`) is a translator's name (part of the route), a list of names (the whole route), or a
    kind. A bridge that is asked for is taken for a native model too.

    Raises:
        RouteError: There is none; says whether a need, a requirement or a plugin is missing.
    """
    known = all_routes(registry, source, target)
    fitting = _filter_routes(registry, known, translator)
    if source == target and (translator is None or not fitting):
        if translator is None or translator in TRANSLATOR_KINDS:
            return (Route(),)
        raise RouteError(f"The model already is a {source} model: translator={translator!r} has no place here.")
    available = [route for route in fitting if not lacks(registry, route)]
    serving = [route for route in available if needs <= route.preserves]
    if serving:
        return tuple(sorted(serving, key=lambda route: route.rank))
    start = f"No route from {source} to {target}" + (f" with translator={translator!r}" if translator else "")
    if available:
        missing, tried = _unmet_needs(needs, available), "; ".join(map(str, available))
        raise RouteError(
            f"{start} preserves what the method needs: missing {_names(missing)} (tried {tried}). "
            f"{_way_out(registry, source, needs, known)}",
            missing,
        )
    raise RouteError(start + _what_to_install(registry, translator, target, fitting, known))


def _filter_routes(registry: Registry, routes: list[Route], translator: Translator) -> list[Route]:
    """Those of the routes that the user's wish allows."""
    if not isinstance(translator, str | list | tuple | None):
        raise RouteError(f"translator={translator!r} is neither a name nor a list of names.")
    if translator is None:
        return routes
    if translator in TRANSLATOR_KINDS:
        return [route for route in routes if all(step.kind == translator for step in route.translators)]
    names = (translator,) if isinstance(translator, str) else tuple(translator)
    for name in names:
        if name not in registry.translators:
            known = ", ".join(sorted(registry.translators)) or "none"
            hint = f" pip install {_distributions([name])} brings it." if name in DISTRIBUTION_OF_TRANSLATOR else ""
            raise RouteError(
                f"No translator {name!r} is installed; installed are {known} (and the kinds {TRANSLATOR_KINDS}).{hint}"
            )
    whole = not isinstance(translator, str)
    return [route for route in routes if (route.names == names if whole else translator in route.names)]


def _way_out(registry: Registry, source: str, needs: frozenset[Need], known: Sequence[Route]) -> str:
    """What a user can do whose routes do not keep what the method needs."""
    others = [route for route in known if needs <= route.preserves]
    usable = [route for route in others if not lacks(registry, route)]
    if usable:
        best = min(usable, key=lambda route: route.rank)
        return f"There is {best}: leave translator= out, or pass translator={list(best.names)!r}."
    if source in registry.frameworks and (hint := registry.frameworks[source].without_gradients):
        return hint
    if others or not all(route.bridge for route in known):
        return "Choose another translator or method."
    if source not in DISTRIBUTION_OF_FRAMEWORK:  # what converts its models is not known
        return "Choose another method."
    conversions = [name for name in DISTRIBUTION_OF_TRANSLATOR if not name.startswith("bridge")]
    if set(conversions) <= set(registry.translators):  # all are here, and none leads from these models
        return "No conversion leads from there. Choose a method that needs gradients and layers only."
    return f"A conversion might: pip install {_distributions(conversions)}. Or choose another method."


def _what_to_install(
    registry: Registry, translator: Translator, target: str, fitting: list[Route], known: list[Route]
) -> str:
    """Ends the sentence about a route that there is not, where none of those that fit the wish can be used."""
    if fitting:
        nearest = nearest_route(registry, fitting)
        return f" can be used: {nearest} lacks {', '.join(lacks(registry, nearest))}.{pip_line(registry, nearest)}"
    if known:
        named = [name for name in DISTRIBUTION_OF_TRANSLATOR if name.startswith(str(translator))]
        hint = f" pip install {_distributions(named)} brings one." if named else ""
        return f". There are: {'; '.join(map(str, known))}.{hint}"
    if target in DISTRIBUTION_OF_FRAMEWORK and target not in TARGET_OF_TRANSLATOR.values():
        return f": no model is translated into one of {target}. Pass such a model, or choose another method or toolset."
    install = f"pip install {_distributions(DISTRIBUTION_OF_TRANSLATOR)} brings one."
    return f": no installed translator leads there. {install}"


def _distributions(translators: Iterable[str]) -> str:
    return " or ".join(sorted({DISTRIBUTION_OF_TRANSLATOR[name] for name in translators}))


def _unmet_needs(needs: frozenset[Need], routes: Sequence[Route]) -> frozenset[Need]:
    """What the route that keeps the most does not keep of the needs."""
    return min((needs - route.preserves for route in routes), key=len, default=frozenset())


def _names(needs: frozenset[Need]) -> str:
    return ", ".join(sorted(needs)) or "nothing in particular"
