"""Conversions: run the translators of a route, certify what comes out, find its layers, keep it for the next call."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.boundary import run_conversion
from cfi_core.certificate import Certificate, Divergence, Side, certify, computes, random_like, with_layers
from cfi_core.errors import CFIError, TranslationError, UnfaithfulTranslationError
from cfi_core.framework.axes import Permutation, compose, permutation_at, permute
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.layer_map import LayerMap, find_layers, first_divergence
from cfi_core.records import Original, Route, Translation
from cfi_core.registry import Registry, registry
from cfi_core.translation.cache import cache, cache_key, digest_of
from cfi_core.translation.store import Conversion, current_store, store_key

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

    @property
    def digest(self) -> str:
        """Of inputs and outputs."""
        return digest_of((*self.arrays, *self.outputs))

    def original_side(self) -> Side:
        """The user's model as one side of a comparison."""
        return Side(self.original.adapter, self.original.adapter.twin(self.original.model))

    def translated_side(self, conversion: Conversion) -> Side:
        """A converted model as the other side."""
        twin = self.adapter.twin(conversion.model)
        return Side(self.adapter, twin, conversion.input_axes, conversion.output_axes)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A conversion with its layer map, and the certificate for the inputs that it was measured on last."""

    conversion: Conversion
    layer_map: LayerMap
    certificates: dict[str, Certificate] = field(default_factory=dict)

    def translation(self, route: Route, certificate: Certificate, digest: str) -> Translation:
        """What users get; the certificate is kept, in place of the one before: several methods explain the same."""
        layers = self.layer_map
        certificate = with_layers(certificate, len(layers), len(layers.compared), layers.difference)
        self.certificates.clear()
        self.certificates[digest] = certificate
        made = self.conversion
        return Translation(made.model, route, certificate, layers, made.input_axes, made.output_axes)


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
        return _make(job, route)[0]
    original = job.original
    key = cache_key(original.adapter.fingerprint(original.model), original.model, route.names, job.arrays)
    kept: _Measured | None = cache.get(key)
    if kept is not None:
        # Unfaithful: something about the model has changed that its fingerprint does not show.
        with contextlib.suppress(UnfaithfulTranslationError):
            return _reuse(job, route, kept)
    translation, made = _make(job, route)
    cache.put(key, original.model, made)
    return translation


def _reuse(job: Job, route: Route, kept: _Measured) -> Translation:
    certificate = kept.certificates.get(job.digest)
    if certificate is None:
        earlier = next(iter(kept.certificates.values()), None)
        certificate = _certify(route, job.original_side(), job.translated_side(kept.conversion), job.arrays, earlier)
    return kept.translation(route, certificate, job.digest)


def _make(job: Job, route: Route) -> tuple[Translation, _Measured]:
    """A new conversion, or one that was kept on disk; measured on the inputs in either case."""
    store, source = current_store(), job.original.adapter
    content = source.content(job.original.model) if store is not None else None
    if store is None or content is None:
        return _run_and_measure(job, route)
    key = store_key(job.registry, content, route, job.arrays)
    stored = store.get(key, job.adapter)
    if stored is not None:
        # What was made of something else, whatever its name says, is made anew.
        with contextlib.suppress(CFIError):
            return _measure(job, route, stored)
    translation, made = _run_and_measure(job, route)
    store.put(key, job.adapter, made.conversion)
    return translation, made


def _run_and_measure(job: Job, route: Route) -> tuple[Translation, _Measured]:
    start = perf_counter()
    conversion = convert_along(route, job.original_side().model, job.arrays)
    seconds = perf_counter() - start
    translation, made = _measure(job, route, conversion)
    return replace(translation, seconds=seconds), made


def _measure(job: Job, route: Route, conversion: Conversion) -> tuple[Translation, _Measured]:
    """With certificate and layer map."""
    original, translated = job.original_side(), job.translated_side(conversion)
    certificate = _certify(route, original, translated, job.arrays)
    generator = np.random.default_rng(_CERTIFICATE_SEED)
    noise = random_like(job.arrays, 1, generator)
    samples = [np.concatenate([array[:1], more]) for array, more in zip(job.arrays, noise, strict=True)]
    if not computes(original, samples):
        samples = [np.repeat(array[:1], 2, axis=0) for array in job.arrays]  # the model does not take noise
        samples = samples if computes(original, samples) else list(job.arrays)  # nor another number of samples
    made = _Measured(conversion, find_layers(original, translated, samples, certificate))
    return made.translation(route, certificate, job.digest), made


def _certify(
    route: Route,
    original: Side,
    translated: Side,
    arrays: Sequence[np.ndarray],
    earlier: Certificate | None = None,
) -> Certificate:
    """Measures, and refuses a model that computes something else (or does not run at all)."""
    try:
        certificate = certify(original, translated, arrays, _CERTIFICATE_SEED, earlier)
    except CFIError:
        raise
    except Exception as error:  # the translated model is a translator's work and may raise anything
        raise TranslationError(
            f"The model made by {', '.join(route.names)} does not run on your inputs: {type(error).__name__}: {error}. "
            f"Try another translator (cfi.translators() lists them)."
        ) from error
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


def _find_divergence(original: Side, translated: Side, arrays: Sequence[np.ndarray]) -> Divergence | None:
    try:
        return first_divergence(original, translated, [array[:_EXAMPLES] for array in arrays])
    except Exception:  # noqa: BLE001 - the model is known to be wrong, so anything may go wrong in it
        return None


def convert_along(route: Route, model: Any, arrays: Sequence[np.ndarray]) -> Conversion:
    """Runs the translators of a route, one after the other."""
    examples = [array[:_EXAMPLES] if len(array) >= _EXAMPLES else np.repeat(array, _EXAMPLES, 0) for array in arrays]
    input_axes: tuple[Permutation, ...] = (None,) * len(examples)
    output_axes: tuple[Permutation, ...] = ()
    for step in route.translators:
        permuted = tuple(permute(example, axes) for example, axes in zip(examples, input_axes, strict=True))
        converted = run_conversion(step, model, permuted, registry().origin_of(step).label)
        model = converted.model
        input_axes = _compose_all(input_axes, converted.input_axes)
        output_axes = _compose_all(output_axes, converted.output_axes)
    return Conversion(model, input_axes, output_axes)


def _compose_all(first: Sequence[Permutation], then: Sequence[Permutation]) -> tuple[Permutation, ...]:
    """Permutations that do both, one after the other."""
    return tuple(compose(permutation_at(first, i), permutation_at(then, i)) for i in range(max(len(first), len(then))))
