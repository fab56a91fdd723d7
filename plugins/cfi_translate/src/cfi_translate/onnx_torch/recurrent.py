"""Recurrent layers, as modules of torch."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.onnx_torch.reader import Reader, fixed, operator, refuse, shape_of
from cfi_translate.program import Operation, Value

# Where torch's gates stand among ONNX's.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_SUFFIXES = ("_l0", "_l0_reverse")


@operator("LSTM", "GRU", "RNN")
def _recurrent(op: Operation, to: Reader) -> tuple[fx.Node | None, ...]:
    value, weight, recurrence, bias = op.inputs[0], op.inputs[1], op.inputs[2], op.input(3)
    _refuse_special(op)
    direction = op.attributes.get("direction", "forward")
    directions, rows, features = fixed(op, shape_of(op, weight))
    hidden = rows // len(_GATES[op.kind])
    first = bool(op.attributes.get("layout", 0))
    time = 1 if first else 0
    module = _module(op, features, hidden, directions, first, bias is not None)
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


def _refuse_special(op: Operation) -> None:
    given = op.attributes
    if given.get("clip"):
        raise refuse(op, "torch does not clip inside the cell")
    if given.get("input_forget"):
        raise refuse(op, "torch's forget gate is its own")
    if op.kind == "LSTM" and op.input(7) is not None and op.inputs[7] is not None and op.inputs[7].uniform != 0:
        raise refuse(op, "torch has no peepholes")
    if op.kind == "GRU" and not given.get("linear_before_reset"):
        raise refuse(op, "torch applies the reset gate after the product (linear_before_reset=1) and not before")
    plain = list(_ACTIVATIONS[op.kind])
    number = 2 if given.get("direction") == "bidirectional" else 1
    # The default of RNN names two, also for one direction.
    activations = [one.lower() for one in given.get("activations", ())][: number * len(plain)]
    if activations and activations != plain * number and not (op.kind == "RNN" and activations == ["relu"] * number):
        raise refuse(op, f"torch's cell has no activations {', '.join(given['activations'])}")
    lengths = op.input(4)
    if lengths is not None:
        steps = shape_of(op, op.input(0))[1 if given.get("layout") else 0]
        if lengths.uniform is None or steps is None or int(lengths.uniform) != steps:
            raise refuse(op, "its sequences are not known to have all the same length")


def _module(op: Operation, features: int, hidden: int, directions: int, first: bool, bias: bool) -> nn.Module:
    options: dict[str, Any] = {"bias": bias, "batch_first": first, "bidirectional": directions == 2, "device": "meta"}
    if op.kind == "LSTM":
        return nn.LSTM(features, hidden, **options)
    if op.kind == "GRU":
        return nn.GRU(features, hidden, **options)
    relu = any(one.lower() == "relu" for one in op.attributes.get("activations", ()))
    return nn.RNN(features, hidden, nonlinearity="relu" if relu else "tanh", **options)


def _give_weights(
    op: Operation,
    to: Reader,
    module: nn.Module,
    number: int,
    weight: Value | None,
    recurrence: Value | None,
    bias: Value | None,
) -> None:
    gates = _GATES[op.kind]

    def ordered(part: slice) -> Callable[[np.ndarray], np.ndarray]:
        def change(array: np.ndarray) -> np.ndarray:
            parts = np.split(array[number][part], len(gates))
            return np.concatenate([parts[gate] for gate in gates])

        return change

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
    values = [op.input(5), op.input(6)] if op.kind == "LSTM" else [op.input(5)]
    if all(one is None or one.uniform == 0 for one in values):
        return None
    if any(one is None for one in values):
        raise refuse(op, "it has one of its two initial states")
    nodes = [to.tensor(one) for one in values]
    if first:
        nodes = [to.function(torch.transpose, one, 0, 1) for one in nodes]
    return tuple(nodes) if op.kind == "LSTM" else nodes[0]
