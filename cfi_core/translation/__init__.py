"""Step 5 of a call: make the user's model usable where the method runs, and measure that it still is the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from cfi_core.adapters import adapter_for
from cfi_core.errors import TranslationError, TranslationWarning, UnfaithfulTranslationError, warn
from cfi_core.progress import logger_of
from cfi_core.records import Call, Prepared, Route, Translation
from cfi_core.registry import Registry
from cfi_core.routes import all_routes, way_to_install
from cfi_core.specs import Need
from cfi_core.translation.bridging import bridge
from cfi_core.translation.conversion import Job, convert
from cfi_core.translation.guarding import guard
from cfi_core.translation.telling import Failures, cause_of, tell, without_advice

_log = logger_of(__name__)


def prepare(registry: Registry, call: Call, *, with_layers: bool = False) -> Prepared:
    """The model that the method runs on, by the first of the plan's routes that gives a faithful one.

    Raises:
        LayerError: A layer cannot be opened by a bridge.
        UnfaithfulTranslationError: All that could be translated computes something else.
        TranslationError: No translator could translate it.
        MethodError: The method's rules do not attach to it, nor to a canonical copy.

    Warns:
        TranslationWarning: A route failed and the next one was taken.
    """
    plan, original, started = call.plan, call.original, perf_counter()
    if plan.route.native:
        return guard(registry, call, Prepared(original.adapter, original.model))
    adapter = adapter_for(registry, plan.toolset_framework)
    arrays = (*call.inputs.arrays, *call.inputs.held_arrays)
    outputs, by_sample = tuple(call.output_arrays), call.purity.by_sample
    job = Job(registry, original, adapter, arrays, outputs, with_layers or _asks_for_layers(call), by_sample)

    def attempt(job: Job, route: Route) -> Translation:
        return bridge(job, call, route) if route.bridge else convert(job, route)

    translation = translate_model(job, plan.routes, attempt)
    return guard(registry, call, Prepared(adapter, translation.model, translation, perf_counter() - started))


def _asks_for_layers(call: Call) -> bool:
    """Whether a layer is named, or is yet to be chosen by the user or by the toolset."""
    plan = call.plan
    return bool(
        plan.layers or plan.needs_layer or call.mentioned or {Need.LAYER, Need.LAYER_GRADIENT} & plan.method.needs
    )


def translate_model(job: Job, routes: Sequence[Route], attempt: Callable[[Job, Route], Translation]) -> Translation:
    """By the first of the routes that gives a faithful model, as `prepare`; as it is, one that is nobody else's."""
    failures: dict[Route, TranslationError] = {}
    for route in routes:
        try:
            result = attempt(job, route)
        except TranslationError as error:
            failures[route] = error
            _log.info("%s failed: %s", route, error)
            continue
        if failures:
            warn(f"{tell(failures)} Taken instead: {route}.", TranslationWarning)
        return result
    hint = way_to_install(job.registry, routes[0])
    cause = cause_of(failures)
    every = all_routes(job.registry, job.original.framework, routes[0].translators[-1].target)
    if len(failures) == 1 and all(route.bridge for route in every):
        raise without_advice(cause) from cause
    if len(failures) == 1 and not hint:
        raise cause
    own = [one for one in job.registry.toolsets.values() if one.framework == job.original.framework]
    raise _refusal(failures, f"Use a toolset of the model's own framework. {hint}" if own else hint) from cause


def _refusal(failures: Failures, hint: str) -> TranslationError:
    """The error for a model that no route could translate."""
    cause = cause_of(failures)
    report = f"{cause if len(failures) == 1 else tell(failures)} {hint}".rstrip()
    if isinstance(cause, UnfaithfulTranslationError):
        return UnfaithfulTranslationError(report, cause.certificate)
    return TranslationError(report)
