"""The layer that `layer="auto"` means: the last one whose values lie in space and are reached there by the target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from cfi_core.errors import LayerError, NoGradientError
from cfi_core.framework import Layout, Placed, flatten, map_structure
from cfi_core.grid import Ground, moves_along, place_layer
from cfi_core.outputs import adapter_of, one_each
from cfi_core.records import Call, Prepared
from cfi_core.targets import Values

_REACHED = 0.1  # share of the places in space where the gradient is not zero
_PROBES = 8  # places that are changed one by one, where there is no gradient
_PROJECTIONS = frozenset({"Linear", "Dense", "EinsumDense", "DenseGeneral", "LinearGeneral", "MatMul", "Gemm"})
"""Kinds of layers whose output, of tokens, is a step inside of an attention or a network, such as queries and keys."""


def seek_layer(call: Call, ground: Ground) -> Call:
    """The call with the last layer that serves.

    Raises:
        LayerError: There is none.
    """
    seeker = _Seeker(call, ground)
    names = tuple(seeker.candidates())
    return replace(_found(call, seeker, iter(names)), choices=names)


def settle_layer(call: Call, prepared: Prepared) -> Call:
    """The call, with another layer where the one that was found is not in the translated model.

    Raises:
        LayerError: None that serves is there.
    """
    if not call.plan.seeks_layer or prepared.layer_name(call.plan.layers[0]) is not None:
        return call
    left = [name for name in call.choices if prepared.layer_name(name) is not None]
    return _found(call, _Seeker(call, ground_of(call)), iter(left))


def ground_of(call: Call) -> Ground:
    """The model of a call, to look at its layers."""
    return Ground(call.original, call.inputs, call.fingerprint, call.purity.by_sample)


def place(call: Call, ground: Ground, name: str, reshape: Any, *, thorough: bool = True) -> Placed:
    """Where the values of a layer of the call lie in the image (see `cfi_core.grid.place_layer`)."""
    shape = call.layer_shapes[name]
    if ground.by_sample or reshape is not None:
        return place_layer(ground, name, shape, reshape, thorough=thorough)
    if ground.image is not None and len(shape) == len(ground.space) + 2:
        return Placed(None, ground.axes)  # as convolutions have them: there is no order of tokens to look for
    return Placed(None, found="not looked for: the samples of the model influence each other, or may")


def cotangents_of(call: Call) -> list[np.ndarray]:
    """For each output of the model what makes the target's gradient of the outputs' one.

    One at the target, for an index or of an output with one value per sample; noise where the toolset's own words name
    what is explained. A function of the outputs has none before it is run: see `_Seeker.gradients`.
    """
    target, generator = call.target, np.random.default_rng(0)
    made = [np.zeros(output.shape, np.float32) for output in call.output_arrays]
    if is_exact(call):
        chosen = made[call.output]
        for sample, index in enumerate(target.indices(len(chosen)) if target and target.index else [()] * len(chosen)):
            chosen[sample, *index] = 1
        return made
    for position in range(len(made)) if target is None or target.output is None else [call.output]:
        made[position][...] = generator.standard_normal(made[position].shape)
    return made


def is_exact(call: Call) -> bool:
    """Whether these are the target's own, and no noise."""
    target, outputs = call.target, call.output_arrays
    if target is None or target.function is not None or not outputs[call.output].ndim:
        return False
    return bool(target.index) or outputs[call.output].size == len(outputs[call.output])


def _found(call: Call, seeker: _Seeker, names: Iterator[str]) -> Call:
    """With the first of these layers whose values lie in space and are reached there."""
    passed: list[str] = []
    for name in names:
        shape = seeker.shape(name)
        here = replace(call, layer_shapes={name: shape})
        placed = place(here, seeker.ground, name, call.plan.arguments.reshape, thorough=False)
        if seeker.serves(name, placed) and seeker.reaches(name, placed.layout):
            said = f"{name!r}, the last layer with axes of space that the target's gradient reaches"
            return replace(here, plan=replace(call.plan, layers=(name,)), placed={name: placed}, sought=said)
        passed.append(name)
    looked = f" Looked at: {', '.join(passed[:6])}." if passed else ""
    raise LayerError(
        f"layer='auto' found no layer whose output has axes of space (height and width, or tokens on a grid) that the "
        f"target reaches.{looked} Pass a layer by name (cfi.layers(model, inputs) shows all shapes), with "
        f"reshape=(height, width) where its tokens lie on a grid, or use a method of the inputs, such as saliency."
    )


@dataclass(frozen=True, eq=False)
class _Seeker:
    """Looks for a layer that a map can be made of."""

    call: Call
    ground: Ground

    def candidates(self) -> Iterator[str]:
        """Layers whose output may have space, the last one in front; steps inside of an attention after all others."""
        adapter, model = self.call.original.adapter, self.call.original.model
        kinds = {layer.name: layer.kind for layer in adapter.layers(model)}
        names = [name for name in reversed([*self.ground.activations]) if self._may_have_space(name)]
        names.sort(key=lambda name: self._has_tokens(name) and kinds.get(name) in _PROJECTIONS)
        return iter(names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a layer's output, for all samples."""
        first, *rest = self.ground.activations[name].shape
        return (first * self.call.inputs.samples, *rest)

    def serves(self, name: str, placed: Placed) -> bool:
        """Whether its values lie in space."""
        if placed.layout is not None:
            return prod(placed.layout.space) > 1
        if self.ground.image is None:
            return True
        if len(self.shape(name)) != len(self.ground.space) + 2 or placed.found:
            return False
        # Where a model has tokens, what has as many axes as an image may be anything (heads, weights of attention).
        return not any(map(self._has_tokens, self.ground.activations)) or moves_along(self.ground, name)

    def reaches(self, name: str, layout: Layout | None) -> bool:
        """Whether the target depends on the layer's output at its places in space."""
        shape = self.shape(name)
        channel = self._channel(shape, name)
        if layout is None and channel is None:
            return False
        if layout is None:
            space = tuple(size for axis, size in enumerate(shape) if axis not in (0, channel))
            layout = Layout(space, tuple(range(prod(space))), channel or 0)
        if self.gradients is None:
            return self._reaches_by_change(name, layout)
        gradient = self.gradients.get(name)
        return gradient is not None and bool((layout.in_space(gradient) != 0).any(-1).mean() >= _REACHED)

    def _may_have_space(self, name: str) -> bool:
        shape = self.shape(name)
        channel = self._channel(shape, name)
        if channel is None or prod(shape[1:]) == shape[channel]:
            return False
        if self.gradients is None:
            return True
        moved = (self.gradients.get(name, np.zeros(shape)) != 0).any(channel)
        return bool(moved.mean() >= _REACHED and moved.sum() >= 2 * len(moved))

    def _has_tokens(self, name: str) -> bool:
        return self.ground.image is not None and self.ground.activations[name].ndim == 3

    def _channel(self, shape: Sequence[int], name: str) -> int | None:
        original = self.call.original
        return original.adapter.channel_axis(original.model, shape, layer=name) if len(shape) > 2 else None

    @cached_property
    def gradients(self) -> Mapping[str, np.ndarray] | None:
        """Of what is explained, at every layer; None where there are none."""
        call, adapter = self.call, self.call.original.adapter
        model, cotangents = self.ground.twin, cotangents_of(call)
        if call.target is not None and call.target.function is not None:
            # What a function chooses, such as one of many boxes, may depend on less than all that it chooses from.
            model = adapter.ended_by(model, Values.of(self._function))
            cotangents = [np.ones(call.inputs.samples, np.float32)]
        try:
            return None if model is None else adapter.layer_gradients(model, call.inputs.passed, cotangents, None)
        except NoGradientError:
            return None

    def _function(self, outputs: Any) -> Any:
        """What the target makes of the model's outputs."""
        target = self.call.target
        assert target is not None and target.function is not None  # asked for where there is one
        return target.function(outputs if target.output is None else flatten(outputs)[self.call.output])

    def _reaches_by_change(self, name: str, layout: Layout) -> bool:
        """Changes the output at some places, one by one, and looks at what is explained."""
        call, adapter = self.call, self.call.original.adapter
        runner = adapter.runner(self.ground.twin, call.inputs.passed, [name])
        (activation,) = runner.run(0, call.inputs.passed)
        values = np.array(adapter.to_numpy(activation))
        before, flat = self._explained(runner, activation), layout.positions(values)
        places = np.linspace(0, len(layout.order) - 1, min(_PROBES, len(layout.order))).astype(int)
        reached = 0
        for place in places:
            changed = np.array(flat)
            changed[:, layout.order[place]] = flat[:, layout.order[place]] * -1 + flat.std()
            last = changed.reshape(np.moveaxis(values, layout.channel, -1).shape)
            tensor = adapter.tensor(np.moveaxis(last, -1, layout.channel).astype(values.dtype), call.original.model)
            reached += not np.array_equal(before, self._explained(runner, tensor))
        return reached >= max(2, _REACHED * len(places))

    def _explained(self, runner: Any, activation: Any) -> np.ndarray:
        call = self.call
        outputs = runner.run(1, (*call.inputs.passed, activation))
        if call.target is not None and call.target.function is not None:
            leaves = iter(outputs)
            values = one_each(self._function(map_structure(lambda _: next(leaves), call.outputs)))
            return np.asarray(adapter_of(values).to_numpy(values))
        output = np.asarray(call.original.adapter.to_numpy(outputs[call.output]))
        if call.target is None or not call.target.index:
            return output
        return np.array([output[sample, *index] for sample, index in enumerate(call.target.indices(len(output)))])
