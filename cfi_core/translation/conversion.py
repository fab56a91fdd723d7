"""Conversions: run the translators of a route, certify what comes out, find its layers, keep it for the next call."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.boundary import foreign, run_conversion
from cfi_core.certificate import Certificate, Divergence, Side, certify, computes, random_like
from cfi_core.contract import Converted
from cfi_core.errors import CFIError, TranslationError, UnfaithfulTranslationError
from cfi_core.framework.axes import Arrays, Permutation, compose, permutation_at, permute_all
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.layer_map import find_layers, first_divergence
from cfi_core.records import Original, Route, Translation
from cfi_core.registry import Registry, registry
from cfi_core.translation.cache import cache, cache_key, digest_of
from cfi_core.translation.store import current_store, store_key

_CERTIFICATE_SEED = 20_190_521
_EXAMPLES = 2


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


@dataclass(frozen=True, eq=False)
class _Kept:
    """A translation with the certificate for the inputs that it was measured on last, and the digest of these."""

    translation: Translation
    digest: str


def convert(job: Job, route: Route, *, keep: bool = True) -> Translation:
    """The translation from the cache, if it still is one; otherwise a new one.

    Args:
        job: What to convert.
        route: Of conversions only.
        keep: Use and fill the cache; without, the translated model is nobody else's.

    Raises:
        UnfaithfulTranslationError: What was made computes something else.
        TranslationError: A translator failed.
    """
    if not keep:
        return _make(job, route)
    original, digest = job.original, digest_of((*job.arrays, *job.outputs))
    key = cache_key(original.adapter.fingerprint(original.model), original.model, route.names, job.arrays)
    kept: _Kept | None = cache.get(key)
    translation = None
    if kept is not None:
        # Unfaithful: something about the model has changed that its fingerprint does not show.
        with contextlib.suppress(UnfaithfulTranslationError):
            translation = kept.translation if kept.digest == digest else _certify_again(job, kept.translation)
    if translation is None:
        translation = _make(job, route)
    # In place of the one before: several methods in a row explain the same inputs.
    cache.put(key, original.model, _Kept(replace(translation, seconds=None), digest))
    return translation


def _certify_again(job: Job, translation: Translation) -> Translation:
    """The same on other inputs than before."""
    original, translated = job.original_side(), job.translated_side(translation)
    certificate = _certify(translation.route, original, translated, job.arrays, translation.certificate)
    return replace(translation, certificate=certificate)


def _make(job: Job, route: Route) -> Translation:
    """A new conversion, or one that was kept on disk; measured on the inputs in either case."""
    store, source = current_store(), job.original.adapter
    content = source.content(job.original.model) if store is not None else None
    key = store_key(job.registry, content, route, job.arrays) if content is not None else None
    stored = store.get(key, job.adapter) if store is not None and key is not None else None
    if stored is not None:
        # What was made of something else, whatever its name says, is made anew.
        with contextlib.suppress(CFIError):
            return _measure(job, route, stored)
    start = perf_counter()
    converted = convert_along(route, job.original_side().model, job.arrays)
    seconds = perf_counter() - start
    translation = _measure(job, route, converted)
    if store is not None and key is not None:
        store.put(key, job.adapter, converted)
    return replace(translation, seconds=seconds)


def _measure(job: Job, route: Route, made: Converted) -> Translation:
    """With certificate and layer map."""
    original, translated = job.original_side(), job.translated_side(made)
    certificate = _certify(route, original, translated, job.arrays)
    generator = np.random.default_rng(_CERTIFICATE_SEED)
    noise = random_like(job.arrays, 1, generator)
    samples = [np.concatenate([array[:1], more]) for array, more in zip(job.arrays, noise, strict=True)]
    if not computes(original, samples):
        samples = [np.repeat(array[:1], 2, axis=0) for array in job.arrays]  # the model does not take noise
        samples = samples if computes(original, samples) else list(job.arrays)  # nor another number of samples
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
        certificate = replace(certificate, divergence=_find_divergence(original, translated, arrays))
        where = f"; {certificate.divergence}" if certificate.divergence else ""
        raise UnfaithfulTranslationError(
            f"The model made by {', '.join(route.names)} computes something else than yours: "
            f"{'; '.join(certificate.faults)}{where}. It is not used. Try another translator (cfi.translators() lists "
            f"them) or a toolset of the model's own framework.",
            certificate,
        )
    return certificate


def _find_divergence(original: Side, translated: Side, arrays: Arrays) -> Divergence | None:
    try:
        return first_divergence(original, translated, [array[:_EXAMPLES] for array in arrays])
    except Exception:  # noqa: BLE001 - the model is known to be wrong, so anything may go wrong in it
        return None


def convert_along(route: Route, model: Any, arrays: Arrays) -> Converted:
    """Runs the translators of a route, one after the other."""
    examples = [array[:_EXAMPLES] if len(array) >= _EXAMPLES else np.repeat(array, _EXAMPLES, 0) for array in arrays]
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


def _compose_all(first: Sequence[Permutation], then: Sequence[Permutation]) -> tuple[Permutation, ...]:
    """Permutations that do both, one after the other."""
    return tuple(compose(permutation_at(first, i), permutation_at(then, i)) for i in range(max(len(first), len(then))))
