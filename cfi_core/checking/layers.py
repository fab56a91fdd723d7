"""Layers of a call: where their values lie in the image, and which is the last one that a map can be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError, LayerError, ModelWarning, warn
from cfi_core.framework import Layer, Placed
from cfi_core.records import Call, Original, Plan
from cfi_core.seeking import ground_of, place, seek_layer
from cfi_core.specs import Kind

AUTO = "auto"
"""As a layer: the last one that serves."""

_HOW = "Pass layer='auto' for the last layer that serves (cfi.layers(model, inputs) shows all shapes)"


def is_auto(original: Original, layer: Any) -> bool:
    """Whether the user asks for the last layer that serves, and not for a layer of that name."""
    if not isinstance(layer, str) or layer != AUTO:
        return False
    return all(one.name != AUTO for one in original.adapter.layers(original.model))


def look_at_layers(call: Call) -> Call:
    """The call with its layer found, if it is to be, and with the place of the layers' values in the image.

    Args:
        call: Complete but for that.

    Raises:
        LayerError: The method makes a map, and the layer gives none; or none of the layers does.
        ArgumentError: `reshape` does not fit the layers.

    Warns:
        ModelWarning: A map is wanted of tokens whose places are not known.
    """
    plan, reshape = call.plan, call.plan.arguments.reshape
    ground = ground_of(call)
    if plan.seeks_layer and plan.arguments.neuron is not None:
        raise ArgumentError("layer='auto' finds a layer for maps, and a neuron is a unit of one layer: name the layer.")
    if plan.seeks_layer:
        call = seek_layer(call, ground)
    elif plan.arguments.defaults == "toolset" and reshape is None:
        return call  # exactly what the toolset's own users get
    elif plan.layers and _makes_maps(plan):
        placed = {name: place(call, ground, name, reshape) for name in plan.layers if name in call.layer_shapes}
        call = replace(call, placed=placed)
    elif reshape is not None and not plan.needs_layer:
        raise ArgumentError(f"reshape= describes tokens of a layer, and {plan.method.key} gives no values of one.")
    if plan.method.maps_layer and "layer" in plan.method.required:
        _check_maps(call)
    return call


def _makes_maps(plan: Plan) -> bool:
    """Whether the values are of a layer's output, or made of its axes."""
    at_input = any(plan.arguments.own.get(name) for name in plan.method.native_only)
    return plan.method.kind in (Kind.LAYER, Kind.ATTRIBUTION) and not at_input


def _check_maps(call: Call) -> None:
    """Refuses layers without space, and tells of tokens that make no map."""
    key = call.plan.method.key
    for name in call.plan.layers:
        shape = call.layer_shapes.get(name)
        placed = call.placed.get(name, Placed(None))
        if shape is None or placed.layout is not None:
            continue
        if len(shape) < 3:
            raise LayerError(
                f"{key} makes a map of a layer's axes of space, and layer {name!r} gives an output of shape {shape}, "
                f"which has none. {_HOW}, or reshape= if its values do lie on a grid: reshape=(height, width)."
            )
        if placed.found and call.plan.arguments.reshape is None:
            warn(
                f"{key} makes no map at layer {name!r}: {placed.found}. {_HOW}, or say where its tokens lie: "
                f"reshape=('class', height, width).",
                ModelWarning,
            )


def describe_mistaken(reference: object, layers: Sequence[Layer]) -> str:
    """What was given as a layer that is none of the model's, and what to give instead."""
    names, kind = [layer.name for layer in layers], type(reference).__name__
    if isinstance(reference, int | np.integer) and not isinstance(reference, bool):
        places = range(-len(names), len(names))
        meant = f" The one at {reference} in cfi.layers(model) is {names[reference]!r}." if reference in places else ""
        return f"layer={reference!r} is an index, and layers go by name.{meant}"
    if isinstance(reference, type):
        same = [layer.name for layer in layers if layer.kind.rpartition(".")[2] == reference.__name__]
        hint = f" Of this class are {', '.join(map(repr, same[:6]))}." if same else ""
        return f"layer= is the class {reference.__name__}, and no layer of the model.{hint}"
    if hasattr(reference, "shape") and hasattr(reference, "dtype"):
        return f"layer= is a {kind} of numbers, such as a layer's weight. Pass the layer that holds it, or its name."
    name = getattr(reference, "name", None)
    if isinstance(name, str) and name in names:
        return (
            f"The {kind} given as layer is not part of this model: it is another model's (or copy's) layer, of a "
            f"name that this model has, too. Pass layer={name!r} for this model's."
        )
    return f"The {kind} given as layer is not part of this model. Pass one of its own layers, or a name."
