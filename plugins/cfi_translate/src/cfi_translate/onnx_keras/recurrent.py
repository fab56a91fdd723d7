"""LSTM, GRU and simple recurrent layers, in one direction or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported
from cfi_translate.program import Operation
from cfi_translate.recurrent import RecurrentCell, cells_of_onnx, initial_states, keras_bias, reorder_gates

_LAYERS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}


def _recurrent(builder: Builder, operation: Operation) -> Sequence[Tensor | None]:
    name = operation.name
    source = operation.inputs[0]
    if source is None or source.shape is None or operation.attributes.get("layout", 0):
        raise Unsupported("only sequences with the time first are supported")
    if str(source.dtype) not in ("float32", "float64"):
        raise Unsupported(f"{source.dtype} is not supported")
    time = source.shape[0]
    cells = cells_of_onnx(operation.kind, operation.attributes, time, operation.input(4), operation.input(7))
    direction = operation.attributes.get("direction", "forward")
    directions = len(cells)
    value = builder.laid(builder.tensor(source), (1, 0, 2), name)
    states = _initial(builder, operation, directions)
    made = []
    for at in range(directions):
        backwards = direction == "reverse" or at == 1
        own = builder.name(name) if directions == 1 else ("forward", "backward")[at]
        made.append(_layer(operation, cells[at], own, str(source.dtype), backwards=backwards))
    weights = [_weights(builder, operation, at, cells[at]) for at in range(directions)]
    if directions == 1:
        sequence, *last = made[0](value, initial_state=states[0])
        if direction == "reverse":
            sequence = ops.flip(sequence, axis=1)
        made[0].set_weights(weights[0])
        lasts = [last]
    else:
        both = layers.Bidirectional(made[0], backward_layer=made[1], dtype=str(source.dtype), name=builder.name(name))
        joint = None if states[0] is None or states[1] is None else [*states[0], *states[1]]
        sequence, *last = both(value, initial_state=joint)
        both.set_weights([*weights[0], *weights[1]])
        lasts = [last[: len(last) // 2], last[len(last) // 2 :]]
    hidden = operation.attributes["hidden_size"]
    whole = builder.reshape(sequence, [sequence.shape[0], time, directions, hidden], f"{name}.directions")
    results: list[Tensor | None] = [Tensor(whole, (2, 0, 1, 3))]
    for position in range(1, len(operation.outputs)):
        states_of = [one[position - 1] for one in lasts]
        if directions == 1:
            joined = builder.reshape(states_of[0], [sequence.shape[0], 1, hidden], f"{name}.state{position}")
        else:
            joined = ops.stack(states_of, axis=1)
        results.append(Tensor(joined, (1, 0, 2)))
    return results


def _layer(operation: Operation, cell: RecurrentCell, name: str, dtype: str, *, backwards: bool) -> Any:
    cell.require_in_keras()
    settings: dict[str, Any] = {
        "activation": cell.activations[-1],
        "go_backwards": backwards,
        "return_sequences": True,
        "return_state": True,
        "dtype": dtype,
        "name": name,
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
    }
    if cell.kind != "RNN":
        settings["recurrent_activation"] = cell.activations[0]
    if cell.kind == "GRU":
        settings["reset_after"] = cell.reset_after
    return _LAYERS[cell.kind](operation.attributes["hidden_size"], **settings)


def _weights(builder: Builder, operation: Operation, at: int, cell: RecurrentCell) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias in Keras's order of gates."""

    def ordered(array: np.ndarray) -> np.ndarray:
        return reorder_gates(cell.kind, array, "onnx", "keras")

    kernel = builder.array(operation.input(1), "weight")[at]
    recurrent = builder.array(operation.input(2), "weight")[at]
    if operation.input(3) is None:
        biases = np.zeros((2, len(kernel)), kernel.dtype)
    else:
        biases = builder.array(operation.input(3), "bias")[at].reshape(2, -1)
    bias = keras_bias(ordered(biases[0]), ordered(biases[1]), cell.reset_after)
    return [ordered(kernel).T, ordered(recurrent).T, bias]


def _initial(builder: Builder, operation: Operation, directions: int) -> list[Any]:
    """The first states of each direction, None for zeros."""
    given = initial_states(operation.kind, operation.input(5), operation.input(6))
    if not given:
        return [None] * directions
    laid = [builder.laid(builder.tensor(one), (1, 0, 2), operation.name) for one in given]
    return [[one[:, at] for one in laid] for at in range(directions)]


OPERATORS: dict[str, Handler] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
