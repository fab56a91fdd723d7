"""Layers of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch

from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value, plain_axes


def together(call: Call, values: Sequence[Value]) -> list[Value]:
    """Values of one rank in one layout: that of the first that is not Keras's, so that images stay channels-first."""
    if all(value.flattened is not None and value.flattened == values[0].flattened for value in values):
        return list(values)
    values = [call.builder.plain(value) if value.flattened is not None else value for value in values]
    axes = next((value.axes for value in values if not value.is_plain), plain_axes(values[0].rank))
    return [call.builder.to(value, axes) for value in values]


def _merge(call: Call, combine: Callable[[list[Any]], Any]) -> Value:
    values, rank = list(call.inputs), len(call.output.shape)
    if len({value.rank for value in values}) > 1:
        # Keras puts the missing axes after the sample axis, where both have one.
        values = [_expanded(call, value, rank) for value in values]
    values = together(call, values)
    node = call.builder.marker(call.path, combine([value.node for value in values]))
    return call.result(node, values[0].axes, flattened=values[0].flattened)


def _expanded(call: Call, value: Value, rank: int) -> Value:
    value = call.builder.plain(value)
    shape = (value.shape[0], *(1,) * (rank - value.rank), *value.shape[1:])
    return Value(call.builder.reshape(value.node, shape), shape, plain_axes(rank), value.dtype)


def _pairwise(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def merge(call: Call) -> Value:
        return _merge(call, lambda nodes: reduce(lambda one, other: call.builder.function(function, one, other), nodes))

    return merge


for _name, _function in {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Maximum": torch.clamp_min,  # as among operations
    "Minimum": torch.clamp_max,
}.items():
    translates(f"layers.{_name}")(_pairwise(_function))


@translates("layers.Average")
def average(call: Call) -> Value:
    """The mean of the inputs."""

    def combine(nodes: list[Any]) -> Any:
        total = reduce(lambda one, other: call.builder.function(torch.add, one, other), nodes)
        return call.builder.function(torch.div, total, len(nodes))

    return _merge(call, combine)


@translates("layers.Concatenate")
def concatenate(call: Call) -> Value:
    """The inputs one after the other."""
    return concatenated(call, call.inputs, call.operation.axis, named=True)


def concatenated(call: Call, given: Sequence[Value], axis: int, named: bool = False) -> Value:
    """Values one after the other along one of Keras's axes."""
    values = [call.builder.plain(value) if value.flattened is not None else value for value in given]
    values = together(call, values)
    node = call.builder.function(torch.cat, [value.node for value in values], values[0].at(axis))
    return call.result(call.builder.marker(call.path, node) if named else node, values[0].axes)


@translates("layers.Dot")
def dot(call: Call) -> Value:
    """Sums of products along one axis of each input."""
    layer = call.operation
    first, second = (call.builder.plain(value) for value in call.inputs)
    given = layer.axes
    one, other = (given, given) if isinstance(given, int) else given
    one, other = one % first.rank, other % second.rank
    call.require(first.rank in (2, 3) and second.rank in (2, 3) and one > 0 and other > 0, "its inputs have more axes")
    builder = call.builder
    letters, others = "bij"[: first.rank], "bkl"[: second.rank]
    others = others[:other] + letters[one] + others[other + 1 :]
    result = "b" + "".join(letter for letter in letters[1:] + others[1:] if letter != letters[one])
    nodes = [first.node, second.node]
    if layer.normalize:
        nodes = [_normalized(call, value.node, axis) for value, axis in ((first, one), (second, other))]
    node = builder.function(torch.einsum, f"{letters},{others}->{result}", *nodes)
    if result == "b":
        node = builder.function(torch.unsqueeze, node, 1)
    return call.result(builder.marker(call.path, node))


def _normalized(call: Call, node: Any, axis: int) -> Any:
    builder = call.builder
    squares = builder.function(torch.sum, builder.function(torch.square, node), axis, keepdim=True)
    scale = builder.function(torch.rsqrt, builder.function(torch.clamp, squares, min=1e-12))
    return builder.function(torch.mul, node, scale)
