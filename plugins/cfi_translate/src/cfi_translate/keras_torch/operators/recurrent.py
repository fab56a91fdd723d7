"""LSTM, GRU and SimpleRNN as torch's own modules, masks included; TimeDistributed.

A masked step leaves Keras's state as it is and repeats the output before it. So the steps that the mask leaves are
moved to the front, the torch module runs over them, and each step reads the output of the last step that was left.
"""

from __future__ import annotations

import operator as python
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import nn

from cfi_translate.grammar import Refusal, require
from cfi_translate.keras_torch.calls import LayerCall, operator, tensor
from cfi_translate.keras_torch.laid import Laid, plain_axes
from cfi_translate.keras_torch.masks import mask_node
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import make, tensor_of
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


@operator("layers.LSTM", "layers.GRU", "layers.SimpleRNN", "layers.RNN")
def recurrent(op: LayerCall, to: KerasWalk, sequences: Laid, initial_state: Any = None, mask: Any = None) -> list[Laid]:
    """A recurrent module, and what Keras takes from its outputs."""
    layer, node, left = op.operation, to.plain(sequences).node, mask_node(to, mask)
    given = initial_state if isinstance(initial_state, list | tuple) else [initial_state]
    states = [to.plain(tensor(state, "initial state")).node for state in given if state is not None]
    if layer.go_backwards:
        node, left = _flip(to, node), _flip(to, left)
    steps = _run(op, to, node, left, states)
    outputs = [to.marker(op, steps.all if layer.return_sequences else steps.last, suffix="_output")]
    return op.results([*outputs, *steps.states] if layer.return_state else outputs)


@operator("layers.Bidirectional")
def bidirectional(
    op: LayerCall, to: KerasWalk, sequences: Laid, initial_state: Any = None, mask: Any = None
) -> list[Laid]:
    """A bidirectional module; two modules where a mask or different layers need them."""
    layer = op.operation
    forward, backward = (LayerCall(one, op.child(one.name)) for one in (layer.forward_layer, layer.backward_layer))
    require(initial_state is None, "it is called with an initial state")
    opposite = not forward.operation.go_backwards and backward.operation.go_backwards
    require(opposite, "its layers do not go forwards and backwards")
    node, left = to.plain(sequences).node, mask_node(to, mask)
    if left is None and _alike(forward.operation, backward.operation):
        one, other = _both_ways(op, to, node)
    else:
        one = _run(forward, to, node, left, ())
        other = _run(backward, to, _flip(to, node), _flip(to, left), ())
        other = Steps(_flip(to, other.all), other.last, other.states)
    outputs = _merge(op, to, [one.all, other.all] if layer.return_sequences else [one.last, other.last])
    return op.results([*outputs, *one.states, *other.states] if layer.return_state else outputs)


def _run(op: LayerCall, to: KerasWalk, node: Any, mask: Any, states: Sequence[Any]) -> Steps:
    """Runs a layer's torch module.

    Args:
        op: Keras's recurrent layer.
        to: What is built.
        node: Samples × steps × features, in the order in which the steps are taken.
        mask: Samples × steps; None without a mask.
        states: Initial states.
    """
    layer, cell = op.operation, _cell(op.operation)
    is_lstm = _KINDS[type(cell)] == "LSTM"
    path = to.share(op, lambda: _module([cell]))
    if mask is not None:
        require(not layer.return_state or not is_lstm, "torch gives no cell state of a masked step")
        require(not states, "it is called with a mask and an initial state")
        order = to.function(torch.argsort, to.function(torch.logical_not, mask), dim=1, stable=True)
        node = to.function(torch.take_along_dim, node, to.function(torch.unsqueeze, order, -1), 1)
    initial = tuple(to.function(torch.unsqueeze, state, 0) for state in states)
    made = to.call(path, node, *((initial,) if is_lstm and initial else initial))
    everything, final = (to.function(python.getitem, made, position) for position in (0, 1))
    if mask is not None:
        return _masked_steps(to, everything, mask, layer.zero_output_for_mask)
    states_after = _states(to, is_lstm, final, 0)
    last = to.function(torch.select, everything, 1, -1)
    return Steps(everything, last, (last, *states_after[1:]))


def _masked_steps(to: KerasWalk, everything: Any, mask: Any, zero_output: bool) -> Steps:
    """The outputs of all steps from those of the steps that the mask leaves."""
    # How many steps were left up to each: 0 before the first, where Keras gives zeros.
    count = to.function(torch.cumsum, mask, 1)
    before = to.function(torch.constant_pad_nd, everything, (0, 0, 1, 0))
    outputs = to.function(torch.take_along_dim, before, to.function(torch.unsqueeze, count, -1), 1)
    last = to.function(torch.select, outputs, 1, -1)
    if not zero_output:
        return Steps(outputs, last, (last,))
    hidden = to.function(torch.unsqueeze, to.function(torch.logical_not, mask), -1)
    shown = to.function(torch.masked_fill, outputs, hidden, 0.0)
    return Steps(shown, to.function(torch.select, shown, 1, -1), (last,))


def _both_ways(op: LayerCall, to: KerasWalk, node: Any) -> tuple[Steps, Steps]:
    cells = [_cell(op.operation.forward_layer), _cell(op.operation.backward_layer)]
    is_lstm, units = _KINDS[type(cells[0])] == "LSTM", cells[0].units
    made = to.call_shared(op, lambda: _module(cells), node)
    everything, final = (to.function(python.getitem, made, position) for position in (0, 1))
    one, other = (to.function(torch.narrow, everything, 2, start, units) for start in (0, units))
    first, second = (_states(to, is_lstm, final, direction) for direction in (0, 1))
    return (
        Steps(one, to.function(torch.select, one, 1, -1), first),
        Steps(other, to.function(torch.select, other, 1, 0), second),
    )


def _states(to: KerasWalk, is_lstm: bool, final: Any, direction: int) -> tuple[Any, ...]:
    both = [to.function(python.getitem, final, i) for i in (0, 1)] if is_lstm else [final]
    return tuple(to.function(torch.select, one, 0, direction) for one in both)


def _merge(op: LayerCall, to: KerasWalk, nodes: list[Any]) -> list[Any]:
    """The outputs of both directions as Keras joins them."""
    mode = op.operation.merge_mode
    if mode is None:
        return nodes
    if mode == "concat":
        node = to.function(torch.cat, nodes, -1)
    else:
        node = to.function(torch.mul if mode == "mul" else torch.add, *nodes)
        node = to.function(torch.div, node, 2) if mode == "ave" else node
    return [to.marker(op, node, suffix="_output")]


def _cell(layer: Any) -> Any:
    """The layer's cell, if torch has the same."""
    require(isinstance(layer, keras.layers.RNN), f"{type(layer).__name__} is no recurrent layer")
    cell = layer.cell
    kind = _KINDS.get(type(cell))
    if kind is None:
        raise Refusal(f"torch has no recurrent layer like its {type(cell).__name__}")
    require(not layer.stateful, "it is stateful")
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
        for name, weight in given.items():
            tensors[f"{name}_l0{suffix}"] = reorder_gates(kind, weight, "keras", "torch")
    options: dict[str, Any] = {"bias": cell.use_bias, "batch_first": True, "bidirectional": len(cells) == 2}
    if kind == "RNN":
        options["nonlinearity"] = _name(cell.activation)
    return make(_MODULES[kind], cell.kernel.shape[0], cell.units, tensors=tensors, **options)


def _flip(to: KerasWalk, node: Any) -> Any:
    """A sequence, or a mask of one, from its end to its start; None stays None."""
    return None if node is None else to.function(torch.flip, node, (1,))


@operator("layers.TimeDistributed")
def time_distributed(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Any = None) -> Laid:
    """The inner layer on samples × steps."""
    x, inner = to.plain(inputs), op.operation.layer
    require(x.mask is None and mask is None, "it is masked")
    require(x.rank > 2 and x.shape[0] is None, "its input has no time steps")
    folded = Laid(to.function(torch.flatten, x.node, 0, 1), (None, *x.shape[2:]), plain_axes(x.rank - 1), x.dtype)
    result = to.layer(inner, op.child(inner.name), folded)
    if result.flattened is not None or result.axes[0] != 0:
        result = to.plain(result)
    node = to.function(torch.unflatten, result.node, 0, (-1, x.shape[1]))
    return op.result(to.marker(op, node), (0, 1, *(axis + 1 for axis in result.axes[1:])))
