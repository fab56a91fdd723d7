"""Step 5 of a call, its end: see that the method's rules attach to the model, or to a canonical copy of it.

A rule that finds no module to attach to leaves the plain gradient there, and nobody would see it in the values. So a
toolset says with each method where its rules attach (`cfi_core.specs.Guard`), core asks before every run, and where
they would not, the framework's adapter rewrites the model. The copy is measured against the user's model like any
translated one, and kept for the next call on the same unchanged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from types import MappingProxyType
from typing import Any

from cfi_core.boundary import foreign, look_for_misses
from cfi_core.certificate import Certificate, certify, certify_again
from cfi_core.contract import GuardRequest, Miss, Target
from cfi_core.distance import Side
from cfi_core.errors import FOREIGN, LayerError, MethodError, UnfaithfulTranslationError
from cfi_core.framework.axes import permute_all
from cfi_core.heads import at_head
from cfi_core.holding import is_bound, take_samples
from cfi_core.progress import phase
from cfi_core.records import Call, Prepared, Repair
from cfi_core.registry import Registry
from cfi_core.specs import Guard, resolve
from cfi_core.translation.conversion import SEED
from cfi_core.translation.store import recall

_FEW = 2  # samples that a guard looks at: what a model computes is the same for all, and two show what differs
_OF_COPY = (
    "This is said of a canonical copy of the model, where what its forward methods call by functions are modules."
)
_NOT_MEASURED = "the copy could not be compared with the model, which failed"
_OUT_OF_PLACE = "If it is for an operation in place, write that out of place."
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@phase("looking at the model for the method's rules")
def guard(registry: Registry, call: Call, prepared: Prepared) -> Prepared:
    """The same, or a canonical copy of the model if the method's rules attach to that alone.

    A call that waits for its layer is looked at when it has one.

    Raises:
        MethodError: The rules attach neither to the model nor to a canonical copy of it, or there is none.
        LayerError: What the user asks for cannot be had of the layer in the copy.
    """
    spec = call.plan.method.guard
    if spec is None or call.plan.needs_layer:
        return prepared
    started, sentry = perf_counter(), _Sentry(registry, call, spec, prepared)
    misses = sentry.misses(prepared)
    if not misses:
        return prepared
    repaired = replace(prepared, **sentry.repair(misses))
    sentry.check_layers(repaired)
    if left := sentry.misses(repaired):
        is_old = left[0].why in [miss.why for miss in misses]
        raise MethodError(left[0].why if is_old else f"{left[0].why} {_OF_COPY}")
    return replace(repaired, seconds=prepared.seconds + perf_counter() - started)


@dataclass(frozen=True, eq=False)
class _Sentry:
    """Stands between a model and a method with rules."""

    registry: Registry
    call: Call
    spec: Guard
    prepared: Prepared  # without repair

    def misses(self, prepared: Prepared) -> tuple[Miss, ...]:
        """Where the rules would not attach."""
        call, plan, adapter = self.call, self.call.plan, prepared.adapter
        names = [prepared.layer_name(name) for name in plan.layers]
        if None in names:
            return ()  # the next step tells that such a layer is not to be had
        model = adapter.twin(prepared.model)
        layers = tuple(adapter.layer_object(model, name) for name in names if name is not None)
        inputs, held = self._few
        # A model may write into what it is given.
        head = at_head(call, adapter, model, (*(adapter.tensor(one, model) for one in inputs), *held))
        if is_bound(call):
            # As it will run: with the held inputs of one sample.
            first = take_samples(self.registry, call, [0])
            inputs, bound = replace(self, call=first)._tensors
            head, held = replace(head, model=adapter.bind(head.model, bound)), ()
            layers = tuple(adapter.layer_object(head.model, name) for name in names if name is not None)
        request = GuardRequest(
            method=plan.method,
            model=head.model,
            inputs=tuple(adapter.tensor(one, model) for one in inputs),
            held=held,
            target=self._target(),
            layer=layers,
            neuron=call.neuron,
            init_args=plan.arguments.init_args or _NOTHING,
            exec_args=plan.arguments.exec_args or _NOTHING,
            head=plan.head,
        )
        return look_for_misses(request, self.spec, self._origin)

    def repair(self, misses: Sequence[Miss]) -> dict[str, Any]:
        """The canonical copy, of this call or an earlier one, as what it changes of what was prepared."""
        call, given = self.call, self.call.inputs
        if any(not hasattr(one, "shape") for one in given.held):
            raise MethodError(
                f"{misses[0].why} The model could not be rewritten: it takes arguments that no tensors are."
            )
        translation = self.prepared.translation
        modules = ";".join(f"{name}={factory}" for name, factory in sorted(self.spec.modules.items()))
        names = ("canonical", *(translation.route.names if translation else ()), self.spec.knows, modules)
        arrays = (*given.arrays, *given.held_arrays)

        def measure_again(made: Repair) -> Repair:
            sides, outputs, by_sample = self._sides(made), tuple(call.output_arrays), call.purity.by_sample
            with foreign(MethodError, _NOT_MEASURED, _OUT_OF_PLACE):
                again = certify_again(*sides, arrays, outputs, made.certificate, by_sample=by_sample)
            return self._judge(made, again)

        try:
            repair = recall(call.original, names, arrays, tuple(call.output_arrays), self._rewrite, measure_again)
        except MethodError as error:
            raise MethodError(f"{misses[0].why} The model could not be rewritten for it: {error}") from error
        except UnfaithfulTranslationError as error:
            raise MethodError(f"{misses[0].why} {error}") from error
        return {"model": repair.canonical.model, "repair": repair}

    def check_layers(self, repaired: Prepared) -> None:
        """Refuses to read what goes into a layer of which the copy has the output alone."""
        plan, repair = self.call.plan, repaired.repair
        asked = [name for name in plan.method.native_only if plan.arguments.own.get(name)]
        for layer in plan.layers if asked and repair else ():
            name = self.prepared.layer_name(layer)
            if repair and name in repair.canonical.outputs_only:
                raise LayerError(
                    f"{asked[0]}: what goes into layer {layer!r} is not in the canonical copy of the model, which "
                    f"{plan.method.key} needs here ({repair.canonical.repairs[0]}). Choose a layer without layers of "
                    f"its own, or leave {asked[0]} out."
                )

    @phase("rewriting the model for the method's rules")
    def _rewrite(self) -> Repair:
        adapter, (inputs, held) = self.prepared.adapter, self._tensors
        factories = {name: resolve(factory) for name, factory in self.spec.modules.items()}
        knows = resolve(self.spec.knows) if self.spec.knows else None
        twin = adapter.twin(self.prepared.model)
        with foreign(MethodError, "the rewriting failed", "Report it with the model."):
            canonical = adapter.canonical(twin, inputs, factories, held=held, knows=knows)
        made = Repair(canonical, Certificate(()))
        arrays = (*self.call.inputs.arrays, *self.call.inputs.held_arrays)
        outputs, by_sample = tuple(self.call.output_arrays), self.call.purity.by_sample
        with foreign(MethodError, _NOT_MEASURED, _OUT_OF_PLACE):
            certificate = certify(*self._sides(made), arrays, SEED, outputs, by_sample=by_sample)
        return self._judge(made, certificate)

    def _judge(self, made: Repair, certificate: Certificate) -> Repair:
        """With its certificate; refuses a copy that computes something else."""
        if not certificate.faithful:
            raise UnfaithfulTranslationError(
                f"A copy of the model that was rewritten for the method's rules computes something else: "
                f"{'; '.join(certificate.faults)}. It is not used.",
                certificate,
            )
        return replace(made, certificate=certificate)

    def _sides(self, made: Repair) -> tuple[Side, Side]:
        """The user's own model and the copy."""
        original, translation = self.call.original, self.prepared.translation
        axes = (translation.input_axes, translation.output_axes) if translation else ()
        adapter = self.prepared.adapter
        return (
            Side(original.adapter, original.adapter.twin(original.model)),
            Side(adapter, adapter.twin(made.canonical.model), *axes),
        )

    @cached_property
    def _few(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The first samples alone, if the model takes them: where rules attach does not depend on how many there are.

        Or hardly ever; and the method looks once more, at what it is given in the run.
        """
        inputs, held = self._tensors
        if self.call.inputs.samples <= _FEW or held:
            return inputs, held
        first = tuple(one[:_FEW] for one in inputs)
        try:
            adapter, model = self.prepared.adapter, self.prepared.model
            adapter.outputs(adapter.twin(model), [adapter.tensor(one, model) for one in first])
        except FOREIGN:  # the user's model may take a certain number of samples, and refuse others in any way
            return inputs, held
        return first, held

    @cached_property
    def _tensors(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Inputs, and what is held behind them, for the model that runs."""
        given, prepared = self.call.inputs, self.prepared
        adapter, model = prepared.adapter, prepared.model
        if prepared.translation is None:
            held = tuple(adapter.tensor(one, model) if adapter.is_tensor(one) else one for one in given.held)
            return tuple(adapter.tensor(one, model) for one in given.tensors), held
        arrays = permute_all((*given.arrays, *given.held_arrays), prepared.translation.input_axes)
        tensors = tuple(adapter.tensor(array, model) for array in arrays)
        return tensors[: len(given.arrays)], tensors[len(given.arrays) :]

    def _target(self) -> Target | None:
        """The chosen output, as the model that runs gives it."""
        target = self.call.target
        if target is None or self.prepared.translation is None:
            return None if target is None else replace(target, index=None)
        chosen = self.call.output if len(self.call.output_arrays) > 1 and target.output is not None else None
        return Target(chosen, None, target.function)

    @property
    def _origin(self) -> str:
        return self.registry.origin_of(self.call.plan.method).label
