"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.recurrent import reorder_gates
from cfi_translate.torch_export.emitter import Emitter, Filled, Value
from cfi_translate.torch_export.operators.registry import Writer, writes


def _layers(kind: str, activation: str | None = None) -> Writer:
    """A writer for the layers of a recurrent module, one ONNX operator each."""

    def write(
        emit: Emitter,
        x: Any,
        initial: Any,
        weights: Sequence[Any],
        biased: bool,
        layers: int,
        dropout: float,
        training: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> list[Any]:
        if training and dropout:
            raise emit.refuse("its result is random")
        if len(x.shape) != 3:
            raise emit.refuse("its input has no sample axis")
        directions = 2 if bidirectional else 1
        each = 4 if biased else 2
        if len(weights) != each * layers * directions or not all(isinstance(one, torch.Tensor) for one in weights):
            raise emit.refuse("it projects its states, or its weights are computed")
        states = list(initial) if isinstance(initial, list | tuple) else [initial]
        hidden = weights[1].shape[1]
        direction = "bidirectional" if bidirectional else "forward"
        value = emit.op("Transpose", x, perm=[1, 0, 2]) if batch_first else x
        last: list[list[Value]] = []
        for layer in range(layers):
            first = layer * directions
            own = [weights[each * one : each * (one + 1)] for one in range(first, first + directions)]
            result, *ends = emit.ops(
                kind,
                len(states) + 1,
                value,
                torch.stack([_ordered(kind, one[0]) for one in own]),
                torch.stack([_ordered(kind, one[1]) for one in own]),
                torch.stack([torch.cat([_ordered(kind, b) for b in one[2:]]) for one in own]) if biased else None,
                None,
                *(_start(emit, state, first, directions, layers) for state in states),
                hidden_size=hidden,
                direction=direction,
                linear_before_reset=1 if kind == "GRU" else None,
                activations=None if activation is None else [activation] * directions,
            )
            last.append(ends)
            final = batch_first and layer == layers - 1
            if bidirectional:
                # (steps, directions, samples, hidden)
                joined = emit.op("Transpose", result, perm=[2, 0, 1, 3] if final else [0, 2, 1, 3])
                value = emit.op("Reshape", joined, np.array([0, 0, -1]))
            else:
                value = emit.op("Squeeze", result, np.array([1]))
                value = emit.op("Transpose", value, perm=[1, 0, 2]) if final else value
        if layers == 1:
            return [value, *last[0]]
        return [value, *(emit.op("Concat", *(one[i] for one in last), axis=0) for i in range(len(states)))]

    return write


writes("lstm.input")(_layers("LSTM"))
writes("gru.input")(_layers("GRU"))
writes("rnn_tanh.input")(_layers("RNN", "Tanh"))
writes("rnn_relu.input")(_layers("RNN", "Relu"))


def _ordered(kind: str, weight: torch.Tensor) -> torch.Tensor:
    return reorder_gates(kind, weight.detach(), "torch", "onnx")


def _start(emit: Emitter, state: Any, first: int, directions: int, layers: int) -> Any:
    """A layer's part of the initial states; zeros are left out."""
    if isinstance(state, Filled) and state.number == 0:
        return None
    if isinstance(state, torch.Tensor) and not state.any():
        return None
    if layers == 1:
        return state
    return emit.op("Slice", state, np.array([first]), np.array([first + directions]), np.array([0]))
