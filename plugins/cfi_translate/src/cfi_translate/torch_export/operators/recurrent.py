"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.recurrent import reorder_gates
from cfi_translate.torch_export.onnx_graph import Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator


def _layers(kind: str, activation: str | None = None) -> Converter:
    """The function of the layers of a recurrent module, one ONNX operator each."""

    def convert(
        op: TorchOp,
        to: OnnxGraph,
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
        require(not (training and dropout), "its result is random")
        require(len(x.shape) == 3, "its input has no sample axis")
        directions = 2 if bidirectional else 1
        each = 4 if biased else 2
        plain = len(weights) == each * layers * directions and all(isinstance(one, torch.Tensor) for one in weights)
        require(plain, "it projects its states, or its weights are computed")
        states = list(initial) if isinstance(initial, list | tuple) else [initial]
        value = to.node("Transpose", x, perm=[1, 0, 2]) if batch_first else x
        last: list[list[OnnxValue]] = []
        for layer in range(layers):
            first = layer * directions
            own = [weights[each * one : each * (one + 1)] for one in range(first, first + directions)]
            result, *ends = to.node_with(
                len(states) + 1,
                kind,
                value,
                torch.stack([_reorder(kind, one[0]) for one in own]),
                torch.stack([_reorder(kind, one[1]) for one in own]),
                torch.stack([torch.cat([_reorder(kind, b) for b in one[2:]]) for one in own]) if biased else None,
                None,
                *(_start(to, state, first, directions, layers) for state in states),
                hidden_size=weights[1].shape[1],
                direction="bidirectional" if bidirectional else "forward",
                linear_before_reset=1 if kind == "GRU" else None,
                activations=None if activation is None else [activation] * directions,
            )
            last.append(ends)
            value = _join(to, result, directions, batch_first and layer == layers - 1)
        if layers == 1:
            return [value, *last[0]]
        return [value, *(to.node("Concat", *(one[i] for one in last), axis=0) for i in range(len(states)))]

    return convert


operator("lstm.input")(_layers("LSTM"))
operator("gru.input")(_layers("GRU"))
operator("rnn_tanh.input")(_layers("RNN", "Tanh"))
operator("rnn_relu.input")(_layers("RNN", "Relu"))


def _reorder(kind: str, weight: torch.Tensor) -> torch.Tensor:
    """The blocks of the gates in ONNX's order."""
    return reorder_gates(kind, weight.detach(), "torch", "onnx")


def _join(to: OnnxGraph, result: OnnxValue, directions: int, samples_first: bool) -> OnnxValue:
    """Both directions of (steps, directions, samples, hidden) side by side."""
    if directions == 2:
        joined = to.node("Transpose", result, perm=[2, 0, 1, 3] if samples_first else [0, 2, 1, 3])
        return to.node("Reshape", joined, [0, 0, -1])
    only = to.node("Squeeze", result, [1])
    return to.node("Transpose", only, perm=[1, 0, 2]) if samples_first else only


def _start(to: OnnxGraph, state: Any, first: int, directions: int, layers: int) -> Any:
    """A layer's part of the initial states; zeros are left out."""
    if isinstance(state, Filled) and state.number == 0:
        return None
    if isinstance(state, torch.Tensor) and not state.any():
        return None
    return state if layers == 1 else to.node("Slice", state, [first], [first + directions], [0])
