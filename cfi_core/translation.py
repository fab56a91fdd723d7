"""Step 5 of a call: translate a model along a route, certify the result, keep it for the next call."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from time import perf_counter
from typing import Any

import numpy as np
import xxhash

from cfi_core.certificate import Axes, Certificate, Divergence, Side, certify, computes, random_like, with_layers
from cfi_core.detection import adapter_for
from cfi_core.errors import CFIError, TranslationError, TranslationWarning, UnfaithfulTranslationError
from cfi_core.frameworks.base import FrameworkAdapter, Storable
from cfi_core.layer_map import LayerMap, find_layers, first_divergence
from cfi_core.registry import Registry
from cfi_core.routes import Route
from cfi_core.specs import TranslatorSpec, resolve
from cfi_core.store import Stored, current_store, store_key

_CERTIFICATE_SEED = 20_190_521
_EXAMPLES = 2


@dataclass(frozen=True, eq=False)
class Translation:
    """A model in another framework, and the evidence that it computes the same.

    Attributes:
        model: The translated model, native to its framework, in inference mode.
        route: The translators that made it.
        certificate: Measured on the inputs of this call (or of an earlier one with the same inputs and outputs).
        layer_map: Which layer is which; maps the original's names to the translated model's.
        input_axes: For each input, the permutation from the original's axes to the translated model's
            (axis `i` of the new input is axis `input_axes[i]` of the old one); None where they are the same.
        output_axes: Likewise for each output.
        explained: Of a bridge, which is built at the head that the method explains: in words what that is.
        warning: Likewise, what the user should be told of it.
        seconds: What the translators took, measurements apart; None of a bridge, and of a conversion that was kept.
    """

    model: Any
    route: Route
    certificate: Certificate
    layer_map: LayerMap
    input_axes: tuple[Axes, ...]
    output_axes: tuple[Axes, ...]
    explained: str = ""
    warning: str = ""
    seconds: float | None = None

    def __repr__(self) -> str:
        return f"<Translation {self.route}: {self.certificate}>"


@dataclass(frozen=True, eq=False)
class _Made(Stored):
    """A translation, measured: with its layer map, and the certificates of the inputs it was measured on."""

    layer_map: LayerMap = field(default_factory=lambda: LayerMap({}, ()))
    certificates: dict[str, Certificate] = field(default_factory=dict)


def translate_along(
    registry: Registry,
    framework: str,
    model: Any,
    routes: Sequence[Route],
    arrays: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    *,
    keep: bool = True,
    bridge: Callable[[Route], Translation] | None = None,
) -> Translation:
    """Tries the routes in order until one gives a faithful model.

    Args:
        registry: What is installed.
        framework: Framework of the model.
        model: The user's model.
        routes: None of them native.
        arrays: Inputs in the user's axes, sample axis first.
        outputs: The model's outputs for them.
        keep: Use and fill the cache; without, the translated model is nobody else's.
        bridge: Builds the bridge of a route that is one.

    Raises:
        UnfaithfulTranslationError: All that could be translated computes something else.
        TranslationError: No translator could translate it.

    Warns:
        TranslationWarning: A route failed and the next one was taken.
    """
    failures: list[TranslationError] = []
    job = _Job(registry, framework, model, tuple(arrays), tuple(outputs))
    for route in routes:
        try:
            if route.bridge and bridge is not None:
                translation = bridge(route)
            else:
                translation = _kept(job, route) if keep else _made(job, route)[0]
        except TranslationError as error:
            failures.append(error)
            continue
        if failures:
            warnings.warn(f"{' '.join(map(str, failures))} Taken instead: {route}.", TranslationWarning, stacklevel=4)
        return translation
    if len(failures) == 1:
        raise failures[0]
    report = " ".join(f"[{route}] {failure}" for route, failure in zip(routes, failures, strict=True))
    unfaithful = next((failure for failure in failures if isinstance(failure, UnfaithfulTranslationError)), None)
    if unfaithful is not None:
        raise UnfaithfulTranslationError(report, unfaithful.certificate) from failures[0]
    raise TranslationError(report) from failures[0]


@dataclass(frozen=True, eq=False)
class _Job:
    """A model to translate, and the samples to judge the result on."""

    registry: Registry
    framework: str
    model: Any
    arrays: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]

    def original(self) -> Side:
        adapter = adapter_for(self.registry, self.framework)
        return Side(adapter, adapter.twin(self.model))

    def target(self, route: Route) -> FrameworkAdapter:
        return adapter_for(self.registry, route.translators[-1].target)

    def translated(self, route: Route, made: _Made) -> Side:
        adapter = self.target(route)
        return Side(adapter, adapter.twin(made.model), made.input_axes, made.output_axes)


def _kept(job: _Job, route: Route) -> Translation:
    """The translation from the cache, if it still is one; otherwise a new one, which is kept."""
    adapter = adapter_for(job.registry, job.framework)
    key = cache_key(adapter.fingerprint(job.model), job.model, route.names, job.arrays)
    made: _Made | None = cache.get(key)
    digest = digest_of((*job.arrays, *job.outputs))
    if made is not None:
        try:
            certificate = made.certificates.get(digest) or _certified(
                route,
                job.original(),
                job.translated(route, made),
                job.arrays,
                next(iter(made.certificates.values()), None),
            )
        except UnfaithfulTranslationError:
            pass  # something about the model has changed that its fingerprint does not show: translate it again
        else:
            return _with_certificate(made, route, certificate, digest)
    translation, made = _made(job, route)
    cache.put(key, job.model, made)
    return translation


def _made(job: _Job, route: Route) -> tuple[Translation, _Made]:
    """A new translation, or one that was kept on disk; measured on the inputs in either case."""
    store, source = current_store(), adapter_for(job.registry, job.framework)
    content = source.content(job.model) if store is not None and isinstance(source, Storable) else None
    if store is None or content is None:
        return _converted(job, route)
    key, target = store_key(job.registry, content, route, job.arrays), job.target(route)
    stored = store.get(key, target)
    if stored is not None:
        # What was made of something else, whatever its name says, is made anew.
        with contextlib.suppress(CFIError):
            return _measured(job, route, stored)
    translation, made = _converted(job, route)
    store.put(key, target, made)
    return translation, made


def _converted(job: _Job, route: Route) -> tuple[Translation, _Made]:
    start = perf_counter()
    converted = Stored(*convert_along(route, job.original().model, job.arrays))
    seconds = perf_counter() - start
    translation, made = _measured(job, route, converted)
    return replace(translation, seconds=seconds), made


def _measured(job: _Job, route: Route, converted: Stored) -> tuple[Translation, _Made]:
    """With certificate and layer map."""
    original = job.original()
    made = _Made(converted.model, converted.input_axes, converted.output_axes)
    translated = job.translated(route, made)
    certificate = _certified(route, original, translated, job.arrays)
    generator = np.random.default_rng(_CERTIFICATE_SEED)
    noise = random_like(job.arrays, 1, generator)
    samples = [np.concatenate([array[:1], more]) for array, more in zip(job.arrays, noise, strict=True)]
    if not computes(original, samples):
        samples = [np.repeat(array[:1], 2, axis=0) for array in job.arrays]  # the model does not take noise
        samples = samples if computes(original, samples) else list(job.arrays)  # nor another number of samples
    made = replace(made, layer_map=find_layers(original, translated, samples, certificate))
    return _with_certificate(made, route, certificate, digest_of((*job.arrays, *job.outputs))), made


def _with_certificate(made: _Made, route: Route, certificate: Certificate, digest: str) -> Translation:
    layers = made.layer_map
    certificate = with_layers(certificate, len(layers), len(layers.compared), layers.difference)
    made.certificates.clear()  # one is enough: several methods in a row explain the same inputs
    made.certificates[digest] = certificate
    return Translation(made.model, route, certificate, made.layer_map, made.input_axes, made.output_axes)


def _certified(
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
        certificate = replace(certificate, divergence=_divergence(original, translated, arrays))
        where = f"; {certificate.divergence}" if certificate.divergence else ""
        raise UnfaithfulTranslationError(
            f"The model made by {', '.join(route.names)} computes something else than yours: "
            f"{'; '.join(certificate.faults)}{where}. It is not used. Try another translator (cfi.translators() lists "
            f"them) or a toolset of the model's own framework.",
            certificate,
        )
    return certificate


def _divergence(original: Side, translated: Side, arrays: Sequence[np.ndarray]) -> Divergence | None:
    try:
        return first_divergence(original, translated, [array[:_EXAMPLES] for array in arrays])
    except Exception:  # noqa: BLE001 - the model is known to be wrong, so anything may go wrong in it
        return None


def convert_along(
    route: Route, model: Any, arrays: Sequence[np.ndarray]
) -> tuple[Any, tuple[Axes, ...], tuple[Axes, ...]]:
    """Runs the translators of a route: the model that comes out, and the permutations of its inputs and outputs."""
    examples = [array[:_EXAMPLES] if len(array) >= _EXAMPLES else np.repeat(array, _EXAMPLES, 0) for array in arrays]
    input_axes: tuple[Axes, ...] = (None,) * len(examples)
    output_axes: tuple[Axes, ...] = ()
    for step in route.translators:
        turned = tuple(
            example if axes is None else np.transpose(example, axes)
            for example, axes in zip(examples, input_axes, strict=True)
        )
        converted = _run_translator(step, model, turned)
        model = converted.model
        input_axes = _composed(input_axes, converted.input_axes)
        output_axes = _composed(output_axes, converted.output_axes)
    return model, input_axes, output_axes


def _run_translator(step: TranslatorSpec, model: Any, examples: tuple[np.ndarray, ...]) -> Any:
    try:
        return resolve(step.implementation)(model, examples)
    except TranslationError:
        raise
    except Exception as error:  # a translator is foreign code and may raise anything
        text = str(error).strip().splitlines()
        raise TranslationError(
            f"{step.name} failed on the model ({type(error).__name__}: {text[0] if text else 'no message'}). "
            f"Try another translator (cfi.translators() lists them) or a toolset of the model's own framework."
        ) from error


def _composed(first: tuple[Axes, ...], then: tuple[Axes, ...]) -> tuple[Axes, ...]:
    """Permutations that do both, one after the other."""
    return tuple(
        _compose(first[i] if i < len(first) else None, then[i] if i < len(then) else None)
        for i in range(max(len(first), len(then)))
    )


def _compose(first: Axes, then: Axes) -> Axes:
    if first is None or then is None:
        return then if first is None else first
    axes = tuple(first[axis] for axis in then)
    return None if axes == tuple(range(len(axes))) else axes


Key = tuple[str, int, tuple[str, ...], tuple[tuple[tuple[int, ...], str], ...]]

_CAPACITY = 8


class Cache:
    """What was made of models in this process, by the models' content; an entry goes when its model goes.

    At most `_CAPACITY` entries are kept, because an entry may hold on to the model that it was made of.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, Any] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Key) -> Any:
        """The entry, if there is one."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, model: Any, value: Any) -> None:
        """Keeps an entry made of the model."""
        with self._lock:
            # A model whose weights have changed will not come back to its former content: one entry for each
            # model, route and shape is enough.
            for former in [other for other in self._entries if other[1:] == key[1:]]:
                del self._entries[former]
            self._entries[key] = value
            while len(self._entries) > _CAPACITY:
                self._entries.popitem(last=False)
        if _identity(model):
            weakref.finalize(model, self._forget, key).atexit = False

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def _forget(self, key: Key) -> None:
        with self._lock:
            self._entries.pop(key, None)


def cache_key(fingerprint: str, model: Any, names: tuple[str, ...], arrays: Sequence[np.ndarray]) -> Key:
    """What must be equal for a kept entry to serve: content, object, way of translation, shapes and types."""
    signature = tuple((array.shape[1:], array.dtype.str) for array in arrays)
    return (fingerprint, _identity(model), names, signature)


def digest_of(arrays: Sequence[np.ndarray]) -> str:
    """Of inputs and outputs: a model that has changed unnoticed gives itself away by its outputs."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _identity(model: Any) -> int:
    """The object's identity; 0 for an object that cannot be watched (a protobuf message), known by content alone."""
    try:
        weakref.ref(model)
    except TypeError:
        return 0
    return id(model)


cache = Cache()


def forget_translations() -> None:
    """Empties the cache of conversions and bridges."""
    cache.clear()
