"""LSTM, GRU and simple recurrent layers, in one direction or both."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.grammar import require
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor
from cfi_translate.program import Operation, Value
from cfi_translate.recurrent import RecurrentCell, cells_of_onnx, initial_states, keras_bias, reorder_gates
from cfi_translate.semantics.values import constant_of, shape_of

_LAYERS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}


@operator("LSTM", "GRU", "RNN")
def recurrent(
    op: Operation,
    to: KerasBuilder,
    data: Value,
    weight: Value,
    recurrence: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    memory: Value | None = None,
    peepholes: Value | None = None,
) -> list[Tensor]:
    require(not op.attributes.get("layout"), "only sequences with the time first are supported")
    require(str(data.dtype) in ("float32", "float64"), f"{data.dtype} is not supported")
    steps, size = shape_of(data)[0], op.attributes["hidden_size"]
    cells = cells_of_onnx(op.kind, op.attributes, steps, lengths, peepholes)
    value = to.lay(to.tensor(data), (1, 0, 2))
    given = [to.lay(to.tensor(one), (1, 0, 2)) for one in initial_states(op.kind, hidden, memory)]
    states = [[one[:, at] for one in given] or None for at in range(len(cells))]
    weights = [_weights(at, cell, weight, recurrence, bias) for at, cell in enumerate(cells)]
    dtype, is_reverse = str(data.dtype), op.attributes["direction"] == "reverse"
    if len(cells) == 1:
        layer = _layer(cells[0], size, to.name(), dtype, backwards=is_reverse)
        sequence, *last = layer(value, initial_state=states[0])
        layer.set_weights(weights[0])
        sequence = ops.flip(sequence, axis=1) if is_reverse else sequence
        ends = [to.reshape(one, [one.shape[0], 1, size], f".state{i}") for i, one in enumerate(last, 1)]
    else:
        names = ("forward", "backward")
        made = [_layer(cell, size, names[at], dtype, backwards=at == 1) for at, cell in enumerate(cells)]
        layer = layers.Bidirectional(made[0], backward_layer=made[1], dtype=dtype, name=to.name())
        sequence, *last = layer(value, initial_state=[state for one in states for state in one or ()] or None)
        layer.set_weights([*weights[0], *weights[1]])
        half = len(last) // 2
        ends = [ops.stack(pair, axis=1) for pair in zip(last[:half], last[half:], strict=True)]
    whole = to.reshape(sequence, [sequence.shape[0], steps, len(cells), size], ".directions")
    return [Tensor(whole, (2, 0, 1, 3)), *(Tensor(one, (1, 0, 2)) for one in ends)]


def _layer(cell: RecurrentCell, size: int, name: str, dtype: str, *, backwards: bool) -> Any:
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
    return _LAYERS[cell.kind](size, **settings)


def _weights(at: int, cell: RecurrentCell, weight: Value, recurrence: Value, bias: Value | None) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias of one direction in Keras's order of gates."""

    def reorder(array: np.ndarray) -> np.ndarray:
        return reorder_gates(cell.kind, array, "onnx", "keras")

    kernel, recurrent = (constant_of(one, "weight")[at] for one in (weight, recurrence))
    biases = np.zeros((2, len(kernel)), kernel.dtype)
    if bias is not None:
        biases = constant_of(bias, "bias")[at].reshape(2, -1)
    joint = keras_bias(reorder(biases[0]), reorder(biases[1]), cell.reset_after)
    return [reorder(kernel).T, reorder(recurrent).T, joint]
