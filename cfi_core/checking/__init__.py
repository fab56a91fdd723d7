"""Step 4 of a call: everything that can be known to be wrong before anything expensive runs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.adapters import as_arrays, framework_of_tensor, is_array
from cfi_core.attribution import Outlets
from cfi_core.checking.inputs import check_like_inputs, check_window, example_inputs, read_inputs, run_original
from cfi_core.checking.names import layer_names, sort_arguments
from cfi_core.checking.targets import position_of, resolve_neuron, resolve_target
from cfi_core.errors import ArgumentError, InputError, LayerError, ModelWarning, PlotError, warn
from cfi_core.records import Arguments, Call, Choice, Inputs, Original, PendingLayer, Plan
from cfi_core.registry import Registry
from cfi_core.specs import Head, Kind, MethodSpec, Need, Role


def check_names(registry: Registry, arguments: Arguments, original: Original, choice: Choice) -> Plan:
    """Checks what names tell, without running the model.

    Raises:
        ArgumentError: An argument is unknown, given twice, missing, or has no meaning here.
        LayerError: A layer is not part of the model.
        PlotError: A picture could not be written.
    """
    if isinstance(arguments.plot, str | Path):
        path = Path(arguments.plot)
        Outlets(registry.plotters, registry.writers).writer_for(path)
        if not path.parent.is_dir():
            raise PlotError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into. Make it first.")
    method = choice.method
    arguments = _with_sample_axes(registry, arguments, original, method)
    arguments = replace(sort_arguments(arguments, method), model=original.model)
    for name in method.native_only:
        if arguments.own.get(name) and not choice.routes[0].native:
            raise ArgumentError(
                f"{name!r} asks for a place in the translated model that cannot be compared with yours (only the "
                f"outputs of layers can). Leave it out and name the layer before it instead."
            )
    layers = layer_names(original, arguments.layer)
    # Unless the user wishes, the raw method is explained where its paper does, and the toolset's at the output.
    head = Head.OUTPUT if arguments.defaults == "toolset" else method.head
    return Plan(
        **vars(choice),
        framework=original.framework,
        head=head if arguments.head is None else Head(arguments.head),
        layers=layers,
        needs_layer="layer" in method.required and not layers,
        arguments=arguments,
    )


def check(registry: Registry, arguments: Arguments, original: Original, choice: Choice) -> Call:
    """Checks what names tell, and what can be known from the user's model alone, by one forward pass.

    Raises:
        ArgumentError: As `check_names` tells; or inputs, target, neuron, baselines or masks do not fit the model.

    Warns:
        ModelWarning: The model is in training mode.
    """
    plan = check_names(registry, arguments, original, choice)
    arguments = plan.arguments
    if original.adapter.in_training_mode(original.model):
        warn(
            "The model is in training mode. It is explained in inference mode (dropout off, fixed batch norm "
            "statistics); your model stays in training mode.",
            ModelWarning,
        )
    if arguments.inputs is not None:
        inputs = read_inputs(registry, original, arguments.inputs, _held(plan))
        integers = [array.dtype for array in inputs.arrays if not np.issubdtype(array.dtype, np.floating)]
        if integers and Need.INPUT_GRADIENT in plan.method.needs:
            raise InputError(
                f"{plan.method.key} differentiates with respect to the inputs, and {integers[0]} inputs have no "
                f"gradient. Explain a layer instead (for example layer_integrated_gradients at the embedding)."
            )
        fits = [array.shape[:1] == (inputs.samples,) for array in inputs.held_arrays]
        if not plan.route.native and (len(fits) < len(inputs.held) or not all(fits)):
            raise InputError(
                f"A translated model takes tensors of {inputs.samples} samples as yours does; further arguments of its "
                f"forward pass that are others cannot be held there ({plan.route}). Make them part of the model."
            )
    else:
        inputs = example_inputs(original, len(arguments.target) if isinstance(arguments.target, list) else 1)
    outputs = run_original(original, inputs, native=plan.route.native)
    target = resolve_target(registry, arguments.target, outputs) if plan.explains_target else None
    _check_like_inputs(registry, plan, inputs)
    shapes = _layer_shapes(original, inputs, plan.layers)
    return Call(
        plan=plan,
        original=original,
        inputs=inputs,
        outputs=outputs,
        target=target,
        output=position_of(target, outputs),
        neuron=_neuron(plan, shapes),
        layer_shapes=shapes,
        mentioned=_mentioned_layers(registry, original, arguments),
        seed=secrets.randbits(31) if arguments.seed is None else arguments.seed,
        seconds=perf_counter() - arguments.started,
    )


def check_layer(pending: PendingLayer, layer: Any) -> Call:
    """The call that was waiting for a layer, with the layer (see `cfi_core.finish_execution_with_layer` for errors)."""
    call, original = pending.call, pending.call.original
    names = layer_names(original, layer)
    if not names:
        raise LayerError(f"Pass a layer: one of {', '.join(entry.name for entry in pending.layers)}.")
    if original.adapter.fingerprint(original.model) != pending.fingerprint:
        raise ArgumentError("The model has changed since the call was prepared. Call cfi.attribute again, with layer=.")
    plan = replace(call.plan, layers=names, needs_layer=False)
    shapes = _layer_shapes(original, call.inputs, names)
    return replace(call, plan=plan, neuron=_neuron(plan, shapes), layer_shapes=shapes)


def _with_sample_axes(registry: Registry, arguments: Arguments, original: Original, method: MethodSpec) -> Arguments:
    """With the sample axis of a single sample, in own words whose toolset knows by the model that it is missing."""
    shapes, words = original.adapter.input_shapes(original.model) or (), dict(arguments.exec_args or {})
    for name, value in words.items():
        if method.roles.get(name) is not Role.ONE_OR_SEVERAL or value is None:
            continue
        parts = as_arrays(registry, value)
        if len(parts) == len(shapes):
            arrays = [part if is_array(registry, part) else np.asarray(part) for part in parts]
            batch = [x[None] if len(x.shape) == len(shape) - 1 else x for x, shape in zip(arrays, shapes, strict=True)]
            words[name] = tuple(batch) if len(batch) > 1 else batch[0]
    return replace(arguments, exec_args=words)


def _held(plan: Plan) -> tuple[Any, ...]:
    """What the model's forward pass takes behind the inputs."""
    given = [value for value in plan.arguments.of_role(Role.HELD, plan.method) if value is not None]
    return tuple(part for value in given for part in (value if type(value) is tuple else (value,)))


def _check_like_inputs(registry: Registry, plan: Plan, inputs: Inputs) -> None:
    """Baselines, masks and windows."""
    baselines = plan.arguments.baselines
    if baselines is not None and not isinstance(baselines, int | float):
        check_like_inputs(registry, inputs, baselines, "baselines")
    for name, value in plan.arguments.own.items():
        match plan.method.roles.get(name):
            case Role.LIKE_INPUTS if value is not None:
                check_like_inputs(registry, inputs, value, name)
            case Role.WINDOW if value is not None:
                check_window(inputs, value, name)


def _layer_shapes(original: Original, inputs: Inputs, layers: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the outputs of layers that are called once and give one tensor."""
    if not layers:
        return MappingProxyType({})
    twin = original.adapter.twin(original.model)
    activations = original.adapter.activations(twin, inputs.passed, layers)
    return MappingProxyType({name: activation.shape for name, activation in activations.items()})


def _neuron(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The neuron, checked; of a layer that is called several times the toolset judges, and no translation has it."""
    neuron = plan.arguments.neuron
    if len(plan.layers) != 1 or plan.layers[0] not in shapes:
        return neuron
    (layer,), channel_allowed = plan.layers, plan.method.kind is Kind.FEATURE_VISUALIZATION
    return resolve_neuron(neuron, shapes[layer], channel_allowed=channel_allowed, layer=layer)


def _mentioned_layers(registry: Registry, original: Original, arguments: Arguments) -> tuple[str, ...]:
    def names(value: Any) -> list[str]:
        if isinstance(value, list | tuple) or type(value) is dict:
            entries = value.values() if isinstance(value, dict) else value
            return [name for entry in entries for name in names(entry)]
        if not callable(value) or framework_of_tensor(registry, value) is not None:
            return []
        name = original.adapter.layer_name(original.model, value)
        return [] if name is None else [name]

    return tuple(dict.fromkeys(names(arguments.own)))
