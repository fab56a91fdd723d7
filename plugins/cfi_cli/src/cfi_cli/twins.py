"""Two models of whatever frameworks on the same inputs: outputs, gradients, and which layer is which.

The measurements and their judgement are those of a translation's certificate: a difference is rounding up to what is
measured of the models' own rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

import cfi_core as cfi
from cfi_cli.models import Loaded
from cfi_cli.predictions import is_distribution, softmax
from cfi_core.certificate import certify
from cfi_core.distance import Side
from cfi_core.errors import FOREIGN, summary
from cfi_core.layer_map import find_layers, first_divergence

_ALIKE = 1e-4


@dataclass(frozen=True)
class Pair:
    """A layer, and which one of the other model gives the same; empty where none does."""

    layer: str
    other: str
    difference: float | None


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether two models compute the same.

    Attributes:
        same: Whether they do, within rounding.
        faults: What speaks against it.
        hints: What may be the reason.
        input_axes: For each input, the order in which the other model has the axes of the first; None if the same.
        output_axes: The same of the outputs.
        certificate: The measurements; None where they do not even give the same shapes.
        layers: Layers of the first model, and their counterparts.
    """

    same: bool
    faults: tuple[str, ...]
    hints: tuple[str, ...] = ()
    input_axes: tuple[tuple[int, ...] | None, ...] = ()
    output_axes: tuple[tuple[int, ...] | None, ...] = ()
    certificate: cfi.Certificate | None = None
    layers: tuple[Pair, ...] = ()


def compare_models(first: Loaded, second: Loaded, inputs: Any, *, as_second: bool = False) -> Verdict:
    """Compares them.

    Args:
        first: The model whose axes the inputs have.
        second: The other model.
        inputs: An array, or a tuple of arrays for several inputs.
        as_second: The inputs have the axes of the second model instead, as it alone declares some.

    Raises:
        InputError: One of the models cannot be run on these inputs.
    """
    arrays = _in_order(first, second, inputs)
    if as_second:
        arrays = [_turn(array, _input_order(second, first, i, array.shape)) for i, array in enumerate(arrays)]
    axes = tuple(_input_order(first, second, i, array.shape) for i, array in enumerate(arrays))
    sides = (_side(first), _side(second, axes))
    outputs, others = (_run(loaded, side, arrays) for loaded, side in zip((first, second), sides, strict=True))
    shapes, other_shapes = ([one.shape for one in given] for given in (outputs, others))
    orders = tuple(map(_output_order, shapes, other_shapes)) if len(shapes) == len(other_shapes) else ()
    if not orders or "no" in orders:
        fault = f"outputs of shape {_list(shapes)} and {_list(other_shapes)}"
        return Verdict(False, (fault,), input_axes=axes)
    output_axes = tuple(None if order == "no" else order for order in orders)
    sides = (sides[0], _side(second, axes, output_axes))
    certificate = certify(*sides, arrays, outputs=outputs)
    faults, hints = list(certificate.faults), [] if certificate.faithful else list(_hints(outputs, others))
    if not certificate.faithful:
        with suppress(*FOREIGN):
            if parted := first_divergence(*sides, arrays):
                hints.insert(0, str(parted))
    return Verdict(
        certificate.faithful,
        tuple(faults),
        tuple(hints),
        axes,
        output_axes,
        certificate,
        _layers(sides, arrays, certificate),
    )


def _in_order(first: Loaded, second: Loaded, inputs: Any) -> list[np.ndarray]:
    """The arrays in the order in which both models take them."""
    if not isinstance(inputs, dict):
        return list(inputs) if isinstance(inputs, tuple) else [np.asarray(inputs)]
    names, others = (loaded.adapter.input_names(loaded.native) for loaded in (first, second))
    if names is None or sorted(names) != sorted(inputs):
        known = ", ".join(names or ()) or "names that are not known"
        raise cfi.InputError(f"{first.name} takes {known}, and the file holds {', '.join(inputs)}.")
    if others is not None and sorted(others) == sorted(names) and others != names:
        raise cfi.InputError(f"{second.name} takes {', '.join(others)}, in another order than {first.name}.")
    return [np.asarray(inputs[name]) for name in names]


def _side(loaded: Loaded, input_axes: Any = (), output_axes: Any = ()) -> Side:
    return Side(loaded.adapter, loaded.adapter.twin(loaded.native), input_axes, output_axes)


def _run(loaded: Loaded, side: Side, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    try:
        return side.outputs(arrays)
    except FOREIGN as error:
        if isinstance(error, cfi.CFIError):
            raise
        shapes = _list([array.shape for array in arrays])
        raise cfi.InputError(f"{loaded.name} cannot be run on inputs of shape {shapes} ({summary(error)}).") from error


def _list(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "none"


def _turn(array: np.ndarray, order: tuple[int, ...] | None) -> np.ndarray:
    return array if order is None else np.ascontiguousarray(np.transpose(array, order))


def _moves(rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Orders of axes that move the channels to the end, and to the front."""
    middle = tuple(range(1, rank - 1))
    return (0, *range(2, rank), 1), (0, rank - 1, *middle)


def _input_order(one: Loaded, other: Loaded, position: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order in which the other model has the axes of an input; None if the same."""
    if len(shape) < 3:
        return None
    declared = other.input_shapes
    for order in (None, *_moves(len(shape))) if declared and position < len(declared) else ():
        turned = shape if order is None else tuple(shape[axis] for axis in order)
        if _fits(turned, declared[position]):  # type: ignore[index]
            return order
    if declared:
        return None
    place = one.adapter.channel_axis(one.native, shape)
    for order in _moves(len(shape)):
        turned = tuple(shape[axis] for axis in order)
        there, same = other.adapter.channel_axis(other.native, turned), other.adapter.channel_axis(other.native, shape)
        if place is not None and there is not None and order[there] == place and same != place:
            return order
    return None


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(
        size in (None, own) for own, size in zip(shape[1:], declared[1:], strict=True)
    )


def _output_order(shape: tuple[int, ...], other: tuple[int, ...]) -> Any:
    """The order in which the other model has the axes of an output; None if the same, "no" if there is none."""
    if shape == other:
        return None
    if len(shape) != len(other) or len(shape) < 3:
        return "no"
    return next((order for order in _moves(len(shape)) if tuple(shape[axis] for axis in order) == other), "no")


def _hints(outputs: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[str]:
    """The usual reasons of a difference."""
    one, other = outputs[0], others[0]
    if one.shape != other.shape or one.ndim != 2 or one.shape[1] < 2:
        return []
    for name, scores, shares in (("other", one, other), ("first", other, one)):
        if is_distribution(shares) and np.allclose(softmax(np.asarray(scores, np.float64)), shares, atol=_ALIKE):
            return [f"the {name} model gives the softmax of what its counterpart gives"]
    order = np.argmax(np.abs(one[0][:, None] - other[0][None]) < _ALIKE * max(float(np.abs(one).max()), 1e-30), axis=1)
    if sorted(order) == list(range(one.shape[1])) and np.allclose(one, other[:, order], rtol=_ALIKE, atol=_ALIKE):
        return ["they give the same classes in another order"]
    return []


def _layers(sides: tuple[Side, Side], arrays: Sequence[np.ndarray], certificate: cfi.Certificate) -> tuple[Pair, ...]:
    """Which layer is which; nothing where a model shows none."""
    samples = [np.concatenate([array[:1], array[-1:]]) if len(array) > 1 else array for array in arrays]
    try:
        if not certificate.faithful:
            return tuple(_namesakes(sides, samples))
        found = find_layers(*sides, samples, certificate)
    except FOREIGN:  # evidence besides; the verdict rests on what was measured
        return ()
    matches = found.matches
    return tuple(
        Pair(name, matches[name].name, matches[name].difference) if name in matches else Pair(name, "", None)
        for name in found.compared
    )


def _namesakes(sides: tuple[Side, Side], arrays: Sequence[np.ndarray]) -> Iterator[Pair]:
    """Layers of two models that differ, beside those of the same name: how far the values there are apart."""
    read, other = (side.adapter.activations(side.model, side.tensors(arrays)) for side in sides)
    for name, values in read.items():
        order: Any = _output_order(values.shape, other[name].shape) if name in other else "no"
        if order == "no" or not np.issubdtype(values.dtype, np.floating):
            yield Pair(name, "", None)
            continue
        apart = np.linalg.norm(np.asarray(_turn(values, order) - other[name], np.float64))
        yield Pair(name, name, float(apart / max(float(np.linalg.norm(values)), 1e-30)))
