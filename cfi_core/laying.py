"""The values of layers laid out over the image: tokens on their grid, and what the other tokens hold apart from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cfi_core.contract import Axes
from cfi_core.errors import FOREIGN, summary
from cfi_core.framework import Placed
from cfi_core.records import Call, Carried
from cfi_core.reference import reference_of
from cfi_core.seeking import cotangents_of, is_exact

OTHERS = "prefix_tokens"
"""The extra that holds what the tokens have that are no part of the grid (a class token, registers, padding)."""


@dataclass(frozen=True, eq=False)
class LaidOut:
    """Values with the names of their axes.

    Attributes:
        values: One array for each layer.
        dims: Names of the axes of each.
        extras: What tokens hold that are no part of a grid.
        told: For each layer, where its values lie and how that was found.
    """

    values: tuple[np.ndarray, ...]
    dims: tuple[tuple[str, ...], ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


def lay_out(
    call: Call,
    layers: Sequence[str],
    carried: Carried,
    axes: Axes,
    values: Sequence[np.ndarray],
    dims: Sequence[tuple[str, ...]],
) -> LaidOut:
    """Values of a layer's tokens as `(sample, *space, channel)`; all others as they are."""
    told = {name: _tell(placed) for name, placed in call.placed.items() if placed.found and name in layers}
    placed = [call.placed.get(name, Placed(None)) for name in layers]
    if carried.shown and len(placed) == 1:
        extras, share = _share(call, carried, layers[0], placed[0])
        if share:
            told[layers[0]] = {**told[layers[0]], OTHERS: share}
        return LaidOut(tuple(values), tuple(dims), extras, told)
    if axes is not Axes.LAYER or len(placed) != len(values):
        return LaidOut(tuple(values), tuple(dims), told=told)
    parts = [_lay_one(one, array, names) for one, array, names in zip(placed, values, dims, strict=True)]
    others = [_others(one, array) for one, array in zip(placed, values, strict=True) if one.others and array.ndim > 2]
    for name, one in zip(layers, placed, strict=True):
        if one.layout is not None and one.layout.others:
            told[name] = {**told[name], OTHERS: f"{', '.join(one.others)}: their values, by channel"}
    extras = {OTHERS: others[0] if len(others) == 1 else tuple(others)} if others else {}
    return LaidOut(tuple(one for one, _ in parts), tuple(names for _, names in parts), extras, told)


def unshow(
    call: Call, layer: str, channel: int, values: np.ndarray, dims: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values of a layer that was shown as a map, with its channels or without them, and the names of their axes.

    Args:
        call: The call.
        layer: Name of the layer.
        channel: Channel axis of the map.
        values: A map, or values with the map's axes.
        dims: Names of the axes of the layer's own output.
    """
    shape, placed = call.layer_shapes[layer], call.placed.get(layer, Placed(None))
    own = call.original.adapter.channel_axis(call.original.model, shape, layer=layer)
    own = own if placed.layout is None else placed.layout.channel
    names = placed.axes
    if placed.layout is None:
        names = tuple(name for axis, name in enumerate(dims) if axis not in (0, own))
    if values.ndim == len(names) + 1:
        return values, ("sample", *names)
    place = own if len(shape) == values.ndim and own is not None else values.ndim - 1
    last = dims[own] if placed.layout is None and own is not None else "channel"
    return np.moveaxis(values, channel, place), ("sample", *names[: place - 1], last, *names[place - 1 :])


def _others(placed: Placed, values: np.ndarray) -> np.ndarray:
    assert placed.layout is not None  # others are those of a layout
    return placed.layout.elsewhere(values)


def _lay_one(placed: Placed, values: np.ndarray, dims: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    layout = placed.layout
    if layout is None or values.ndim <= layout.channel:
        return values, dims
    if layout.is_plain and values.ndim == len(layout.space) + 2:
        names = iter(placed.axes)
        rest = tuple("channel" if axis == layout.channel else next(names) for axis in range(1, values.ndim))
        return values, ("sample", *rest)
    return layout.in_space(values), ("sample", *placed.axes, "channel")


def _tell(placed: Placed) -> dict[str, Any]:
    if placed.layout is None:
        return {"found": placed.found}
    return {"size": placed.layout.space, "found": placed.found}


def _share(call: Call, carried: Carried, layer: str, placed: Placed) -> tuple[dict[str, Any], str]:
    """Of a map: what goes through the other tokens, as activation times gradient summed over the channels."""
    layout = placed.layout
    if layout is None or not layout.others:
        return {}, ""
    names = ", ".join(placed.others)
    if not is_exact(call):
        return {}, f"{names}: not part of the map; their share is told for a class or an index of the output alone"
    reference = reference_of(call, cut=carried.cut)
    try:
        if reference is None:
            raise LookupError("the model's logits were not found in it")
        adapter = call.original.adapter
        arguments = (reference.model, call.inputs.passed)
        activation = adapter.activations(*arguments, [layer])[layer]
        gradient = adapter.layer_gradients(*arguments, cotangents_of(call), [layer])[layer]
    except FOREIGN as error:  # the framework may have no gradients; the map is not lost with it
        return {}, f"{names}: not part of the map; their share could not be measured ({summary(error)})"
    share = (layout.elsewhere(activation) * layout.elsewhere(gradient)).sum(-1)
    return {OTHERS: share}, f"{names}: not part of the map; activation times gradient, summed over the channels"
