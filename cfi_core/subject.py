"""A model made ready for a metric: on the way of a call up to where a method would run, and the call's end after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cfi_core.carrying import Carrier, carry
from cfi_core.checking import check
from cfi_core.confirming import confirm_run
from cfi_core.contract import Axes, MethodResult, Target
from cfi_core.detection import load_original
from cfi_core.display import outline
from cfi_core.errors import ArgumentError, InputError, LayerError
from cfi_core.framework import Passes
from cfi_core.framework.axes import Permutation
from cfi_core.holding import held_names, hold_the_same, is_bound
from cfi_core.process import generators, keep_model, keep_process, reseed, use
from cfi_core.records import Arguments, Call, Carried, Choice, Prepared, Run
from cfi_core.registry import Registry, registry
from cfi_core.routing import find_routes
from cfi_core.silence import without_warnings
from cfi_core.specs import Head, Kind, MethodSpec, Need, Translator
from cfi_core.translation import prepare


@dataclass(frozen=True, eq=False)
class Subject:
    """The user's model where a metric can run it, with inputs and target; inside `prepare_subject` alone.

    Attributes:
        model: Of the framework that was asked for, in inference mode, free to be marked: never the user's own object.
        tensors: The inputs for it, one for each input of the model.
        arrays: The same values in the axes of the user's model.
        dims: Names of the axes of each of these.
        input_axes: For each input, the permutation from the user's axes to those of `model`; None: the same.
        target: What is measured, in the layout of `model`.
        users_target: The same in the layout of the user's model.
        position: Of the output that the target names among all tensors that the model gives.
        outputs: What the user's model gives for the inputs, flat.
        explained: Where a softmax at the model's end is measured, in words.
        cut: Whether it was left out.
        framework: Of the user's model.
        route: Names of the translators; empty when native.
        certificate: The evidence that it is the user's model, in words.
        seed: Of all that is random.
    """

    model: Any
    tensors: tuple[Any, ...]
    arrays: tuple[np.ndarray, ...]
    dims: tuple[tuple[str, ...], ...]
    input_axes: tuple[Permutation, ...]
    target: Target
    users_target: Target
    position: int
    outputs: Sequence[np.ndarray]
    explained: str
    cut: bool
    framework: str
    route: tuple[str, ...]
    certificate: str
    seed: int
    _registry: Registry = field(repr=False)
    _call: Call = field(repr=False)
    _prepared: Prepared = field(repr=False)

    __repr__ = outline

    def reseed(self) -> None:
        """Seeds all global generators, which are the user's again at the end, with `seed`."""
        reseed(self._registry, self.seed)

    def users_tensor(self, array: np.ndarray) -> Any:
        """An array in the user's axes as a tensor of the user's framework: what a plain function's is told by."""
        original = self._call.original
        return original.adapter.tensor(array, original.model)

    def users_inputs(self, array: np.ndarray) -> Any:
        """An array in the place of what is explained, as `cfi.attribute` takes all inputs of the user's model."""
        tensor, names = self.users_tensor(array), self._call.original.names
        if names is None:
            return tensor
        given: Mapping[str, Any] = self._call.plan.arguments.inputs
        held = dict(zip(names.held, self._call.inputs.held_arrays, strict=True))
        rows = {name: np.repeat(values[:1], len(array), axis=0) for name, values in held.items()}
        constants = {name: value for name, value in given.items() if name not in names.every}
        return {names.explained[0]: tensor, **rows, **constants}

    def layer_names(self, layers: Sequence[Any]) -> list[str]:
        """Names, in `model`, of layers of the user's model, which are given by name or object.

        Raises:
            LayerError: The user's model, or the translated one, has no such layer.
        """
        original, prepared = self._call.original, self._prepared
        names = [original.adapter.layer_name(original.model, one) for one in layers]
        if None in names:
            known = ", ".join(layer.name for layer in original.adapter.layers(original.model))
            raise LayerError(f"The model has no layer {layers[names.index(None)]!r}. It has: {known}.")
        if prepared.translation is None:
            return [str(name) for name in names]
        found = [Carrier(self._registry, self._call, prepared, self.model).layer_object(str(name)) for name in names]
        return [str(prepared.adapter.layer_name(self.model, one)) for one in found]

    def to_layout(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `cfi.attribute` for the user's model, as they are for `model` and for copies of it.

        Args:
            arguments: With `method_key` and `toolset`, without inputs and target.

        Raises:
            ArgumentError: One of them names something that a translated model does not have in the same form.
            LayerError: It has no such layer.
        """
        carried, layer = dict(arguments), arguments.get("layer")
        if layer is not None:
            names = self.layer_names(layer if isinstance(layer, list | tuple) else [layer])
            carried["layer"] = names if isinstance(layer, list | tuple) else names[0]
        if self._prepared.translation is None:
            return carried
        if arguments.get("neuron") is not None:
            raise ArgumentError("A neuron of your model cannot be carried to a changed copy of a translated model.")
        method = self._registry.methods[arguments["method_key"], arguments["toolset"]]
        given = replace(self._call.plan.arguments, baselines=arguments.get("baselines"))
        call = replace(self._call, plan=replace(self._call.plan, method=method, arguments=given))
        carrier = Carrier(self._registry, call, self._prepared, self.model)
        baselines = carrier.baselines()
        carried["baselines"] = baselines if baselines is None or len(baselines) > 1 else baselines[0]
        for name in ("init_args", "exec_args"):
            carried[name] = dict(carrier.own_arguments(arguments.get(name) or {}))
        return carried


def samples_apart(model: Any, inputs: Any) -> int:
    """How many samples hold inputs of their own, so that each has to be a subject by itself; 1 where one is enough.

    Args:
        model: As for `cfi.attribute`.
        inputs: As for `cfi.attribute`; only those that go by name can be held.
    """
    if not isinstance(inputs, Mapping):
        return 1
    current = registry()
    with keep_process(current):
        names = load_original(current, model, inputs).names
    if names is None:
        return 1
    count = len(inputs[names.explained[0]])
    held = [np.asarray(inputs[name]) for name in names.held]
    return 1 if hold_the_same([array for array in held if array.shape[:1] == (count,)]) else count


@contextmanager
def prepare_subject(
    model: Any,
    framework: str,
    needs: frozenset[Need],
    *,
    inputs: Any,
    target: Any,
    translator: Translator = None,
    head: Head = Head.OUTPUT,
    alters_model: bool = False,
    seed: int | None = None,
) -> Iterator[Subject]:
    """Makes a model ready to be measured: checked, translated, certified, the global generators seeded.

    On leaving, what a metric fed to a converted model is compared with the user's model, and everything is as before.

    Args:
        model: As for `cfi.attribute`.
        framework: The one in which the metric works.
        needs: What the metric requires of the model; a bridge is taken where that is enough.
        inputs: As for `cfi.attribute`.
        target: As for `cfi.attribute`.
        translator: As for `cfi.attribute`.
        head: Where a softmax at the model's end is measured.
        alters_model: The metric changes weights: the subject gets its own, and the run is not compared.
        seed: As for `cfi.attribute`.

    Raises:
        CFIError: As `cfi.attribute` up to the run.
        InputError: Each sample holds inputs of its own; a metric runs them together.
        UnfaithfulTranslationError: On leaving: in the run the converted model gave something else than the user's.
    """
    current = registry()
    arguments = Arguments(model, "metric", inputs=inputs, target=target, translator=translator, head=head, seed=seed)
    with keep_process(current), ExitStack() as stack:
        original = load_original(current, model, inputs)
        routes = find_routes(current, original.framework, framework, needs, translator)
        use(current, original, routes, framework)
        choice = Choice(_as_method(needs, head, alters_model), framework, routes, (), "as the metric needs")
        call = check(current, arguments, original, choice)
        stack.enter_context(keep_model(original, call.purity))
        prepared = prepare(current, call, with_layers=True)  # any of them may be asked for
        with without_warnings("metric explains logits"):  # the metric tells what is measured
            carried = carry(current, call, prepared)
        stack.enter_context(generators(current, carried.request))
        passes, runs = _passes(call, prepared), carried
        if carried.portions is not None and is_bound(call):
            portion = next(carried.portions())
            if portion.request.place is not None:
                raise InputError(f"Each sample has its own {held_names(call)}: measure one sample at a time.")
            runs = replace(carried, request=portion.request)
            if passes is not None:
                passes.held = portion.held
        if passes is None:
            yield _subject(current, call, prepared, runs)
            return
        with prepared.adapter.watch_passes(runs.request.model, passes):
            yield _subject(current, call, prepared, runs)
        confirm_run(call, prepared, carried, Run(MethodResult((), Axes.INPUT), passes))


def _as_method(needs: frozenset[Need], head: Head, alters_model: bool) -> MethodSpec:
    """What the steps of a call take for a method."""
    return MethodSpec(
        key="metric",
        toolset="metrics",
        kind=Kind.ATTRIBUTION,
        needs=needs,
        implementation=f"{__name__}:prepare_subject",
        optional=("target",),
        head=head,
        alters_model=alters_model,
    )


def _passes(call: Call, prepared: Prepared) -> Passes | None:
    """What is to be compared of a run; a metric that changes weights gets something else by intention."""
    is_converted = prepared.translation is not None and not prepared.translation.route.bridge
    return Passes(call.seed) if is_converted and not call.plan.method.alters_model else None


def _subject(current: Registry, call: Call, prepared: Prepared, carried: Carried) -> Subject:
    original, request, translation = call.original, carried.request, prepared.translation
    assert request.target is not None and call.target is not None
    return Subject(
        model=request.model,
        tensors=request.inputs,
        arrays=call.inputs.arrays,
        dims=tuple(original.adapter.dims(original.model, array.shape) for array in call.inputs.arrays),
        input_axes=tuple(prepared.input_axes(i) for i in range(len(call.inputs.arrays))),
        target=replace(request.target, function=request.target.function or original.function),
        users_target=replace(call.target, function=call.target.function or original.function),
        position=call.output,
        outputs=call.output_arrays,
        explained=carried.explained,
        cut=carried.cut,
        framework=original.framework,
        route=translation.route.names if translation else (),
        certificate=str(translation.certificate) if translation else "native: nothing to certify",
        seed=call.seed,
        _registry=current,
        _call=call,
        _prepared=prepared,
    )
