"""Step 5 of a call, where the route is a bridge: run the user's model inside the toolset's framework.

Nothing is converted, so there is no layer to look for: the bridge is built for the layers that the call names, at the
head that the method explains. What is measured is the crossing: outputs, input gradients, and the activation and
gradient at each of these layers, against the model in its own framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.carrying import Prepared, mentioned_layers, position_of, takes_target
from cfi_core.certificate import (
    FLOOR_FACTOR,
    GRADIENT_TOLERANCE,
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
from cfi_core.heads import AtHead, at_head
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
    home, given = prepared.home, prepared.probe.inputs
    head_name = str(prepared.plan.head) if _explains_output(prepared, layers) else "no head"
    gradients = bool(_GRADIENT_NEEDS & prepared.plan.method.needs)
    key = cache_key(
        home.fingerprint(prepared.model),
        prepared.model,
        (*route.names, head_name, str(gradients), *opened),
        given.arrays,
    )
    built: _Built | None = cache.get(key)
    if built is None:
        built = _build(prepared, route, layers, opened)
        cache.put(key, prepared.model, built)
    digest = digest_of((*given.arrays, *flatten(prepared.probe.outputs)))
    if digest not in built.evidence:
        evidence = _measured(prepared, route, built, opened, gradients=gradients)
        built.evidence.clear()  # one is enough: several methods in a row explain the same inputs
        built.evidence[digest] = evidence
    certificate, layer_map = built.evidence[digest]
    return Translation(
        model=built.converted.model,
        route=route,
        certificate=certificate,
        layer_map=layer_map,
        input_axes=built.converted.input_axes,
        output_axes=built.converted.output_axes,
        explained=built.head.explained,
    )


def _explains_output(prepared: Prepared, layers: Sequence[str]) -> bool:
    return prepared.plan.call.own_target or takes_target(prepared.plan, layers)


def _build(prepared: Prepared, route: Route, layers: Sequence[str], opened: tuple[str, ...]) -> _Built:
    plan, home, probe = prepared.plan, prepared.home, prepared.probe
    target = resolve_target(plan.call.target, probe.outputs) if takes_target(plan, layers) else None
    head = at_head(
        plan,
        home,
        home.twin(prepared.model),
        probe.inputs.tensors,
        target,
        flatten(probe.outputs),
        position_of(prepared, target),
    )
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
    prepared: Prepared, route: Route, built: _Built, opened: tuple[str, ...], *, gradients: bool
) -> tuple[Certificate, LayerMap]:
    """The evidence, or a refusal."""
    home, abroad, converted, arrays = prepared.home, prepared.abroad, built.converted, _some(prepared)
    source = Side(home, home.twin(built.head.model))
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
    floor = FLOOR_FACTOR * (certificate.gradient_floor or 0.0)
    tolerance = bridge_tolerance(source.outputs(arrays))
    faults = [
        f"layer {name!r} differs by {match.difference:.1e}, its gradient by {match.gradient_difference or 0.0:.1e}"
        for name, match in matches.items()
        if not match.difference <= tolerance
        or not (match.gradient_difference or 0.0) <= max(GRADIENT_TOLERANCE, tolerance, floor)
    ]
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
