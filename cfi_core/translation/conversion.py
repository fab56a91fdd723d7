"""Conversions: run the translators of a route, certify what comes out, find its layers, keep it for the next call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap, zip_longest
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.boundary import foreign, run_conversion
from cfi_core.certificate import Certificate, certify, certify_again, certify_thoroughly
from cfi_core.contract import Converted, Passage
from cfi_core.distance import Side, computes, random_like
from cfi_core.errors import CFIError, TranslationError, UnfaithfulTranslationError
from cfi_core.framework.axes import Arrays, compose, permute_all
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.layer_map import UNSOUGHT, find_layers, first_divergence
from cfi_core.process import take_conversion_turn
from cfi_core.progress import logger_of, phase
from cfi_core.records import Original, Route, Translation
from cfi_core.registry import Registry, registry
from cfi_core.translation.store import current_store, recall, store_key

_log = logger_of(__name__)

SEED = 20_190_521


@dataclass(frozen=True, eq=False)
class Job:
    """A model to translate, and the samples to judge the result on."""

    registry: Registry
    original: Original
    adapter: FrameworkAdapter  # of the framework to reach
    arrays: tuple[np.ndarray, ...]  # inputs in the user's axes, sample axis first
    outputs: tuple[np.ndarray, ...]  # all tensors that the user's model gives for them
    with_layers: bool = True  # whether it is asked which layer is which
    by_sample: bool = False  # whether the user's model is known to be a function of each sample alone

    def twin(self) -> Any:
        """The user's model, to be marked."""
        return self.original.adapter.twin(self.original.model)

    def translated_side(self, made: Converted | Translation) -> Side:
        """A converted model as one side of a comparison."""
        return Side(self.adapter, self.adapter.twin(made.model), made.input_axes, made.output_axes)

    def sides(self, made: Converted | Translation) -> tuple[Side, Side]:
        """The user's model and a converted one."""
        return Side(self.original.adapter, self.twin()), self.translated_side(made)


def convert(job: Job, route: Route) -> Translation:
    """The translation by a route of conversions that an earlier call made, if it still is one; otherwise a new one."""

    def measure_again(made: Translation) -> Translation:
        sides, earlier = job.sides(made), made.certificate
        again = partial(certify_again, *sides, job.arrays, job.outputs, earlier, by_sample=job.by_sample)
        return replace(made, certificate=_certify(route, sides, job.arrays, again))

    def complete(made: Translation) -> Translation:
        return _with_layers(job, made) if job.with_layers and made.layer_map is UNSOUGHT else made

    make = partial(convert_anew, job, route)
    return recall(job.original, route.names, job.arrays, job.outputs, make, measure_again, complete)


def convert_anew(job: Job, route: Route) -> Translation:
    """A new conversion, or one that was kept on disk; measured on the inputs in either case."""
    store = current_store()
    content = job.original.adapter.content(job.original.model) if store else None
    key = store_key(job.registry, content, route, job.arrays) if content is not None else ""
    if store and key and (stored := store.get(key, job.adapter)):
        # What was made of something else, whatever its name says, is made anew.
        with contextlib.suppress(CFIError):
            read = _measure(job, route, stored)
            _log.info("the conversion by %s was read from the disk", ", ".join(route.names))
            return read
    start = perf_counter()
    converted = convert_along(route, job.twin(), job.arrays)
    seconds = perf_counter() - start
    translation = _measure(job, route, converted)
    if store and key:
        store.put(key, job.adapter, converted)
    return replace(translation, seconds=seconds)


def convert_thoroughly(job: Job, route: Route) -> Translation:
    """A new conversion, or one that was kept on disk, measured wherever a method may go."""
    made = convert_anew(job, route)
    sides = job.sides(made)
    measured = _certify(
        route, sides, job.arrays, lambda: certify_thoroughly(*sides, job.arrays, made.certificate, SEED)
    )
    return replace(made, certificate=measured)


def _measure(job: Job, route: Route, made: Converted) -> Translation:
    """With its certificate, and with a layer map if one is asked for."""
    sides = job.sides(made)
    measure = partial(certify, *sides, job.arrays, SEED, job.outputs, by_sample=job.by_sample)
    certificate = _certify(route, sides, job.arrays, measure)
    translation = Translation(made.model, route, certificate, UNSOUGHT, made.input_axes, made.output_axes)
    return _with_layers(job, translation, sides) if job.with_layers else translation


@phase("finding which layer is which")
def _with_layers(job: Job, made: Translation, sides: tuple[Side, Side] | None = None) -> Translation:
    """The same with the layer map, and what it says in the certificate."""
    sides, certificate = sides or job.sides(made), made.certificate
    noise = random_like(job.arrays, 1, np.random.default_rng(SEED))
    unlike = [np.concatenate([array[:1], more]) for array, more in zip(job.arrays, noise, strict=True)]
    alike = [np.repeat(array[:1], 2, axis=0) for array in job.arrays]
    # A model may not take noise, nor another number of samples than the user's.
    samples = next((two for two in (unlike, alike) if computes(sides[0], two)), list(job.arrays))
    layers = find_layers(*sides, samples, certificate)
    certificate = replace(
        certificate, layers_found=len(layers), layers_total=len(layers.compared), layer_difference=layers.difference
    )
    return replace(made, certificate=certificate, layer_map=layers)


def _certify(route: Route, sides: tuple[Side, Side], arrays: Arrays, measure: Callable[[], Certificate]) -> Certificate:
    """Measures, and refuses a model that computes something else (or does not run at all)."""
    model = f"The model made by {', '.join(route.names)}"
    advice = "Try another translator (cfi.translators() lists them)"
    with foreign(TranslationError, f"{model} does not run on your inputs", f"{advice}."), phase("certifying"):
        certificate = measure()
    _log.info("%s: %s", ", ".join(route.names), certificate)
    if not certificate.faithful:
        # The model is known to be wrong, so anything may go wrong in it.
        with contextlib.suppress(Exception):
            certificate = replace(certificate, divergence=first_divergence(*sides, [array[:2] for array in arrays]))
        said = "; ".join([*certificate.faults, *([str(certificate.divergence)] if certificate.divergence else [])])
        raise UnfaithfulTranslationError(
            f"{model} computes something else than yours: {said}. It is not used. {advice} or a toolset of the model's "
            f"own framework.",
            certificate,
        )
    return certificate


def convert_along(route: Route, model: Any, arrays: Arrays) -> Converted:
    """Runs the translators of a route, one after the other."""
    examples = two_samples(arrays)
    made, place = Converted(model, (None,) * len(examples)), Passage()
    for position, step in enumerate(route.translators, 1):
        permuted = tuple(permute_all(examples, made.input_axes))
        place = Passage(route.names[position:], place.left)
        with (
            place.held(),
            take_conversion_turn(registry(), step),
            phase(f"translating to {step.target} ({step.name})"),
        ):
            converted = run_conversion(step, made.model, permuted, registry().origin_of(step).label)
        made = Converted(
            converted.model,
            tuple(starmap(compose, zip_longest(made.input_axes, converted.input_axes))),
            tuple(starmap(compose, zip_longest(made.output_axes, converted.output_axes))),
        )
    return made


def two_samples(arrays: Arrays) -> list[np.ndarray]:
    """The first two samples, or the only one twice."""
    return [np.resize(array[:2], (2, *array.shape[1:])) for array in arrays]
