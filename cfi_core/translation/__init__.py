"""Step 5 of a call: make the user's model usable where the method runs, and measure that it still is the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from cfi_core.adapters import adapter_for
from cfi_core.errors import TranslationError, TranslationWarning, UnfaithfulTranslationError, warn
from cfi_core.records import Call, Prepared, Route, Translation
from cfi_core.registry import Registry
from cfi_core.routes import way_to_install
from cfi_core.translation.bridging import bridge
from cfi_core.translation.conversion import Job, convert


def prepare(registry: Registry, call: Call) -> Prepared:
    """The model that the method runs on, by the first of the plan's routes that gives a faithful one.

    Raises:
        LayerError: A layer cannot be opened by a bridge.
        UnfaithfulTranslationError: All that could be translated computes something else.
        TranslationError: No translator could translate it.

    Warns:
        TranslationWarning: A route failed and the next one was taken.
    """
    plan, original, started = call.plan, call.original, perf_counter()
    if plan.route.native:
        return Prepared(original.adapter, original.model)
    adapter = adapter_for(registry, plan.toolset_framework)
    arrays = (*call.inputs.arrays, *call.inputs.held_arrays)
    job = Job(registry, original, adapter, arrays, tuple(call.output_arrays))

    def attempt(job: Job, route: Route) -> Translation:
        return bridge(job, call, route) if route.bridge else convert(job, route)

    translation = translate_model(job, plan.routes, attempt)
    return Prepared(adapter, translation.model, translation, perf_counter() - started)


def translate_model(job: Job, routes: Sequence[Route], attempt: Callable[[Job, Route], Translation]) -> Translation:
    """By the first of the routes that gives a faithful model, as `prepare`; as it is, one that is nobody else's."""
    failures: list[TranslationError] = []
    for route in routes:
        try:
            result = attempt(job, route)
        except TranslationError as error:
            failures.append(error)
            continue
        if failures:
            warn(f"{' '.join(map(str, failures))} Taken instead: {route}.", TranslationWarning)
        return result
    hint = way_to_install(job.registry, routes[0])
    if len(failures) == 1 and not hint:
        raise failures[0]
    reports = [f"[{route}] {failure}" for route, failure in zip(routes, failures, strict=True)]
    report = " ".join([*reports, hint]).rstrip()
    certificates = [one.certificate for one in failures if isinstance(one, UnfaithfulTranslationError)]
    final = UnfaithfulTranslationError(report, certificates[0]) if certificates else TranslationError(report)
    raise final from failures[0]
