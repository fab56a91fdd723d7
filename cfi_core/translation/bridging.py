"""Bridges: run the user's model inside the toolset's framework.

Nothing is converted, so there is no layer to look for: the bridge is built for the layers that the call names, at the
head that the method explains. What is measured is the crossing: outputs, input gradients, and the activation and
gradient at each of these layers, against the model in its own framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.boundary import build_bridge, foreign
from cfi_core.certificate import Certificate, bridge_tolerance, certify_bridge, gradient_tolerance
from cfi_core.contract import BridgedLayer, BridgeRequest, Converted
from cfi_core.distance import Side, is_floating
from cfi_core.errors import TranslationError, UnfaithfulTranslationError
from cfi_core.framework import Recorded
from cfi_core.framework.axes import Arrays
from cfi_core.heads import at_head, place_of
from cfi_core.layer_map import LayerMap, LayerMatch, read_layers
from cfi_core.progress import phase
from cfi_core.records import Call, ModelAtHead, Route, Translation
from cfi_core.specs import Need
from cfi_core.translation.conversion import SEED, Job, two_samples
from cfi_core.translation.store import recall

_often: ContextVar[bool] = ContextVar("cfi_core_often", default=False)


@contextmanager
def often() -> Iterator[None]:
    """Bridges that are asked for inside will run many batches: what is compiled for that is compiled at once.

    So the same batch has the same passes whatever came before it, in whichever process.
    """
    token = _often.set(True)
    try:
        yield
    finally:
        _often.reset(token)


CROSSING = "the pass of the run is one that your model made by itself, so what crosses the bridge was compared"
"""In the notes of a certificate for that pass alone."""

_ADVICE = "Pass translator='conversion' to convert the model instead."


def bridge(job: Job, call: Call, route: Route) -> Translation:
    """The model of a job, bridged for its call, or by an earlier one on the same unchanged model."""
    layers = tuple(dict.fromkeys((*call.plan.layers, *call.mentioned)))
    gradients = bool({Need.INPUT_GRADIENT, Need.LAYER_GRADIENT} & call.plan.method.needs)
    # A target function may want as many samples as there are.
    arrays = job.arrays if job.original.function is not None else [array[:2] for array in job.arrays]
    span = _Span(job, call, route, arrays, layers, gradients)
    marks = [name for name, is_so in (("often", _often.get()), ("once", call.recorded is not None)) if is_so]
    names = (*route.names, place_of(call), str(gradients), *marks, *layers)
    fingerprint = call.fingerprint if call.recorded else ""  # nothing has stood between
    return recall(job.original, names, job.arrays, job.outputs, span.build, span.measure_again, fingerprint=fingerprint)


@dataclass(frozen=True, eq=False)
class _Span:
    """What a bridge is built for: it opens these layers of the user's model, and is measured on some of its inputs."""

    job: Job
    call: Call
    route: Route
    arrays: Arrays
    layers: tuple[str, ...]
    gradients: bool

    def build(self) -> Translation:
        """A new bridge, measured."""
        original, step, head = self.job.original, self.route.translators[0], self._cut()
        arrays = self.arrays if original.function is not None else two_samples(self.arrays)
        examples = self._tensors(arrays)
        known = self._tensors(two_samples(self._known(head)))
        request = BridgeRequest(original.adapter, head.model, examples, self.layers, known, often=_often.get())
        origin = self.job.registry.origin_of(step).label
        with phase(f"building a bridge ({step.name})"):
            bridged = build_bridge(step, request, origin, layers=self.call.layer_shapes)
        return self._measure(bridged, head)

    def measure_again(self, made: Translation) -> Translation:
        """The same bridge, against the model as it is now: what its fingerprint does not show may have changed."""
        layers = {name: BridgedLayer(match.name, match.axes) for name, match in made.layer_map.matches.items()}
        axes = (made.input_axes, made.output_axes)
        return self._measure(Converted(made.model, *axes, layers, made.runner), self._cut())

    def _tensors(self, arrays: Arrays) -> tuple[Any, ...]:
        return tuple(self.job.original.adapter.tensor(array, self.job.original.model) for array in arrays)

    def _known(self, head: ModelAtHead) -> Arrays:
        """What the model at its head gives for the first samples, if its first pass has told; otherwise nothing.

        A row of that pass is what they alone would give, where the model is a function of each sample alone.
        """
        is_known = self.job.by_sample and not head.cut and self.job.original.function is None
        return [output[:2] for output in self.job.outputs] if is_known else []

    def _cut(self) -> ModelAtHead:
        """The user's model as it is now, up to where the method explains it."""
        return at_head(self.call, self.job.original.adapter, self.job.twin(), self.call.inputs.passed)

    @phase("certifying")
    def _measure(self, converted: Converted, head: ModelAtHead) -> Translation:
        """With the evidence that the bridge computes what the model at its head does."""
        adapter, names = self.job.original.adapter, ", ".join(self.route.names)
        original, bridged = Side(adapter, head.model), self.job.translated_side(converted)
        with foreign(TranslationError, f"The model run by {names} fails on your inputs", _ADVICE):
            certificate = self._certify_crossing(original, bridged, head)
            once = certificate is not None
            if not once:
                original = replace(original, model=adapter.twin(head.model))
                if self.call.recorded is not None:
                    self.call.recorded.forget()
            outputs = self._known(head) or original.outputs(self.arrays)
            if certificate is None:
                certificate = certify_bridge(original, bridged, self.arrays, outputs, SEED, gradients=self.gradients)
            matches = self._match_layers(original, bridged, outputs, converted) if self.layers else {}
            tolerance = bridge_tolerance(original, outputs)
        unmeasured = [name for name, match in matches.items() if match.gradient_difference is None]
        if unmeasured and self.gradients:
            note = f"the gradient at {', '.join(map(repr, unmeasured))} could not be compared"
            certificate = replace(certificate, notes=(*certificate.notes, note))
        most = gradient_tolerance(certificate, tolerance)
        rows = [("layer", name, match.difference, tolerance) for name, match in matches.items()]
        rows += [("the gradient at layer", name, one.gradient_difference or 0.0, most) for name, one in matches.items()]
        differ = [f"{what} {name!r} differs by {apart:.1e}" for what, name, apart, up_to in rows if not apart <= up_to]
        faults = [*certificate.faults, *differ]
        if faults:
            raise UnfaithfulTranslationError(
                f"The model run by {names} computes something else than by itself: {'; '.join(faults)}. "
                f"Does it compute the same twice (randomness, a state that it keeps)? {_ADVICE}",
                certificate,
            )
        certificate = replace(certificate, layers_found=len(matches), layers_total=len(self.layers))
        layer_map = LayerMap(MappingProxyType(matches), self.layers)
        axes = (converted.input_axes, converted.output_axes)
        return Translation(
            converted.model,
            self.route,
            certificate,
            layer_map,
            *axes,
            head=head,
            once=once,
            runner=converted.runner,
        )

    def _certify_crossing(self, original: Side, bridged: Side, head: ModelAtHead) -> Certificate | None:
        """Where the run is to be a pass that the model has made by itself: whether all goes across as it is.

        Then there is no gradient but the model's own, and nothing that the bridge could make otherwise than hand on
        values, outputs, cotangents and gradients, which is told without running the model: each has to arrive to the
        last bit. None where that is not so, or the run is to be another pass.
        """
        if self.call.recorded is None or not (outputs := self._known(head)):
            return None
        stands = _Stand.of(original, self.arrays, outputs)
        with suppress(Exception), stands.recorded.handed():
            certificate = certify_bridge(stands, bridged, self.arrays, outputs, SEED)
            apart = certificate.measurements[0]
            if stands.recorded.missed or apart.output_difference or apart.gradient_difference != 0:
                return None
            return replace(certificate, notes=(*certificate.notes, CROSSING))
        return None

    def _match_layers(self, original: Side, bridged: Side, outputs: Arrays, made: Converted) -> dict[str, LayerMatch]:
        """How far activation and gradient at each opened layer are apart in the two frameworks."""
        generator, opened = np.random.default_rng(SEED), made.layers
        wanted = outputs if self.gradients else ()
        cotangents = [generator.standard_normal(output.shape).astype(output.dtype) for output in wanted]
        reading = read_layers(original, self.arrays, cotangents, self.layers)
        other = read_layers(bridged, self.arrays, cotangents, [opened[name].name for name in self.layers])
        return {name: reading.match(name, other, opened[name].name, opened[name].axes) for name in self.layers}


@dataclass(frozen=True, eq=False)
class _Stand(Side):
    """Stands for a model whose outputs are known, with gradients that are drawn.

    Attributes:
        arrays: The inputs.
        known: The outputs.
        drawn: A gradient for each floating point input.
        asked: The cotangents that these were asked for with.
        recorded: The same for a bridge, which gets the gradients for these cotangents alone.
    """

    arrays: Arrays = ()
    known: Arrays = ()
    drawn: Mapping[int, np.ndarray] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, side: Side, arrays: Arrays, outputs: Arrays) -> _Stand:
        """For a model, some inputs and what it gives for them."""
        generator = np.random.default_rng(SEED)
        drawn = {
            i: generator.standard_normal(array.shape).astype(array.dtype)
            for i, array in enumerate(arrays)
            if is_floating(array)
        }
        return cls(side.adapter, side.model, arrays=arrays, known=outputs, drawn=drawn)

    def gradients(
        self, arrays: Arrays, cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As of any side."""
        self.asked[:] = cotangents
        return list(self.known), list(self.drawn.values())

    @cached_property
    def recorded(self) -> Recorded:
        """A pass on these inputs."""
        adapter = self.adapter

        def pullback(cotangents: Sequence[Any | None], wanted: Sequence[bool]) -> tuple[Any | None, ...]:
            pairs = zip(cotangents, self.asked, strict=True)
            if not all(given is not None and np.array_equal(adapter.to_numpy(given), own) for given, own in pairs):
                raise ValueError("other cotangents arrive")
            asked = (self.drawn.get(i) if is_wanted else None for i, is_wanted in enumerate(wanted))
            return tuple(None if one is None else adapter.tensor(one, self.model) for one in asked)

        results = [adapter.tensor(output, self.model) for output in self.known]
        return Recorded(adapter.to_numpy, self.tensors(self.arrays), None, results, pullback)
