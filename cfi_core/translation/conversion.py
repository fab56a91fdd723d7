"""Conversions: run the translators of a route, certify what comes out, find its layers, keep it for the next call."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.boundary import foreign, run_conversion
from cfi_core.certificate import Certificate, Side, certify, computes, random_like
from cfi_core.contract import Converted
from cfi_core.errors import CFIError, TranslationError, UnfaithfulTranslationError
from cfi_core.framework.axes import Arrays, Permutation, compose, permutation_at, permute_all
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.layer_map import find_layers, first_divergence
from cfi_core.records import Original, Route, Translation
from cfi_core.registry import Registry, registry
from cfi_core.translation.cache import kept
from cfi_core.translation.store import current_store, store_key

_CERTIFICATE_SEED = 20_190_521


@dataclass(frozen=True, eq=False)
class Job:
    """A model to convert, and the samples to judge the result on.

    Attributes:
        registry: What is installed.
        original: The user's model.
        adapter: Adapter of the framework to reach.
        arrays: Inputs in the user's axes, sample axis first.
        outputs: All tensors that the user's model gives for them.
    """

    registry: Registry
    original: Original
    adapter: FrameworkAdapter
    arrays: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]

    def original_side(self) -> Side:
        """The user's model as one side of a comparison."""
        return Side(self.original.adapter, self.original.adapter.twin(self.original.model))

    def translated_side(self, made: Converted | Translation) -> Side:
        """A converted model as the other side."""
        return Side(self.adapter, self.adapter.twin(made.model), made.input_axes, made.output_axes)


def convert(job: Job, route: Route) -> Translation:
    """The translation by a route of conversions that an earlier call made, if it still is one; otherwise a new one.

    Raises:
        UnfaithfulTranslationError: What was made computes something else.
        TranslationError: A translator failed.
    """

    def measure_again(made: Translation) -> Translation:
        original, translated = job.original_side(), job.translated_side(made)
        return replace(made, certificate=_certify(route, original, translated, job.arrays, made.certificate))

    make = partial(convert_anew, job, route)
    return kept(job.original, route.names, job.arrays, job.outputs, make, measure_again)


def convert_anew(job: Job, route: Route) -> Translation:
    """A new conversion, or one that was kept on disk; measured on the inputs in either case."""
    store = current_store()
    content = job.original.adapter.content(job.original.model) if store else None
    key = store_key(job.registry, content, route, job.arrays) if content is not None else ""
    if store and key and (stored := store.get(key, job.adapter)):
        # What was made of something else, whatever its name says, is made anew.
        with contextlib.suppress(CFIError):
            return _measure(job, route, stored)
    start = perf_counter()
    converted = convert_along(route, job.original_side().model, job.arrays)
    seconds = perf_counter() - start
    translation = _measure(job, route, converted)
    if store and key:
        store.put(key, job.adapter, converted)
    return replace(translation, seconds=seconds)


def _measure(job: Job, route: Route, made: Converted) -> Translation:
    """With certificate and layer map."""
    original, translated = job.original_side(), job.translated_side(made)
    certificate = _certify(route, original, translated, job.arrays)
    generator = np.random.default_rng(_CERTIFICATE_SEED)
    noise = random_like(job.arrays, 1, generator)
    unlike = [np.concatenate([array[:1], more]) for array, more in zip(job.arrays, noise, strict=True)]
    alike = [np.repeat(array[:1], 2, axis=0) for array in job.arrays]
    # A model may not take noise, nor another number of samples than the user's.
    samples = next((two for two in (unlike, alike) if computes(original, two)), list(job.arrays))
    layers = find_layers(original, translated, samples, certificate)
    certificate = replace(
        certificate, layers_found=len(layers), layers_total=len(layers.compared), layer_difference=layers.difference
    )
    return Translation(made.model, route, certificate, layers, made.input_axes, made.output_axes)


def _certify(
    route: Route, original: Side, translated: Side, arrays: Arrays, earlier: Certificate | None = None
) -> Certificate:
    """Measures, and refuses a model that computes something else (or does not run at all)."""
    doing = f"The model made by {', '.join(route.names)} does not run on your inputs"
    with foreign(TranslationError, doing, "Try another translator (cfi.translators() lists them)."):
        certificate = certify(original, translated, arrays, _CERTIFICATE_SEED, earlier)
    if not certificate.faithful:
        # The model is known to be wrong, so anything may go wrong in it.
        with contextlib.suppress(Exception):
            divergence = first_divergence(original, translated, [array[:2] for array in arrays])
            certificate = replace(certificate, divergence=divergence)
        where = f"; {certificate.divergence}" if certificate.divergence else ""
        raise UnfaithfulTranslationError(
            f"The model made by {', '.join(route.names)} computes something else than yours: "
            f"{'; '.join(certificate.faults)}{where}. It is not used. Try another translator (cfi.translators() lists "
            f"them) or a toolset of the model's own framework.",
            certificate,
        )
    return certificate


def convert_along(route: Route, model: Any, arrays: Arrays) -> Converted:
    """Runs the translators of a route, one after the other."""
    examples = two_samples(arrays)
    made = Converted(model, (None,) * len(examples))
    for step in route.translators:
        permuted = tuple(permute_all(examples, made.input_axes))
        converted = run_conversion(step, made.model, permuted, registry().origin_of(step).label)
        made = Converted(
            converted.model,
            _compose_all(made.input_axes, converted.input_axes),
            _compose_all(made.output_axes, converted.output_axes),
        )
    return made


def two_samples(arrays: Arrays) -> list[np.ndarray]:
    """The first two samples, or the only one twice."""
    return [np.resize(array[:2], (2, *array.shape[1:])) for array in arrays]


def _compose_all(first: Sequence[Permutation], then: Sequence[Permutation]) -> tuple[Permutation, ...]:
    """Permutations that do both, one after the other."""
    return tuple(compose(permutation_at(first, i), permutation_at(then, i)) for i in range(max(len(first), len(then))))
