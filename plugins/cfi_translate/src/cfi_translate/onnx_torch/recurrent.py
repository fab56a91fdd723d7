"""Recurrent layers, as modules of torch."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.reader import Reader, fixed, operator, refuse, shape_of
from cfi_translate.program import Operation, Value
from cfi_translate.recurrent import GATES, RecurrentCell, cells_of_onnx, initial_states, reorder_gates

_SUFFIXES = ("_l0", "_l0_reverse")


@operator("LSTM", "GRU", "RNN")
def _recurrent(op: Operation, to: Reader) -> tuple[fx.Node | None, ...]:
    value, weight, recurrence, bias = op.inputs[0], op.inputs[1], op.inputs[2], op.input(3)
    first = bool(op.attributes.get("layout", 0))
    time = 1 if first else 0
    cell, *others = cells_of_onnx(op.kind, op.attributes, shape_of(op, value)[time], op.input(4), op.input(7))
    cell.require_in_torch()
    require(all(other == cell for other in others), "its directions have different activations")
    direction = op.attributes.get("direction", "forward")
    directions, rows, features = fixed(op, shape_of(op, weight))
    hidden = rows // len(GATES[op.kind]["onnx"])
    module = _module(cell, features, hidden, directions, first, bias is not None)
    for number in range(directions):
        _give_weights(op, to, module, number, weight, recurrence, bias)
    data = to.tensor(value)
    if direction == "reverse":
        data = to.function(torch.flip, data, (time,))
    states = _states(op, to, first)
    both = to.module(op, module, data) if states is None else to.module(op, module, data, states)
    output, last = to.function(getitem, both, 0), to.function(getitem, both, 1)
    if direction == "reverse":
        output = to.function(torch.flip, output, (time,))
    ends = [to.function(getitem, last, i) for i in (0, 1)] if op.kind == "LSTM" else [last]
    if first:
        ends = [to.function(torch.transpose, one, 0, 1) for one in ends]
    return _with_directions(to, output, directions, hidden, first), *ends


def _with_directions(to: Reader, output: fx.Node, directions: int, hidden: int, first: bool) -> fx.Node:
    """Gives the directions, which torch joins in the last axis, an axis of their own."""
    if directions == 1:
        return to.function(torch.unsqueeze, output, 2 if first else 1)
    split = to.method("unflatten", output, -1, (directions, hidden))
    return split if first else to.function(torch.transpose, split, 1, 2)


def _module(cell: RecurrentCell, features: int, hidden: int, directions: int, first: bool, bias: bool) -> nn.Module:
    options: dict[str, Any] = {"bias": bias, "batch_first": first, "bidirectional": directions == 2, "device": "meta"}
    if cell.kind == "RNN":
        return nn.RNN(features, hidden, nonlinearity=cell.activations[0], **options)
    return {"LSTM": nn.LSTM, "GRU": nn.GRU}[cell.kind](features, hidden, **options)


def _give_weights(
    op: Operation,
    to: Reader,
    module: nn.Module,
    number: int,
    weight: Value | None,
    recurrence: Value | None,
    bias: Value | None,
) -> None:
    def ordered(part: slice) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: reorder_gates(op.kind, array[number][part], "onnx", "torch")

    given = {"weight_ih": (weight, slice(None)), "weight_hh": (recurrence, slice(None))}
    if bias is not None:
        half = fixed(op, shape_of(op, bias))[1] // 2
        given |= {"bias_ih": (bias, slice(0, half)), "bias_hh": (bias, slice(half, None))}
    for name, (value, part) in given.items():
        if value is None or not value.is_constant:
            raise refuse(op, "its weights are computed while the model runs")
        key = (op.kind, name, number)
        made = to.parameter(value, key, ordered(part))
        setattr(module, f"{name}{_SUFFIXES[number]}", made)


def _states(op: Operation, to: Reader, first: bool) -> Any:
    """Initial states as torch takes them; None where they are zero."""
    nodes = [to.tensor(one) for one in initial_states(op.kind, op.input(5), op.input(6))]
    if not nodes:
        return None
    if first:
        nodes = [to.function(torch.transpose, one, 0, 1) for one in nodes]
    return tuple(nodes) if op.kind == "LSTM" else nodes[0]
