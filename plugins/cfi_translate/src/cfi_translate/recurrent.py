"""Recurrent layers of torch, Keras and ONNX: the order of their gates, and the cells that not all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cfi_translate.grammar import require
from cfi_translate.program import Value

_Weight = TypeVar("_Weight")

GATES = {
    # input, forget, cell, output
    "LSTM": {"torch": "ifco", "keras": "ifco", "onnx": "iofc"},
    # reset, update, new
    "GRU": {"torch": "run", "keras": "urn", "onnx": "urn"},
    "RNN": {"torch": "n", "keras": "n", "onnx": "n"},
}
"""The gates of each kind in the order in which a framework stacks their weights; Keras calls an RNN SimpleRNN."""

_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_IN_KERAS = frozenset(("sigmoid", "tanh", "relu", "softsign", "softplus"))


def reorder_gates(kind: str, weight: _Weight, source: str, target: str) -> _Weight:
    """A weight or bias of one framework as another one orders it.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        weight: numpy array or torch tensor whose first axis lists the gates, one block of rows for each.
        source: "torch", "keras" or "onnx".
        target: Likewise one of these.
    """
    gates = GATES[kind][source]
    order = [gates.index(gate) for gate in GATES[kind][target]]
    blocks = np.arange(len(weight)).reshape(len(gates), -1)  # type: ignore[arg-type]
    return weight[blocks[order].reshape(-1)]  # type: ignore[index]


def keras_bias(input_bias: np.ndarray, recurrent_bias: np.ndarray, reset_after: bool) -> np.ndarray:
    """The two biases of torch and ONNX as Keras has them: their sum, but both in a GRU that resets after the product.

    Args:
        input_bias: Added to the product with the input, gates in Keras's order.
        recurrent_bias: Added to the product with the state.
        reset_after: Whether it is a GRU with Keras's `reset_after`.
    """
    return np.stack([input_bias, recurrent_bias]) if reset_after else input_bias + recurrent_bias


@dataclass(frozen=True)
class RecurrentCell:
    """What a recurrent layer computes at each step, whatever its weights.

    Attributes:
        kind: "LSTM", "GRU" or "RNN".
        activations: By their names in `keras.activations`: of the gates, of the new state and, in an LSTM, of the
            state that it gives out.
        reset_after: Whether a GRU applies its reset gate after the product with the state (ONNX calls that
            `linear_before_reset`).
    """

    kind: str
    activations: tuple[str, ...]
    reset_after: bool = False

    def require_in_torch(self) -> None:
        """Refuses a cell that torch has no module for."""
        named = ", ".join(self.activations)
        if self.kind == "RNN":
            require(
                self.activations in (("tanh",), ("relu",)), f"torch has tanh and relu recurrent layers, not {named}"
            )
            return
        usual = self.activations == _USUAL[self.kind]
        require(usual, f"torch's recurrent layers have sigmoid gates and tanh activations, not {named}")
        require(
            self.kind != "GRU" or self.reset_after,
            "torch's GRU applies its reset gate after the product only "
            "(reset_after=True in Keras, linear_before_reset=1 in ONNX)",
        )

    def require_in_keras(self) -> None:
        """Refuses a cell that Keras has no layer for."""
        known = _IN_KERAS.issuperset(self.activations) and len(set(self.activations[1:])) <= 1
        require(known, f"Keras has no {self.kind} with the activations {', '.join(self.activations)}")


def cells_of_onnx(
    kind: str, attributes: Mapping[str, Any], steps: int | None, lengths: Value | None, peepholes: Value | None
) -> tuple[RecurrentCell, ...]:
    """The cell of each direction of an ONNX operator.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        attributes: Of the operator.
        steps: How many its sequences have.
        lengths: Its input `sequence_lens`.
        peepholes: Its input `P`.

    Raises:
        Refusal: It computes what neither torch nor Keras does.
    """
    require(not attributes.get("clip"), "no recurrent layer of torch or Keras clips inside its cell")
    require(not attributes.get("input_forget"), "no LSTM of torch or Keras couples its input and forget gates")
    require(is_zero(peepholes), "no LSTM of torch or Keras has peepholes")
    if lengths is not None:
        same = steps is not None and lengths.uniform is not None and int(lengths.uniform) == steps
        require(same, "its sequences are not known to have all the same length")
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    count = len(_USUAL[kind])
    # ONNX's default for an RNN names two, also for one direction.
    named = tuple(one.lower() for one in attributes.get("activations") or ()) or _USUAL[kind] * directions
    reset_after = kind == "GRU" and bool(attributes.get("linear_before_reset"))
    cells = tuple(RecurrentCell(kind, named[at * count :][:count], reset_after) for at in range(directions))
    require(all(len(cell.activations) == count for cell in cells), "it does not name all of its activations")
    return cells


def initial_states(kind: str, hidden: Value | None, cell: Value | None) -> tuple[Value, ...]:
    """The initial states of an ONNX operator; none where they are zero.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        hidden: Its input `initial_h`.
        cell: Its input `initial_c`, which only an LSTM has.

    Raises:
        Refusal: One of two is left out.
    """
    states = (hidden, cell) if kind == "LSTM" else (hidden,)
    if all(is_zero(state) for state in states):
        return ()
    given = tuple(state for state in states if state is not None)
    require(len(given) == len(states), "it has one of its two initial states")
    return given


def is_zero(value: Value | None) -> bool:
    """Whether an input is left out or known to be all zeros."""
    return value is None or value.uniform == 0
