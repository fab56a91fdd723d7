"""Step 6 of a call: carry inputs, target, layer, neuron, baselines and own arguments to the model that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import isfunction
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.call import Call
from cfi_core.certificate import Axes
from cfi_core.contract import MethodRequest, Target
from cfi_core.detection import adapter_for, framework_of_tensor
from cfi_core.errors import ArgumentError, InputError, LayerError
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.frameworks.structure import flatten, items, map_structure
from cfi_core.heads import AtHead, at_head
from cfi_core.inputs import Inputs, Probe, as_array, split, to_tensor
from cfi_core.planning import Plan
from cfi_core.registry import Registry
from cfi_core.specs import Need, Role
from cfi_core.targets import carry_index, carry_target, inverse, resolve_neuron, resolve_target
from cfi_core.translation import Translation


@dataclass(frozen=True, eq=False)
class Prepared:
    """A call after step 5: the model that runs, and what is known of the user's own.

    Attributes:
        plan: What is going to happen.
        model: The user's model (loaded, if it came as a file).
        probe: The user's inputs (or made-up ones, where the method needs none) and the model's outputs for them.
        inputs_given: Whether the inputs are the user's.
        translation: The translated model; None when native.
        seed: Seed of the run.
    """

    registry: Registry
    plan: Plan
    model: Any
    probe: Probe
    inputs_given: bool
    translation: Translation | None
    seed: int

    @property
    def home(self) -> FrameworkAdapter:
        """Adapter of the user's framework."""
        return adapter_for(self.registry, self.plan.framework)

    @property
    def abroad(self) -> FrameworkAdapter:
        """Adapter of the framework that the method runs in."""
        return adapter_for(self.registry, self.plan.toolset_framework)

    def input_axes(self, position: int) -> Axes:
        """Permutation from the user's axes of an input to those of the model that runs."""
        axes = self.translation.input_axes if self.translation else ()
        return axes[position] if position < len(axes) else None

    def output_axes(self, position: int) -> Axes:
        """Likewise for an output."""
        axes = self.translation.output_axes if self.translation else ()
        return axes[position] if position < len(axes) else None

    def layer_axes(self, layer: str) -> Axes:
        """Likewise for a layer's output."""
        return self.translation.layer_map.matches[layer].axes if self.translation else None


@dataclass(frozen=True, eq=False)
class Carried:
    """A request, and what is needed to bring its result home.

    Attributes:
        request: For the toolset.
        explained: In words what the explained value is (for the provenance).
        layer_shapes: Shapes of the layers' outputs in the user's model, where they could be read.
        warning: What the user should be told of what is explained; empty if nothing.
    """

    request: MethodRequest
    explained: str
    layer_shapes: Mapping[str, tuple[int, ...]]
    warning: str = ""


def carry(prepared: Prepared, layers: Sequence[str]) -> Carried:
    """Makes the request for one run of the method.

    Args:
        prepared: The call after step 5.
        layers: Names of the layers in the user's model.

    Raises:
        InputError, TargetError, LayerError, ArgumentError: Something does not fit the model.
    """
    plan, call, abroad = prepared.plan, prepared.plan.call, prepared.abroad
    method = plan.method
    model = abroad.twin(
        prepared.translation.model if prepared.translation else prepared.model, share_weights=not method.alters_model
    )
    layer_objects = tuple(_layer_object(prepared, model, name) for name in layers)
    inputs: tuple[Any, ...] = ()
    channel_axes: tuple[int | None, ...] = ()
    if prepared.inputs_given:
        given = prepared.probe.inputs
        _check_differentiable(plan, given)
        inputs = tuple(
            to_tensor(
                prepared.registry, abroad, model, tensor if abroad.is_tensor(tensor) else array, prepared.input_axes(i)
            )
            for i, (tensor, array) in enumerate(zip(given.tensors, given.arrays, strict=True))
        )
        channel_axes = tuple(_channel_axis(prepared, i, array) for i, array in enumerate(given.arrays))
    target = _target(prepared) if takes_target(plan, layers) else None
    shapes = _layer_shapes(prepared, layers)
    neuron, layer_channel_axis = call.neuron, None
    if len(layers) == 1:
        neuron, layer_channel_axis = _unit(prepared, layers[0], shapes)
    head = _at_head(prepared, model, inputs, target)
    request = MethodRequest(
        method=method,
        model=head.model,
        inputs=inputs,
        target=target,
        layer=layer_objects,
        neuron=neuron,
        baselines=_baselines(prepared, call, model),
        init_args=_own_arguments(prepared, call.init_args, model, layers),
        exec_args=_own_arguments(prepared, call.exec_args, model, layers),
        seed=prepared.seed,
        channel_axis=channel_axes,
        layer_channel_axis=layer_channel_axis,
        head=plan.head,
    )
    return Carried(request, head.explained, shapes, head.warning)


def _at_head(prepared: Prepared, model: Any, inputs: Sequence[Any], target: Target | None) -> AtHead:
    if prepared.translation is not None and prepared.translation.explained:
        # A bridge: the model was cut before it was bridged.
        return AtHead(model, prepared.translation.explained, prepared.translation.warning)
    outputs = flatten(prepared.probe.outputs)
    return at_head(prepared.plan, prepared.abroad, model, inputs, target, outputs, position_of(prepared, target))


def mentioned_layers(prepared: Prepared) -> tuple[str, ...]:
    """Names of the layers of the user's model that stand as objects among the toolset's own arguments."""

    def named(value: Any) -> list[str]:
        if isinstance(value, list | tuple):
            return [name for entry in value for name in named(entry)]
        if type(value) is dict:
            return [name for entry in value.values() for name in named(entry)]
        name = None if _is_plain(prepared, value) else prepared.home.layer_name(prepared.model, value)
        return [] if name is None else [name]

    call = prepared.plan.call
    return tuple(dict.fromkeys(named([*call.init_args.values(), *call.exec_args.values()])))


def takes_target(plan: Plan, layers: Sequence[str]) -> bool:
    """Whether the run explains a target; feature visualization of a layer's unit does not."""
    if plan.call.own_target or "target" not in (*plan.method.required, *plan.method.optional):
        return False
    return not (layers and plan.call.neuron is not None and plan.call.target is None)


def check_against_model(prepared: Prepared) -> None:
    """Checks what can be known from the user's model alone, before anything expensive (step 4).

    Raises:
        ArgumentError: Target, neuron, baselines or masks do not fit the model.
    """
    plan, call = prepared.plan, prepared.plan.call
    if takes_target(plan, plan.layers):
        resolve_target(call.target, prepared.probe.outputs)
    if len(plan.layers) == 1 and call.neuron is not None:
        _unit(prepared, plan.layers[0], _layer_shapes(prepared, plan.layers))
    if call.baselines is not None and not isinstance(call.baselines, int | float):
        _checked_like_inputs(prepared, call.baselines, "baselines")
    for name, value in {**call.init_args, **call.exec_args}.items():
        if plan.method.roles.get(name) is Role.LIKE_INPUTS and value is not None:
            _checked_like_inputs(prepared, value, name)
        if plan.method.roles.get(name) is Role.WINDOW and value is not None:
            _check_window(prepared, name, value)


def _check_differentiable(plan: Plan, inputs: Inputs) -> None:
    if Need.INPUT_GRADIENT not in plan.method.needs:
        return
    for array in inputs.arrays:
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{plan.method.key} differentiates with respect to the inputs, and {array.dtype} inputs have no "
                f"gradient. Explain a layer instead (for example layer_integrated_gradients at the embedding)."
            )


def _layer_object(prepared: Prepared, model: Any, name: str) -> Any:
    if prepared.translation is None:
        return prepared.abroad.layer_object(model, name)
    layer_map = prepared.translation.layer_map
    if name not in layer_map:
        readable = name in layer_map.compared
        why = (
            "the translated model has no layer with the same activation (the translators merged or split it)"
            if readable
            else "its activation cannot be read (it is called more than once, or lies inside a nested model)"
        )
        route = ", ".join(prepared.translation.route.names)
        raise LayerError(
            f"Layer {name!r} of your model cannot be used through {route}: {why}. "
            f"Layers that can: {', '.join(layer_map) or 'none'}."
        )
    return prepared.abroad.layer_object(model, layer_map[name])


def _channel_axis(prepared: Prepared, position: int, array: np.ndarray) -> int | None:
    axis = prepared.home.channel_axis(prepared.model, array.shape)
    axes = prepared.input_axes(position)
    return axis if axis is None or axes is None else axes.index(axis)


def _target(prepared: Prepared) -> Target:
    outputs = prepared.probe.outputs
    target = resolve_target(prepared.plan.call.target, outputs)
    if prepared.translation is None:
        return target
    if target.function is not None and target.output is None:
        return replace(target, function=_of_home_outputs(prepared, target.function))
    # Translated models return their outputs flat: one tensor, or several in the order of the original's.
    position = position_of(prepared, target)
    several = len(flatten(outputs)) > 1
    return carry_target(target, prepared.output_axes(position), prepared.abroad, position if several else None)


def position_of(prepared: Prepared, target: Target | None) -> int:
    """Position of the chosen output among all tensors that the model returns."""
    if target is None or target.output is None:
        return 0
    return [key for key, entry in items(prepared.probe.outputs) for _ in flatten(entry)].index(target.output)


def _of_home_outputs(prepared: Prepared, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The user's function, given the translated model's outputs in the user's axes and structure."""

    def carried(outputs: Any) -> Any:
        turned = iter(
            [
                leaf if (axes := prepared.output_axes(i)) is None else prepared.abroad.permute(leaf, inverse(axes))
                for i, leaf in enumerate(flatten(outputs))
            ]
        )
        return function(map_structure(lambda _: next(turned), prepared.probe.outputs))

    return carried


def _layer_shapes(prepared: Prepared, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if not layers:
        return {}
    twin = prepared.home.twin(prepared.model)
    activations = prepared.home.activations(twin, prepared.probe.inputs.tensors, layers)
    return {name: activation.shape for name, activation in activations.items()}


def _unit(prepared: Prepared, layer: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Any, int | None]:
    """The neuron in the layout of the model that runs, and the layer's channel axis there."""
    plan, call = prepared.plan, prepared.plan.call
    if layer not in shapes:
        return call.neuron, None  # called several times: the toolset itself judges that, and no translation has it
    channel_allowed = plan.method.kind == "feature visualization"
    neuron = resolve_neuron(call.neuron, shapes[layer], channel_allowed=channel_allowed, layer=layer)
    axes = prepared.layer_axes(layer)
    channel = prepared.home.channel_axis(prepared.model, shapes[layer], layer=layer)
    if isinstance(neuron, tuple) and len(neuron) == len(shapes[layer]) - 1:
        neuron = carry_index(neuron, axes)
    elif callable(neuron) and axes is not None:
        function, back = neuron, inverse(axes)
        neuron = lambda tensor: function(prepared.abroad.permute(tensor, back))  # noqa: E731 - it is passed on
    return neuron, channel if channel is None or axes is None else axes.index(channel)


def _baselines(prepared: Prepared, call: Call, model: Any) -> tuple[Any, ...] | None:
    if call.baselines is None:
        return None
    if isinstance(call.baselines, int | float):
        return (call.baselines,) * len(prepared.probe.inputs.arrays)
    return _like_inputs(prepared, call.baselines, model, "baselines")


def _like_inputs(prepared: Prepared, value: Any, model: Any, name: str) -> tuple[Any, ...]:
    """Arrays (or numbers) with the axes of the inputs, one for each of them, carried."""
    return tuple(
        part
        if part is None or isinstance(part, int | float)
        else to_tensor(prepared.registry, prepared.abroad, model, part, prepared.input_axes(i))
        for i, part in enumerate(_checked_like_inputs(prepared, value, name))
    )


def _checked_like_inputs(prepared: Prepared, value: Any, name: str) -> tuple[Any, ...]:
    """One part for each input, with shapes (and for baselines types) that fit."""
    arrays = prepared.probe.inputs.arrays
    parts = tuple(value) if isinstance(value, tuple) else split(prepared.registry, value)
    if len(parts) != len(arrays):
        raise InputError(f"{name} has {len(parts)} parts for {len(arrays)} inputs. Pass one for each input.")
    for part, like in zip(parts, arrays, strict=True):
        if part is None or isinstance(part, int | float):
            continue
        array = as_array(prepared.registry, part, name)
        if array.ndim != like.ndim:
            raise InputError(
                f"{name} has shape {array.shape}, but needs the axes of the inputs {like.shape}, with a first axis of "
                f"1 or more samples."
            )
        if any(size not in (1, other) for size, other in zip(array.shape[1:], like.shape[1:], strict=True)):
            raise InputError(f"{name} has shape {array.shape}, which does not fit inputs of shape {like.shape}.")
        if name == "baselines" and array.dtype.kind != like.dtype.kind:
            raise InputError(f"baselines hold {array.dtype}, the inputs {like.dtype}: convert and scale them alike.")
    return parts


def _own_arguments(
    prepared: Prepared, arguments: Mapping[str, Any], model: Any, layers: Sequence[str]
) -> Mapping[str, Any]:
    method = prepared.plan.method
    carried: dict[str, Any] = {}
    for name, value in arguments.items():
        role = method.roles.get(name)
        if name in method.native_only and value and prepared.translation is not None:
            raise ArgumentError(
                f"{name!r} asks for a place in the translated model that cannot be compared with yours (only the "
                f"outputs of layers can). Leave it out and name the layer before it instead."
            )
        if role is Role.LIKE_INPUTS and value is not None:
            parts = _like_inputs(prepared, value, model, name)
            carried[name] = parts if isinstance(value, tuple) else parts[0]
        elif role is Role.LIKE_LAYER and value is not None:
            carried[name] = _like_layer(prepared, value, model, layers)
        elif role is Role.WINDOW:
            carried[name] = _window(prepared, value)
        elif role is Role.OWN_TARGET:
            carried[name] = _own_target(prepared, value)
        else:
            carried[name] = _by_value(prepared, value, model)
    return MappingProxyType(carried)


def _own_target(prepared: Prepared, value: Any, position: int = 0) -> Any:
    """A score of the toolset's own is passed on; a plain function sees outputs in the user's axes."""
    if isinstance(value, list | tuple):
        return type(value)(_own_target(prepared, entry, i) for i, entry in enumerate(value))
    axes = prepared.output_axes(position)
    if axes is None or not isfunction(value):
        return value
    return lambda output: value(prepared.abroad.permute(output, inverse(axes)))


def _like_layer(prepared: Prepared, value: Any, model: Any, layers: Sequence[str]) -> Any:
    """An array (or number, or one for each layer) with the axes of the layer's output."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, tuple | list):
        return tuple(_like_layer(prepared, part, model, layers[i : i + 1]) for i, part in enumerate(value))
    axes = prepared.layer_axes(layers[0]) if layers else None
    if axes is not None and len(np.shape(value)) != len(axes):
        raise ArgumentError(f"An array for layer {layers[0]!r} needs {len(axes)} axes, as its output has.")
    return to_tensor(prepared.registry, prepared.abroad, model, value, axes)


def _check_window(prepared: Prepared, name: str, value: Any) -> None:
    """One entry for each axis of a sample, none larger than the axis; strides may also be one number."""
    arrays = prepared.probe.inputs.arrays
    windows = value if isinstance(value, tuple) and value and isinstance(value[0], tuple | list) else (value,)
    for window, array in zip(windows, arrays, strict=False):
        sizes = array.shape[1:]
        entries = tuple(window) if isinstance(window, tuple | list) else (window,) * len(sizes)
        fits = len(entries) == len(sizes) and all(
            isinstance(entry, int | np.integer) and 1 <= entry <= size
            for entry, size in zip(entries, sizes, strict=True)
        )
        if not fits or (not isinstance(window, tuple | list) and len(sizes) > 1 and name != "strides"):
            example = tuple(size if size <= 4 else max(1, size // 8) for size in sizes)
            raise ArgumentError(
                f"{name}={value!r} does not fit samples of shape {sizes}: pass one number for each of these axes, none "
                f"larger than the axis, for example {example}."
            )


def _window(prepared: Prepared, value: Any) -> Any:
    if isinstance(value, tuple) and value and all(isinstance(entry, tuple | list) for entry in value):
        return tuple(carry_index(tuple(entry), prepared.input_axes(i)) for i, entry in enumerate(value))
    return carry_index(tuple(value), prepared.input_axes(0)) if isinstance(value, tuple | list) else value


def _by_value(prepared: Prepared, value: Any, model: Any) -> Any:
    """Tensors change framework, layers of the user's model become the corresponding ones, the rest passes."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_by_value(prepared, entry, model) for entry in value)
    if type(value) is dict:
        return {key: _by_value(prepared, entry, model) for key, entry in value.items()}
    if framework_of_tensor(prepared.registry, value) is not None:
        return to_tensor(prepared.registry, prepared.abroad, model, value, None)
    if _is_plain(prepared, value):
        return value
    name = prepared.home.layer_name(prepared.model, value)
    return value if name is None else _layer_object(prepared, model, name)


def _is_plain(prepared: Prepared, value: Any) -> bool:
    """Whether the value cannot be a layer."""
    if value is None or isinstance(value, str | int | float | bool | np.ndarray) or not callable(value):
        return True
    return framework_of_tensor(prepared.registry, value) is not None
