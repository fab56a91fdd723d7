"""Bridges: run the user's model inside the toolset's framework.

Nothing is converted, so there is no layer to look for: the bridge is built for the layers that the call names, at the
head that the method explains. What is measured is the crossing: outputs, input gradients, and the activation and
gradient at each of these layers, against the model in its own framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from cfi_core.boundary import build_bridge, foreign
from cfi_core.certificate import (
    FLOOR_FACTOR,
    GRADIENT_TOLERANCE,
    MOST_ROUNDING,
    Certificate,
    Side,
    bridge_tolerance,
    certify_bridge,
    relative_difference,
)
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.errors import TranslationError, UnfaithfulTranslationError
from cfi_core.framework.axes import permute
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.heads import at_head, place_of
from cfi_core.layer_map import LayerMap, LayerMatch, read_layers
from cfi_core.records import Call, ModelAtHead, Prepared, Route, Translation
from cfi_core.registry import Registry
from cfi_core.specs import Need
from cfi_core.translation.cache import cache, cache_key, digest_of

_SAMPLES = 2
_SEED = 20_190_521
_GRADIENT_NEEDS = frozenset({Need.INPUT_GRADIENT, Need.LAYER_GRADIENT})


@dataclass(frozen=True, eq=False)
class _Span:
    """What a bridge is built for.

    Attributes:
        registry: What is installed.
        call: The call.
        adapter: Adapter of the framework that the model shall run inside.
        route: The bridge.
        layers: Names of the layers in the user's model that it opens.
    """

    registry: Registry
    call: Call
    adapter: FrameworkAdapter
    route: Route
    layers: tuple[str, ...]

    @property
    def arrays(self) -> list[np.ndarray]:
        """Some of the user's inputs."""
        return [array[:_SAMPLES] for array in self.call.inputs.arrays]

    @property
    def gradients(self) -> bool:
        """Whether the method needs any."""
        return bool(_GRADIENT_NEEDS & self.call.plan.method.needs)

    def cut(self) -> ModelAtHead:
        """The user's model as it is now, up to where the method explains it."""
        original = self.call.original
        twin = original.adapter.twin(original.model)
        return at_head(self.call, original.adapter, twin, self.call.inputs.tensors)


@dataclass(frozen=True, eq=False)
class _Bridge:
    """A bridge, and the evidence for the inputs that it was measured on last, with the digest of these."""

    head: ModelAtHead
    converted: Converted
    certificate: Certificate
    layer_map: LayerMap
    digest: str


def bridge(registry: Registry, call: Call, adapter: FrameworkAdapter, route: Route) -> Prepared:
    """The model, bridged for one call, or by an earlier one on the same unchanged model.

    Args:
        registry: What is installed.
        call: The call after step 4.
        adapter: Adapter of the framework that the model shall run inside.
        route: A bridge.

    Raises:
        LayerError: A layer cannot be opened: it is not called exactly once, or does not give one tensor.
        UnfaithfulTranslationError: The bridge does not compute what the model does.
        TranslationError: The bridge fails on the model.
    """
    span = _Span(registry, call, adapter, route, tuple(dict.fromkeys((*call.plan.layers, *call.mentioned))))
    original, arrays = call.original, call.inputs.arrays
    names = (*route.names, place_of(call), str(span.gradients), *span.layers)
    key = cache_key(original.adapter.fingerprint(original.model), original.model, names, arrays)
    digest = digest_of((*arrays, *call.output_arrays))
    built: _Bridge | None = cache.get(key)
    if built is not None and built.digest != digest:
        try:
            # Against the model as it is now: what its fingerprint does not show may have changed.
            built = _measure(span, built.converted, span.cut(), digest)
            cache.put(key, original.model, built)
        except UnfaithfulTranslationError:
            built = None
    if built is None:
        head = span.cut()
        built = _measure(span, _build(span, head), head, digest)
        if original.adapter.fingerprint(original.model) == key[0]:  # another one each time for what cannot be seen
            cache.put(key, original.model, built)
    made = built.converted
    translation = Translation(made.model, route, built.certificate, built.layer_map, made.input_axes, made.output_axes)
    return Prepared(adapter, made.model, translation, built.head)


def _build(span: _Span, head: ModelAtHead) -> Converted:
    original, step = span.call.original, span.route.translators[0]
    # Two samples of the user's inputs (or one of them twice), as fresh tensors.
    examples = tuple(
        original.adapter.tensor(np.resize(array, (_SAMPLES, *array.shape[1:])), original.model) for array in span.arrays
    )
    request = BridgeRequest(original.adapter, head.model, examples, span.layers)
    return build_bridge(step, request, span.registry.origin_of(step).label, layers=span.call.layer_shapes)


def _measure(span: _Span, converted: Converted, head: ModelAtHead, digest: str) -> _Bridge:
    """The evidence that the bridge computes what the model at its head does, or a refusal."""
    arrays, adapter, names = span.arrays, span.call.original.adapter, ", ".join(span.route.names)
    original = Side(adapter, adapter.twin(head.model))
    twin = span.adapter.twin(converted.model)
    bridged = Side(span.adapter, twin, converted.input_axes, converted.output_axes)
    advice = "Pass translator='conversion' to convert the model instead."
    with foreign(TranslationError, f"The model run by {names} fails on your inputs", advice):
        certificate = certify_bridge(original, bridged, arrays, _SEED, gradients=span.gradients)
        matches = _match_layers(span, original, bridged, converted) if span.layers else {}
        tolerance = bridge_tolerance(original.outputs(arrays))
    unmeasured = [name for name, match in matches.items() if match.gradient_difference is None]
    if unmeasured and span.gradients:
        note = f"the gradient at {', '.join(map(repr, unmeasured))} could not be compared"
        certificate = replace(certificate, notes=(*certificate.notes, note))
    floor = min(FLOOR_FACTOR * (certificate.gradient_floor or 0.0), MOST_ROUNDING)
    faults = [*certificate.faults, *_faults_of_layers(matches, tolerance, max(GRADIENT_TOLERANCE, tolerance, floor))]
    if faults:
        raise UnfaithfulTranslationError(
            f"The model run by {names} computes something else than by itself: {'; '.join(faults)}. "
            f"Does it compute the same twice (randomness, a state that it keeps)? {advice}",
            certificate,
        )
    certificate = replace(certificate, layers_found=len(matches), layers_total=len(span.layers))
    return _Bridge(head, converted, certificate, LayerMap(MappingProxyType(matches), span.layers), digest)


def _faults_of_layers(matches: Mapping[str, LayerMatch], tolerance: float, gradient_tolerance: float) -> list[str]:
    rows = [(f"layer {name!r}", match.difference, tolerance) for name, match in matches.items()]
    rows += [
        (f"the gradient at layer {name!r}", match.gradient_difference, gradient_tolerance)
        for name, match in matches.items()
        if match.gradient_difference is not None
    ]
    return [f"{what} differs by {apart:.1e}" for what, apart, most in rows if not apart <= most]


def _match_layers(span: _Span, original: Side, bridged: Side, converted: Converted) -> dict[str, LayerMatch]:
    """How far activation and gradient at each opened layer are apart in the two frameworks."""
    opened = {name: converted.layers[name] for name in span.layers}
    generator = np.random.default_rng(_SEED)
    cotangents = [
        generator.standard_normal(output.shape).astype(output.dtype)
        for output in (original.outputs(span.arrays) if span.gradients else ())
    ]
    reading = read_layers(original, span.arrays, cotangents, span.layers)
    other = read_layers(bridged, span.arrays, cotangents, [layer.name for layer in opened.values()])
    matches = {}
    for name, layer in opened.items():
        turned = permute(reading.activations[name], layer.axes)
        difference = relative_difference([turned], [other.activations[layer.name]])
        gradient_difference = reading.gradient_difference(name, other, layer.name, layer.axes)
        matches[name] = LayerMatch(layer.name, layer.axes, difference, gradient_difference)
    return matches
