"""LSTM, GRU and SimpleRNN as torch's own modules, masks included; TimeDistributed.

A masked step leaves Keras's state as it is and repeats the output before it. So the steps that the mask leaves are
moved to the front, the torch module runs over them, and each step reads the output of the last step that was left.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import nn

from cfi_translate.keras_torch.builder import make, tensor_of
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value
from cfi_translate.recurrent import RecurrentCell, reorder_gates

_KINDS = {keras.layers.LSTMCell: "LSTM", keras.layers.GRUCell: "GRU", keras.layers.SimpleRNNCell: "RNN"}
_MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


@dataclass(frozen=True)
class Steps:
    """What a recurrent module gave.

    Attributes:
        all: Node of the outputs of all steps, in the order in which they were taken.
        last: Node of the last output.
        states: Nodes of the last states.
    """

    all: Any
    last: Any
    states: tuple[Any, ...]


@translates("layers.LSTM", "layers.GRU", "layers.SimpleRNN", "layers.RNN")
def recurrent(call: Call) -> list[Value]:
    """A recurrent module, and what Keras takes from its outputs."""
    layer, builder = call.operation, call.builder
    value = builder.plain(call.input)
    mask = call.argument(1, "mask") if "mask" in call.kwargs else None
    initial = call.kwargs.get("initial_state", call.args[1] if len(call.args) > 1 else None)
    states = [] if initial is None else list(initial) if isinstance(initial, list | tuple) else [initial]
    call.require(all(isinstance(state, Value) for state in states), "its initial state is a constant")
    node, kept = value.node, _mask_node(call, mask)
    if layer.go_backwards:
        node, kept = _flipped(call, node), None if kept is None else _flipped(call, kept)
    steps = run(call, layer, call.path, node, kept, tuple(builder.plain(state).node for state in states))
    outputs = [builder.marker(f"{call.path}_output", steps.all if layer.return_sequences else steps.last)]
    if layer.return_state:
        outputs += steps.states
    return [call.result(node, position=position) for position, node in enumerate(outputs)]


@translates("layers.Bidirectional")
def bidirectional(call: Call) -> list[Value]:
    """A bidirectional module; two modules where a mask or different layers need them."""
    layer, builder = call.operation, call.builder
    forward, backward = layer.forward_layer, layer.backward_layer
    call.require(call.argument(2, "initial_state") is None and len(call.args) < 2, "it is called with an initial state")
    call.require(not forward.go_backwards and backward.go_backwards, "its layers do not go forwards and backwards")
    value, mask = builder.plain(call.input), _mask_node(call, call.kwargs.get("mask"))
    if mask is None and _alike(forward, backward):
        one, other = _both_ways(call, forward, backward, value)
    else:
        one = run(call, forward, call.child(forward.name), value.node, mask, ())
        flipped = None if mask is None else _flipped(call, mask)
        other = run(call, backward, call.child(backward.name), _flipped(call, value.node), flipped, ())
        other = Steps(_flipped(call, other.all), other.last, other.states)
    nodes = [one.all, other.all] if layer.return_sequences else [one.last, other.last]
    outputs = _merged(call, layer.merge_mode, nodes)
    if len(outputs) == 1:
        outputs = [builder.marker(f"{call.path}_output", outputs[0])]
    if layer.return_state:
        outputs = [*outputs, *one.states, *other.states]
    return [call.result(node, position=position) for position, node in enumerate(outputs)]


def run(call: Call, layer: Any, path: str, node: Any, mask: Any, states: tuple[Any, ...]) -> Steps:
    """Runs a layer's torch module.

    Args:
        call: The call that it is part of.
        layer: Keras's recurrent layer.
        path: Name of the module.
        node: Samples × steps × features, in the order in which the steps are taken.
        mask: Samples × steps; None without a mask.
        states: Initial states.
    """
    builder, cell = call.builder, _cell(call, layer)
    kind = type(cell).__name__
    name = builder.shared(layer, path, lambda: _module([cell]))
    if mask is not None:
        order = builder.function(torch.argsort, builder.function(torch.logical_not, mask), dim=1, stable=True)
        node = builder.function(torch.take_along_dim, node, builder.function(torch.unsqueeze, order, -1), 1)
    initial = tuple(builder.function(torch.unsqueeze, state, 0) for state in states)
    arguments = () if not initial else (initial,) if kind == "LSTMCell" else (initial[0],)
    made = builder.call(name, node, *arguments)
    everything, final = (builder.function(operator.getitem, made, position) for position in (0, 1))
    if mask is None:
        states_after = _states(call, kind, final, 0)
        last = builder.function(torch.select, everything, 1, -1)
        return Steps(everything, last, (last, *states_after[1:]))
    call.require(not layer.return_state or kind != "LSTMCell", "torch gives no cell state of a masked step")
    call.require(not states, "it is called with a mask and an initial state")
    # How many steps were left up to each: 0 before the first, where Keras gives zeros.
    count = builder.function(torch.cumsum, mask, 1)
    before = builder.function(torch.constant_pad_nd, everything, (0, 0, 1, 0))
    at = builder.function(torch.unsqueeze, count, -1)
    outputs = builder.function(torch.take_along_dim, before, at, 1)
    last = builder.function(torch.select, outputs, 1, -1)
    if layer.zero_output_for_mask:
        hidden = builder.function(torch.unsqueeze, builder.function(torch.logical_not, mask), -1)
        shown = builder.function(torch.masked_fill, outputs, hidden, 0.0)
        return Steps(shown, builder.function(torch.select, shown, 1, -1), (last,))
    return Steps(outputs, last, (last,))


def _both_ways(call: Call, forward: Any, backward: Any, value: Value) -> tuple[Steps, Steps]:
    builder, kind, units = call.builder, type(forward.cell).__name__, forward.cell.units
    cells = [_cell(call, forward), _cell(call, backward)]
    name = builder.shared(call.operation, call.path, lambda: _module(cells))
    made = builder.call(name, value.node)
    everything, final = (builder.function(operator.getitem, made, position) for position in (0, 1))
    one = builder.function(torch.narrow, everything, 2, 0, units)
    other = builder.function(torch.narrow, everything, 2, units, units)
    first = _states(call, kind, final, 0)
    second = _states(call, kind, final, 1)
    return (
        Steps(one, builder.function(torch.select, one, 1, -1), first),
        Steps(other, builder.function(torch.select, other, 1, 0), second),
    )


def _states(call: Call, kind: str, final: Any, direction: int) -> tuple[Any, ...]:
    builder = call.builder
    tensors = [builder.function(operator.getitem, final, i) for i in (0, 1)] if kind == "LSTMCell" else [final]
    return tuple(builder.function(torch.select, tensor, 0, direction) for tensor in tensors)


def _merged(call: Call, mode: str | None, nodes: list[Any]) -> list[Any]:
    builder = call.builder
    if mode == "concat":
        return [builder.function(torch.cat, nodes, -1)]
    if mode == "sum":
        return [builder.function(torch.add, *nodes)]
    if mode == "ave":
        return [builder.function(torch.div, builder.function(torch.add, *nodes), 2)]
    return [builder.function(torch.mul, *nodes)] if mode == "mul" else nodes


def _cell(call: Call, layer: Any) -> Any:
    """The layer's cell, if torch has the same."""
    call.require(isinstance(layer, keras.layers.RNN), f"{type(layer).__name__} is no recurrent layer")
    cell = layer.cell
    kind = _KINDS.get(type(cell))
    if kind is None:
        raise call.refusal(f"torch has no recurrent layer like its {type(cell).__name__}")
    call.require(not layer.stateful, "it is stateful")
    gates = () if kind == "RNN" else (_name(cell.recurrent_activation),)
    states = (_name(cell.activation),) * (2 if kind == "LSTM" else 1)
    RecurrentCell(kind, (*gates, *states), kind == "GRU" and cell.reset_after).require_in_torch()
    return cell


def _name(activation: Any) -> str:
    name = getattr(activation, "__name__", type(activation).__name__)
    return name if activation is getattr(keras.activations, name, None) else f"another {name}"


def _alike(forward: Any, backward: Any) -> bool:
    one, other = getattr(forward, "cell", None), getattr(backward, "cell", None)
    same = ("units", "use_bias", "activation", "recurrent_activation", "reset_after")
    return type(one) is type(other) and all(getattr(one, name, None) == getattr(other, name, None) for name in same)


def _module(cells: Sequence[Any]) -> nn.Module:
    """The torch module of one cell, or of one for each direction."""
    cell = cells[0]
    kind = _KINDS[type(cell)]
    tensors: dict[str, torch.Tensor | None] = {}
    for one, suffix in zip(cells, ("", "_reverse"), strict=False):
        given = {
            "weight_ih": tensor_of(one.kernel, axes=(1, 0)),
            "weight_hh": tensor_of(one.recurrent_kernel, axes=(1, 0)),
        }
        if one.use_bias:
            bias = tensor_of(one.bias)
            inner, outer = (bias[0], bias[1]) if bias.ndim == 2 else (bias, torch.zeros_like(bias))
            given |= {"bias_ih": inner, "bias_hh": outer}
        for name, tensor in given.items():
            tensors[f"{name}_l0{suffix}"] = reorder_gates(kind, tensor, "keras", "torch")
    options: dict[str, Any] = {"bias": cell.use_bias, "batch_first": True, "bidirectional": len(cells) == 2}
    if kind == "RNN":
        options["nonlinearity"] = cell.activation.__name__
    return make(_MODULES[kind], cell.kernel.shape[0], cell.units, tensors=tensors, **options)


def _mask_node(call: Call, mask: Any) -> Any:
    if not isinstance(mask, Value):
        return None
    call.require(mask.rank == 2 and mask.dtype == "bool", "its mask is not one of time steps")
    return call.builder.plain(mask).node


def _flipped(call: Call, node: Any) -> Any:
    return call.builder.function(torch.flip, node, (1,))


@translates("layers.TimeDistributed")
def time_distributed(call: Call) -> Value:
    """The inner layer on samples × steps."""
    builder, value, inner = call.builder, call.builder.plain(call.input), call.operation.layer
    call.require(value.mask is None and call.kwargs.get("mask") is None, "it is masked")
    call.require(value.rank > 2 and value.shape[0] is None, "its input has no time steps")
    steps = value.shape[1]
    folded = Value(builder.function(torch.flatten, value.node, 0, 1), (None, *value.shape[2:]), (), value.dtype)
    folded = Value(folded.node, folded.shape, tuple(range(len(folded.shape))), folded.dtype)
    path = call.child(inner.name)
    result = call.walk.single(inner, (folded,), {}, path)
    if result.flattened is not None or result.axes[0] != 0:
        result = builder.plain(result)
    node = builder.function(torch.unflatten, result.node, 0, (-1, steps))
    axes = (0, 1, *(axis + 1 for axis in result.axes[1:]))
    return call.result(builder.marker(call.path, node), axes)
