"""Step 5 of a call, where the route is a bridge: run the user's model inside the toolset's framework.

Nothing is converted, so there is no layer to look for: the bridge is built for the layers that the call names, at the
head that the method explains. What is measured is the crossing: outputs, input gradients, and the activation and
gradient at each of these layers, against the model in its own framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.carrying import Prepared, mentioned_layers, position_of, takes_target
from cfi_core.certificate import (
    FLOOR_FACTOR,
    GRADIENT_TOLERANCE,
    MOST_ROUNDING,
    Certificate,
    Side,
    bridge_tolerance,
    certify_bridge,
    relative_difference,
    with_layers,
)
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.errors import CFIError, TranslationError, UnfaithfulTranslationError
from cfi_core.frameworks.structure import flatten
from cfi_core.heads import AtHead, at_head, place_of
from cfi_core.layer_map import LayerMap, LayerMatch
from cfi_core.routes import Route
from cfi_core.specs import Need, resolve
from cfi_core.targets import resolve_target
from cfi_core.translation import Translation, cache, cache_key, digest_of

_SAMPLES = 2
_SEED = 20_190_521
_GRADIENT_NEEDS = frozenset({Need.INPUT_GRADIENT, Need.LAYER_GRADIENT})


@dataclass(frozen=True, eq=False)
class _Built:
    """A bridge, and the evidence for the inputs it was measured on."""

    head: AtHead
    converted: Converted
    evidence: dict[str, tuple[Certificate, LayerMap]] = field(default_factory=dict)

    def keep(self, digest: str, evidence: tuple[Certificate, LayerMap]) -> None:
        """Keeps the evidence for the latest inputs; several methods in a row explain the same ones."""
        self.evidence.clear()
        self.evidence[digest] = evidence


def bridge(prepared: Prepared, route: Route, layers: Sequence[str]) -> Translation:
    """Builds the bridge for one call, or takes it from an earlier one on the same unchanged model.

    Args:
        prepared: The call after step 4.
        route: A bridge.
        layers: Names of the layers in the user's model that the method explains.

    Raises:
        LayerError: A layer cannot be opened: it is not called exactly once, or does not give one tensor.
        UnfaithfulTranslationError: The bridge does not compute what the model does.
        TranslationError: The bridge fails on the model.
    """
    opened = tuple(dict.fromkeys((*layers, *mentioned_layers(prepared))))
    home, given, outputs = prepared.home, prepared.probe.inputs, flatten(prepared.probe.outputs)
    plan = prepared.plan
    target = resolve_target(plan.call.target, prepared.probe.outputs) if takes_target(plan, layers) else None
    position = position_of(prepared, target)
    gradients = bool(_GRADIENT_NEEDS & plan.method.needs)
    names = (*route.names, place_of(plan, target, position), str(gradients), *opened)
    key = cache_key(home.fingerprint(prepared.model), prepared.model, names, given.arrays)
    digest = digest_of((*given.arrays, *outputs))

    def head() -> AtHead:
        twin = home.twin(prepared.model)
        return at_head(plan, home, twin, given.tensors, target, outputs, position)

    built: _Built | None = cache.get(key)
    if built is not None and digest not in built.evidence:
        try:
            # Against the model as it is now: what its fingerprint does not show may have changed.
            built.keep(digest, _measured(prepared, route, built, head(), opened, gradients=gradients))
        except UnfaithfulTranslationError:
            built = None
    if built is None:
        built = _build(prepared, route, head(), opened)
        built.keep(digest, _measured(prepared, route, built, built.head, opened, gradients=gradients))
        if home.fingerprint(prepared.model) == key[0]:  # another one each time for what cannot be seen
            cache.put(key, prepared.model, built)
    certificate, layer_map = built.evidence[digest]
    return Translation(
        model=built.converted.model,
        route=route,
        certificate=certificate,
        layer_map=layer_map,
        input_axes=built.converted.input_axes,
        output_axes=built.converted.output_axes,
        explained=built.head.explained,
        warning=built.head.warning,
    )


def _build(prepared: Prepared, route: Route, head: AtHead, opened: tuple[str, ...]) -> _Built:
    home = prepared.home
    step = route.translators[0]
    try:
        converted = resolve(step.implementation)(BridgeRequest(home, head.model, _examples(prepared), opened))
    except CFIError:
        raise
    except Exception as error:  # a bridge is a plugin's work, and runs the user's model: both may raise anything
        text = str(error).strip().splitlines()
        raise TranslationError(
            f"{step.name} failed on the model ({type(error).__name__}: {text[0] if text else 'no message'}). "
            f"Pass translator='conversion' to convert the model instead."
        ) from error
    return _Built(head, converted)


def _examples(prepared: Prepared) -> tuple[Any, ...]:
    """Two samples of the user's inputs (or one of them twice), as fresh tensors."""
    home = prepared.home
    return tuple(
        home.tensor(np.resize(array, (_SAMPLES, *array.shape[1:])), prepared.model) for array in _some(prepared)
    )


def _some(prepared: Prepared) -> list[np.ndarray]:
    return [array[:_SAMPLES] for array in prepared.probe.inputs.arrays]


def _measured(
    prepared: Prepared, route: Route, built: _Built, head: AtHead, opened: tuple[str, ...], *, gradients: bool
) -> tuple[Certificate, LayerMap]:
    """The evidence that the bridge computes what the model at its head does, or a refusal."""
    home, abroad, converted, arrays = prepared.home, prepared.abroad, built.converted, _some(prepared)
    source = Side(home, home.twin(head.model))
    bridged = Side(abroad, abroad.twin(converted.model), converted.input_axes, converted.output_axes)
    try:
        certificate = certify_bridge(source, bridged, arrays, _SEED, gradients=gradients)
        matches = _matches(source, bridged, arrays, converted, opened, gradients=gradients) if opened else {}
    except CFIError:
        raise
    except Exception as error:  # the user's model and both frameworks may raise anything
        raise TranslationError(
            f"The model run by {', '.join(route.names)} fails on your inputs: {type(error).__name__}: {error}. "
            f"Pass translator='conversion' to convert the model instead."
        ) from error
    floor = min(FLOOR_FACTOR * (certificate.gradient_floor or 0.0), MOST_ROUNDING)
    tolerance = bridge_tolerance(source.outputs(arrays))
    faults = [
        f"layer {name!r} differs by {match.difference:.1e}"
        for name, match in matches.items()
        if not match.difference <= tolerance
    ]
    faults += [
        f"the gradient at layer {name!r} differs by {match.gradient_difference:.1e}"
        for name, match in matches.items()
        if match.gradient_difference is not None
        and not match.gradient_difference <= max(GRADIENT_TOLERANCE, tolerance, floor)
    ]
    unmeasured = [name for name, match in matches.items() if match.gradient_difference is None]
    if unmeasured and gradients:
        note = f"the gradient at {', '.join(map(repr, unmeasured))} could not be compared"
        certificate = replace(certificate, notes=(*certificate.notes, note))
    faults = [*certificate.faults, *faults]
    if faults:
        raise UnfaithfulTranslationError(
            f"The model run by {', '.join(route.names)} computes something else than by itself: {'; '.join(faults)}. "
            f"Does it compute the same twice (randomness, a state that it keeps)? Pass translator='conversion' to "
            f"convert the model instead.",
            certificate,
        )
    layer_map = LayerMap(MappingProxyType(dict(matches)), opened)
    return with_layers(certificate, len(matches), len(opened)), layer_map


def _matches(
    source: Side,
    bridged: Side,
    arrays: Sequence[np.ndarray],
    converted: Converted,
    opened: tuple[str, ...],
    *,
    gradients: bool,
) -> Mapping[str, LayerMatch]:
    """Activation and gradient at each opened layer, here and there."""
    theirs = {name: layer.name for name, layer in converted.layers.items()}
    ours = source.activations(arrays, opened)
    others = bridged.activations(arrays, list(theirs.values()))
    gradient: Mapping[str, np.ndarray] = {}
    their_gradient: Mapping[str, np.ndarray] = {}
    if gradients:
        generator = np.random.default_rng(_SEED)
        cotangents = [generator.standard_normal(output.shape).astype(output.dtype) for output in source.outputs(arrays)]
        gradient = source.layer_gradients(arrays, cotangents, opened)
        their_gradient = bridged.layer_gradients(arrays, cotangents, list(theirs.values()))
    matches = {}
    for name in opened:
        axes = converted.layers[name].axes
        turn = axes or tuple(range(ours[name].ndim))
        difference = relative_difference([np.transpose(ours[name], turn)], [others[theirs[name]]])
        apart = None
        if name in gradient and theirs[name] in their_gradient:
            apart = relative_difference([np.transpose(gradient[name], turn)], [their_gradient[theirs[name]]])
        matches[name] = LayerMatch(theirs[name], axes, difference, apart)
    return matches
