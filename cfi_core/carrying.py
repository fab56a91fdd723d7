"""Step 6 of a call: carry inputs, target, layer, neuron, baselines and own arguments to the model that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import isfunction
from math import prod
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, as_arrays, framework_of_tensor, is_array, is_number, number
from cfi_core.contract import MethodRequest, Target
from cfi_core.errors import ArgumentError, InputError, LayerError, ModelWarning, warn
from cfi_core.framework import hand_over, seed_of_sample
from cfi_core.framework.axes import Permutation, inverse, permute
from cfi_core.framework.layout import Layout
from cfi_core.framework.structure import flatten, map_structure
from cfi_core.functions import bridge_function, check_linear
from cfi_core.heads import at_head
from cfi_core.holding import check_function, check_rows, is_apart, is_bound, split_samples, take_samples
from cfi_core.progress import phase
from cfi_core.records import Call, Carried, ModelAtHead, Plan, Portion, Prepared
from cfi_core.registry import Registry
from cfi_core.specs import Need, Role
from cfi_core.targets import NamedTarget

_EXACT = 2**24
"""Up to here single precision holds all whole numbers."""


@phase("carrying inputs and target across")
def carry(registry: Registry, call: Call, prepared: Prepared, head: ModelAtHead | None = None) -> Carried:
    """Makes the request for one run of the method, or for one with each sample's held inputs.

    Args:
        registry: The plugins.
        call: The call.
        prepared: The model that the method runs on.
        head: The same up to where it is explained, from another batch.

    Raises:
        ArgumentError: Something does not fit the model that runs (`LayerError`: it has no such layer).

    Warns:
        ModelWarning: What is explained is not what the method's paper explains.
    """
    started = perf_counter()
    request, made = _make_request(registry, call, prepared, head=head)
    head, shown = made.head, made.shown
    if head.warning:
        warn(head.warning, ModelWarning)
    apart = bool(request.inputs) and (is_bound(call) or is_apart(call))
    portions = partial(_make_portions, registry, call, prepared) if apart else None
    divides = call.plan.arguments.batch_size is not None and bool(request.inputs)
    parts = _Parts(registry, call, prepared, made) if divides else None
    types = _whole_types(call) if request.inputs else {}
    rules = call.plan.method.alters_model or Need.MODULES in call.plan.method.needs  # which mark the model
    # What failed for want of memory on the way may have left marks, too.
    kept = None if rules or types or apart or divides or shown.maps else head
    return Carried(request, head.explained, head.cut, started, portions, parts, types, shown.shapes, shown.maps, kept)


@dataclass(frozen=True, eq=False)
class _Made:
    """The model that requests are on, and what is known of it."""

    model: Any  # in which layers are looked up
    head: ModelAtHead
    shown: Shown
    samples: int  # that the shapes in it are of

    def resize(self, samples: int) -> _Made:
        """The same, for another number of samples."""
        shapes = (
            None if shape is None or shape[0] % self.samples else (shape[0] // self.samples * samples, *shape[1:])
            for shape in self.shown.shapes
        )
        return replace(self, shown=replace(self.shown, shapes=tuple(shapes)), samples=samples)


class _Parts:
    """Requests for some samples each, on one model as long as nothing of theirs is bound to it."""

    def __init__(self, registry: Registry, call: Call, prepared: Prepared, made: _Made) -> None:
        self._registry, self._call, self._prepared = registry, call, prepared
        self._made: _Made | None = made
        self._bound = is_bound(call)
        if call.inputs.samples > 1:
            if self._bound:
                check_rows(registry, call)
            check_function(registry, call)

    def take(self, rows: range, most: int | None) -> Portion:
        """For these samples, with so many rows at once at most.

        Raises:
            InputError: What is held is no row for each sample.
            TargetError: A target function tells samples by their places.
        """
        part, adapter = take_samples(self._registry, self._call, rows), self._prepared.adapter
        part = replace(part, seed=seed_of_sample(part.seed, rows[0]))
        held: tuple[Any, ...] = ()
        if self._bound:
            first = take_samples(self._registry, part, [0])
            held = Carrier(self._registry, first, self._prepared, self._prepared.model).held_tensors()
        known = None if self._bound else self._made
        request, made = _make_request(self._registry, part, self._prepared, held, made=known)
        self._made = made
        samples = self._call.inputs.samples
        place = (rows[0], samples) if len(rows) == 1 < samples else None
        arrays = tuple(np.array(adapter.to_numpy(one)) for one in held if adapter.is_tensor(one))
        return Portion(part, replace(request, place=place, rows=most), arrays, made.shown.shapes)

    def renew(self) -> None:
        """Another twin for those that follow: what ran on the last one has failed."""
        self._made = None


def _make_portions(registry: Registry, call: Call, prepared: Prepared) -> Iterator[Portion]:
    """Requests on a model of which the held inputs are part, or of one sample; each is made when its turn comes.

    Raises:
        InputError: What is held is no row for each sample.
        TargetError: A target function tells samples by their places.
    """
    parts, adapter, bound = split_samples(registry, call), prepared.adapter, is_bound(call)
    if len(parts) > 1:
        if bound:
            check_rows(registry, call)
        check_function(registry, call)
    for position, part in enumerate(parts):
        first = take_samples(registry, part, [0])
        held = Carrier(registry, first, prepared, prepared.model).held_tensors() if bound else ()
        request, made = _make_request(registry, part, prepared, held)
        place = (position, len(parts)) if len(parts) > 1 else None
        arrays = tuple(np.array(adapter.to_numpy(one)) for one in held if adapter.is_tensor(one))
        yield Portion(part, replace(request, place=place), arrays, made.shown.shapes)


def _make_request(
    registry: Registry,
    call: Call,
    prepared: Prepared,
    bound: tuple[Any, ...] = (),
    *,
    head: ModelAtHead | None = None,
    made: _Made | None = None,
) -> tuple[MethodRequest, _Made]:
    """The request, on a model that holds what is bound to it; on one that ends at a known head, or is made already."""
    given, carrier = call.inputs, Carrier(registry, call, prepared, prepared.model)
    # The model's own tensors without a detour through numpy, if they can be used where the method runs.
    values = given.tensors if prepared.adapter.is_tensor(given.tensors[0]) else _across(call, prepared)
    inputs = carrier.like_inputs(values) if given.given else ()
    types = _whole_types(call) if inputs else {}
    made = made.resize(given.samples) if made else _make_model(carrier, inputs, bound, types, head)
    carrier = replace(carrier, model=made.model)
    inputs = tuple(carrier.real(value) if i in types else value for i, value in enumerate(inputs))
    plan, shown = call.plan, made.shown
    request = MethodRequest(
        method=plan.method,
        model=shown.model,
        inputs=inputs,
        target=carrier.target(),
        layer=shown.layers,
        neuron=carrier.unit(),
        baselines=carrier.baselines(),
        init_args=carrier.own_arguments(plan.arguments.init_args or {}),
        exec_args=carrier.own_arguments(_without_held(plan, bound)),
        seed=call.seed,
        channel_axis=tuple(
            carrier.channel_axis(array.shape, prepared.input_axes(i)) for i, array in enumerate(given.arrays) if inputs
        ),
        layer_channel_axes=shown.channels,
        head=plan.head,
        codes=call.original.table is not None and call.original.table.coded,
    )
    return request, made


def _across(call: Call, prepared: Prepared) -> tuple[Any, ...]:
    """The inputs for another framework: what lies on a device does not go through the host."""
    original, inputs = call.original, call.inputs
    if not original.adapter.is_accelerated(original.model):
        return inputs.arrays
    return tuple(hand_over(one, original.adapter, prepared.adapter, prepared.model) for one in inputs.tensors)


def _make_model(
    carrier: Carrier,
    inputs: tuple[Any, ...],
    bound: tuple[Any, ...],
    types: Mapping[int, np.dtype[Any]],
    head: ModelAtHead | None,
) -> _Made:
    """A twin that ends where the method explains it, and shows its layers as the method sees them."""
    call, prepared, plan = carrier.call, carrier.prepared, carrier.call.plan
    share = not plan.method.alters_model
    model = head.twin if head else prepared.adapter.twin(prepared.model, share_weights=share)
    carrier = replace(carrier, model=model)
    if head is None:
        passed = (*inputs, *carrier.held_tensors()) if inputs else ()
        # A bridge was cut before it was built.
        cut = prepared.translation.head if prepared.translation else None
        head = replace(cut, model=model) if cut else at_head(call, prepared.adapter, model, passed)
        head = replace(head, twin=model)
    if bound:
        head = replace(head, model=prepared.adapter.bind(head.model, bound))
        carrier = replace(carrier, model=head.model)
    if types:
        names = [name for name in map(prepared.layer_name, plan.layers) if name is not None]
        head = replace(head, model=prepared.adapter.with_real_inputs(head.model, names))
        carrier = replace(carrier, model=head.model)
    shown = show_layers(carrier, head.model, tuple(map(carrier.layer_object, plan.layers)))
    return _Made(carrier.model, head, shown, call.inputs.samples)


def _without_held(plan: Plan, bound: tuple[Any, ...]) -> Mapping[str, Any]:
    """The arguments of the method's call; what is bound to the model is none of them."""
    given, place = plan.arguments.exec_args or {}, plan.method.argument_of(Role.HELD) if bound else None
    return {name: value for name, value in given.items() if name != place}


@dataclass(frozen=True, eq=False)
class Shown:
    """The model and its layers as the method sees them.

    Attributes:
        model: The model.
        layers: Layer objects of it.
        shapes: Of what they give; None where it is not known.
        channels: Which axis holds the channels of each; None where there is none.
        maps: Names, in the user's model, of those that are shown as maps, with the channel axis of the map.
    """

    model: Any
    layers: tuple[Any, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    channels: tuple[int | None, ...]
    maps: Mapping[str, int]


def show_layers(carrier: Carrier, model: Any, layers: Sequence[Any]) -> Shown:
    """Shows layers as maps to a method that works with their axes of space, where they give something else."""
    call, adapter, objects = carrier.call, carrier.prepared.adapter, list(layers)
    shapes: list[tuple[int, ...] | None] = []
    channels: list[int | None] = []
    maps: dict[str, int] = {}
    for i, name in enumerate(call.plan.layers):
        axes, own = carrier.prepared.layer_axes(name), call.layer_shapes.get(name)
        shape = own if own is None or axes is None else tuple(own[axis] for axis in axes)
        channel = carrier.channel_axis(own, axes, name)
        layout = carrier.layout(name) if call.plan.method.maps_layer else None
        if shape is not None and layout is not None and adapter.map_channels is not None:
            rank = len(layout.space) + 2
            place = adapter.map_channels % rank
            if not (layout.is_plain and len(shape) == rank and layout.channel == place):
                model, objects[i] = adapter.show_map(model, objects[i], layout)
                space = [shape[0] // layout.rows, *layout.space]
                shape, channel = (*space[:place], shape[layout.channel], *space[place:]), place
                maps[name] = place
        shapes.append(shape)
        channels.append(channel)
    return Shown(model, tuple(objects), tuple(shapes), tuple(channels), maps)


def _whole_types(call: Call) -> dict[int, np.dtype[Any]]:
    """Types of the inputs of whole numbers that the toolset's code would not take, by position.

    Raises:
        InputError: A number is larger than single precision holds.
    """
    if call.plan.method.takes_integers:
        return {}
    arrays = call.inputs.arrays
    if any(array.dtype.kind in "iu" and np.abs(array.astype(np.float64)).max() > _EXACT for array in arrays):
        raise InputError(
            f"{call.plan.method.toolset} takes floating point inputs only, and whole numbers beyond {_EXACT} would be "
            f"others there. Choose another toolset, such as one for models of another framework."
        )
    return {i: array.dtype for i, array in enumerate(arrays) if array.dtype.kind in "iub"}


@dataclass(frozen=True, eq=False)
class Carrier:
    """From the user's model, in whose layout the call is, to the one that runs (a twin, which the toolset may mark)."""

    registry: Registry
    call: Call
    prepared: Prepared
    model: Any

    def channel_axis(self, shape: Sequence[int] | None, axes: Permutation, layer: str | None = None) -> int | None:
        """Where an input (or the output of a layer) of that shape has its channels in the model that runs."""
        original = self.call.original
        # A shape that could not be read says nothing.
        channel = None if shape is None else original.adapter.channel_axis(original.model, shape, layer=layer)
        return channel if channel is None or axes is None else axes.index(channel)

    def layout(self, layer: str) -> Layout | None:
        """Where the positions of a layer lie, in the axes of the model that runs; None for one without any."""
        call, axes = self.call, self.prepared.layer_axes(layer)
        shape, placed = call.layer_shapes.get(layer), call.placed.get(layer)
        if shape is None or len(shape) < 3:
            return None
        if placed is not None and placed.layout is not None:
            return placed.layout.turned(axes, shape)
        channel = call.original.adapter.channel_axis(call.original.model, shape, layer=layer)
        if channel is None:
            return None
        space = tuple(size for axis, size in enumerate(shape) if axis not in (0, channel))
        return Layout(space, tuple(range(prod(space))), channel).turned(axes, shape)

    def target(self) -> Target | None:
        """The target in the layout of the model that runs, which gives its outputs flat, in the original's order."""
        target = self.call.target
        if target is None or self.prepared.translation is None:
            return target
        if target.function is not None:
            return self._function(target, target.function)
        axes, index = self.prepared.output_axes(self.call.output), target.index
        carried = replace(target, output=self.call.output if len(self.call.output_arrays) > 1 else None)
        if index is not None:
            index = tuple(carry_index(one, axes) for one in index) if target.per_sample else carry_index(index, axes)  # type: ignore[arg-type]
        return replace(carried, index=index)

    def _function(self, target: Target, function: Callable[[Any], Any]) -> Target:
        """The user's function, given what the user's model gives; a target with a name takes tensors of any framework.

        Of a model that a bridge leads to, it is part; here stand those of converted models.
        """
        chosen, outputs, count = None, self.call.outputs, len(self.call.output_arrays)
        if target.output is not None:
            chosen = self.call.output if count > 1 else None
            outputs = self.call.output_arrays[self.call.output]
        if not isinstance(function, NamedTarget):
            function = self._bridge(function, outputs) or function
        if target.output is None:
            return Target(function=self._of_original_outputs(function))
        return Target(chosen, function=self._of_original_axes(function, self.prepared.output_axes(self.call.output)))

    def _bridge(self, function: Callable[[Any], Any], outputs: Any) -> Callable[[Any], Any] | None:
        """The function as one of the tensors of the framework that the method runs in; None where it is one already."""
        original, adapter = self.call.original, self.prepared.adapter
        if (
            adapter.is_tensor(self.call.inputs.tensors[0])
            or original.adapter.ended_by(original.model, function) is None
        ):
            return None
        if Need.MODULES in self.call.plan.method.needs:
            check_linear(original, self.call.plan.method.key, function, outputs)
        return bridge_function(self.registry, original, self.call.plan.toolset_framework, adapter, function, outputs)

    def _of_original_outputs(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The user's function, given the translated model's outputs in the user's axes and structure."""

        def apply(outputs: Any) -> Any:
            leaves = enumerate(flatten(outputs))
            turned = (self._unpermute(leaf, self.prepared.output_axes(i)) for i, leaf in leaves)
            return function(map_structure(lambda _: next(turned), self.call.outputs))

        return apply

    def _of_original_axes(self, function: Callable[[Any], Any], axes: Permutation) -> Callable[[Any], Any]:
        """The user's function of one tensor, given it in the user's axes."""
        return function if axes is None else lambda tensor: function(self._unpermute(tensor, axes))

    def unit(self) -> Any:
        """The neuron in the layout of the model that runs."""
        call, neuron = self.call, self.call.neuron
        layer = call.plan.layers[0] if len(call.plan.layers) == 1 else None
        if layer is None or layer not in call.layer_shapes:
            return neuron  # called several times: the toolset itself judges that, and no translation has it
        axes = self.prepared.layer_axes(layer)
        if isinstance(neuron, tuple) and len(neuron) == len(call.layer_shapes[layer]) - 1:
            return carry_index(neuron, axes)
        return self._of_original_axes(neuron, axes) if callable(neuron) else neuron

    def layer_object(self, name: str) -> Any:
        """The layer of the model that runs which is a layer of the user's model; a `LayerError` if it has none."""
        found = self.prepared.layer_name(name)
        if found is None:
            raise LayerError(self._explain_absence(name))
        return self.prepared.adapter.layer_object(self.model, found)

    def _explain_absence(self, name: str) -> str:
        """Why the model that runs has no such layer, and which it has."""
        translation, repair = self.prepared.translation, self.prepared.repair
        if translation is not None and name not in translation.layer_map:
            why = (
                "the translated model has no layer with the same activation (the translators merged or split it)"
                if name in translation.layer_map.compared
                else "its activation cannot be read (it is called more than once, or lies inside a nested model)"
            )
            return (
                f"Layer {name!r} of your model cannot be used through {', '.join(translation.route.names)}: {why}. "
                f"Layers that can: {', '.join(translation.layer_map) or 'none'}."
            )
        names = repair.canonical.layers if repair else {}
        usable = [one for one in (translation.layer_map if translation else names) if self.prepared.layer_name(one)]
        return (
            f"Layer {name!r} of your model cannot be used with {self.call.plan.method.key}, whose rules needed a "
            f"canonical copy of the model: there it has no single output, because the model calls it several times, "
            f"not at all, or it gives no single tensor. Layers that can: {', '.join(usable) or 'none'}."
        )

    def baselines(self) -> tuple[Any, ...] | None:
        """One tensor or number for each input."""
        given = self.call.plan.arguments.baselines
        if is_number(given):
            return (number(self.registry, given),) * len(self.call.inputs.arrays)
        parts = given if isinstance(given, tuple) else as_arrays(self.registry, given)
        return None if given is None else tuple(self._baseline(part, i) for i, part in enumerate(parts))

    def _baseline(self, part: Any, position: int) -> Any:
        return number(self.registry, part) if is_number(part) else self._like_input(part, position)

    def held_tensors(self) -> tuple[Any, ...]:
        """What the forward pass takes behind the inputs; as inputs of a translated model, of which it is one."""
        given = self.call.inputs
        if self.prepared.translation is None:
            is_tensor = self.prepared.adapter.is_tensor
            return tuple(self._tensor(one, None) if is_tensor(one) else one for one in given.held)
        behind = enumerate(given.held_arrays, len(given.arrays))
        return tuple(self._tensor(array, self.prepared.input_axes(i)) for i, array in behind)

    def own_arguments(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The toolset's own arguments: each by its role, or else by its value."""
        roles = self.call.plan.method.roles
        return MappingProxyType({name: self._own(value, roles.get(name)) for name, value in arguments.items()})

    def _own(self, value: Any, role: Role | None) -> Any:
        if role is Role.HELD and value is not None:
            return self.held_tensors()
        if role is Role.LIKE_INPUTS and value is not None:
            parts = self.like_inputs(value)
            return parts if isinstance(value, tuple) else parts[0]
        if role is Role.LIKE_LAYER and value is not None:
            return self._like_layer(value, self.call.plan.layers)
        if role is Role.OTHER_LAYER and value is not None:
            return self._other_layer(value)
        if role is Role.WINDOW:
            return self._window(value)
        if role is Role.OWN_TARGET:
            return self._own_target(value)
        return self._by_value(value)

    def real(self, tensor: Any) -> Any:
        """Whole numbers as floating point ones."""
        return self.prepared.adapter.tensor(self.prepared.adapter.to_numpy(tensor).astype(np.float32), None)

    def like_inputs(self, value: Any) -> tuple[Any, ...]:
        """Arrays (or numbers) with the axes of the inputs, one for each of them."""
        parts = value if isinstance(value, tuple) else as_arrays(self.registry, value)
        return tuple(self._like_input(part, i) for i, part in enumerate(parts))

    def _like_input(self, part: Any, position: int) -> Any:
        axes = self.prepared.input_axes(position)
        if isinstance(part, np.ndarray) and not part.shape:
            return self.prepared.adapter.tensor(part, self.model)
        if is_array(self.registry, part) and not is_number(part):
            array = part if hasattr(part, "shape") else as_array(self.registry, part, "an array")
            if lacking := self.call.inputs.arrays[position].ndim - len(array.shape):  # axes in front
                part = as_array(self.registry, array, "an array")[(None,) * lacking]
        return self._by_value(part) if part is None or is_number(part) else self._tensor(part, axes)

    def _like_layer(self, value: Any, layers: Sequence[str]) -> Any:
        """An array (or number, or one for each layer) with the axes of the layer's output."""
        if isinstance(value, int | float):
            return value
        if isinstance(value, tuple | list):
            return tuple(self._like_layer(part, layers[i : i + 1]) for i, part in enumerate(value))
        axes = self.prepared.layer_axes(layers[0]) if layers else None
        if axes is not None and len(np.shape(value)) != len(axes):
            raise ArgumentError(f"An array for layer {layers[0]!r} needs {len(axes)} axes, as its output has.")
        return self._tensor(value, axes)

    def _other_layer(self, value: Any) -> Any:
        name = self.call.original.adapter.layer_name(self.call.original.model, value)
        return value if name is None else self.layer_object(name)

    def _window(self, value: Any) -> Any:
        if isinstance(value, tuple) and value and all(isinstance(entry, tuple | list) for entry in value):
            return tuple(carry_index(tuple(entry), self.prepared.input_axes(i)) for i, entry in enumerate(value))
        return carry_index(tuple(value), self.prepared.input_axes(0)) if isinstance(value, tuple | list) else value

    def _own_target(self, value: Any, position: int = 0) -> Any:
        """A score of the toolset's own is passed on; a plain function sees outputs in the user's axes."""
        if isinstance(value, list | tuple):
            return type(value)(self._own_target(entry, i) for i, entry in enumerate(value))
        return self._of_original_axes(value, self.prepared.output_axes(position)) if isfunction(value) else value

    def _by_value(self, value: Any) -> Any:
        """Tensors change framework, layers of the user's model become the corresponding ones, the rest passes."""
        if type(value) in (list, tuple):
            return type(value)(self._by_value(entry) for entry in value)
        if type(value) is dict:
            return {key: self._by_value(entry) for key, entry in value.items()}
        if framework_of_tensor(self.registry, value) is not None:
            return self._tensor(value, None)
        if not callable(value):
            return value
        name = self.call.original.adapter.layer_name(self.call.original.model, value)
        return value if name is None else self.layer_object(name)

    def _tensor(self, value: Any, axes: Permutation) -> Any:
        """A fresh tensor with permuted axes, without a detour where it already is one."""
        adapter = self.prepared.adapter
        if not adapter.is_tensor(value):
            return adapter.tensor(permute(as_array(self.registry, value, "an array"), axes), self.model)
        tensor = adapter.tensor(value, self.model)
        return tensor if axes is None else adapter.permute(tensor, axes)

    def _unpermute(self, tensor: Any, axes: Permutation) -> Any:
        return tensor if axes is None else self.prepared.adapter.permute(tensor, inverse(axes))


def carry_index(index: tuple[int, ...], axes: Sequence[int] | None) -> tuple[int, ...]:
    """An index (or a window) over all axes but the first, with its axes in the new order."""
    if axes is None:
        return index
    if len(index) != len(axes) - 1:
        raise ArgumentError(f"{index} has {len(index)} entries; pass one for each of the {len(axes) - 1} axes.")
    return tuple(index[axis - 1] for axis in axes[1:])
