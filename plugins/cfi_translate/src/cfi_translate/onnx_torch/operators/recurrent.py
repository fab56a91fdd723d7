"""Recurrent layers, as modules of torch."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, are_constant
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.recurrent import GATES, RecurrentCell, cells_of_onnx, initial_states, reorder_gates
from cfi_translate.semantics.values import shape_of, static

_SUFFIXES = ("_l0", "_l0_reverse")


@operator("LSTM", "GRU", "RNN")
def recurrent(
    op: Operation,
    to: TorchBuilder,
    data: Value,
    weight: Value,
    recurrence: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    memory: Value | None = None,
    peepholes: Value | None = None,
) -> tuple[fx.Node, ...]:
    samples_first = bool(op.attributes.get("layout"))
    time = 1 if samples_first else 0
    cell, *others = cells_of_onnx(op.kind, op.attributes, shape_of(data)[time], lengths, peepholes)
    cell.require_in_torch()
    require(all(other == cell for other in others), "its directions have different activations")
    require(are_constant(weight, recurrence, bias), "its weights are computed while the model runs")
    directions, rows, features = static(shape_of(weight))
    size = rows // len(GATES[op.kind]["onnx"])
    module = _module(cell, features, size, directions, samples_first, bias is not None)
    for number in range(directions):
        _give_weights(op.kind, to, module, number, weight, recurrence, bias)
    states = [
        to.function(torch.transpose, one, 0, 1) if samples_first else to.tensor(one)
        for one in initial_states(op.kind, hidden, memory)
    ]
    given = [tuple(states) if op.kind == "LSTM" else states[0]] if states else []
    is_reverse = op.attributes["direction"] == "reverse"
    source: Any = to.function(torch.flip, data, (time,)) if is_reverse else data
    both = to.module(op, module, source, *given)
    output, last = to.function(getitem, both, 0), to.function(getitem, both, 1)
    output = to.function(torch.flip, output, (time,)) if is_reverse else output
    ends = [to.function(getitem, last, i) for i in (0, 1)] if op.kind == "LSTM" else [last]
    if samples_first:
        ends = [to.function(torch.transpose, one, 0, 1) for one in ends]
    return _split_directions(to, output, directions, size, samples_first), *ends


def _split_directions(to: TorchBuilder, output: fx.Node, directions: int, size: int, samples_first: bool) -> fx.Node:
    """Gives the directions, which torch joins in the last axis, an axis of their own."""
    if directions == 1:
        return to.function(torch.unsqueeze, output, 2 if samples_first else 1)
    split = to.method("unflatten", output, -1, (directions, size))
    return split if samples_first else to.function(torch.transpose, split, 1, 2)


def _module(cell: RecurrentCell, features: int, size: int, directions: int, first: bool, bias: bool) -> nn.Module:
    options: dict[str, Any] = {"bias": bias, "batch_first": first, "bidirectional": directions == 2, "device": "meta"}
    if cell.kind == "RNN":
        return nn.RNN(features, size, nonlinearity=cell.activations[0], **options)
    return {"LSTM": nn.LSTM, "GRU": nn.GRU}[cell.kind](features, size, **options)


def _give_weights(
    kind: str, to: TorchBuilder, module: nn.Module, number: int, weight: Value, recurrence: Value, bias: Value | None
) -> None:
    def reorder(part: slice) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: reorder_gates(kind, array[number][part], "onnx", "torch")

    given = {"weight_ih": (weight, slice(None)), "weight_hh": (recurrence, slice(None))}
    if bias is not None:
        half = static(shape_of(bias))[1] // 2
        given |= {"bias_ih": (bias, slice(0, half)), "bias_hh": (bias, slice(half, None))}
    for name, (value, part) in given.items():
        setattr(module, f"{name}{_SUFFIXES[number]}", to.parameter(value, (kind, name, number), reorder(part)))
