"""LSTM, GRU and simple recurrent layers, in one direction or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported
from cfi_translate.program import Operation, Value

# Position of Keras's gates among those of ONNX.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_LAYERS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}
_KNOWN = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}


def _recurrent(builder: Builder, operation: Operation) -> Sequence[Tensor | None]:
    name = operation.name
    source = operation.inputs[0]
    if source is None or source.shape is None or operation.attributes.get("layout", 0):
        raise Unsupported("only sequences with the time first are supported")
    if str(source.dtype) not in ("float32", "float64"):
        raise Unsupported(f"{source.dtype} is not supported")
    if operation.attributes.get("clip") or operation.attributes.get("input_forget", 0):
        raise Unsupported("clipped or coupled gates are not supported")
    if any(operation.attributes.get(one) for one in ("activation_alpha", "activation_beta")):
        raise Unsupported("activations with settings of their own are not supported")
    if operation.input(7) is not None and _any(operation.input(7)):
        raise Unsupported("peepholes are not supported")
    time = source.shape[0]
    lengths = operation.input(4)
    if lengths is not None and (lengths.uniform is None or int(lengths.uniform) != time):
        raise Unsupported("sequences of different lengths are not supported")
    direction = operation.attributes.get("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    value = builder.laid(builder.tensor(source), (1, 0, 2), name)
    states = _initial(builder, operation, directions)
    made = []
    for at in range(directions):
        backwards = direction == "reverse" or at == 1
        own = builder.name(name) if directions == 1 else ("forward", "backward")[at]
        made.append(_layer(operation, at, own, str(source.dtype), backwards=backwards))
    weights = [_weights(builder, operation, at) for at in range(directions)]
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


def _any(value: Value | None) -> bool:
    return value is not None and (value.uniform is None or bool(value.uniform))


def _layer(operation: Operation, at: int, name: str, dtype: str, *, backwards: bool) -> Any:
    kind = operation.kind
    count = len(_DEFAULTS[kind])
    given = operation.attributes.get("activations")
    chosen = tuple(given[at * count : (at + 1) * count]) if given else _DEFAULTS[kind]
    if not set(chosen) <= set(_KNOWN) or (kind == "LSTM" and chosen[1] != chosen[2]):
        raise Unsupported(f"the activations {', '.join(chosen)} are not supported")
    settings: dict[str, Any] = {
        "activation": _KNOWN[chosen[-1]],
        "go_backwards": backwards,
        "return_sequences": True,
        "return_state": True,
        "dtype": dtype,
        "name": name,
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
    }
    if kind != "RNN":
        settings["recurrent_activation"] = _KNOWN[chosen[0]]
    if kind == "GRU":
        settings["reset_after"] = bool(operation.attributes.get("linear_before_reset", 0))
    return _LAYERS[kind](operation.attributes["hidden_size"], **settings)


def _weights(builder: Builder, operation: Operation, at: int) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias in Keras's order of gates."""
    gates = _GATES[operation.kind]
    hidden = operation.attributes["hidden_size"]

    def ordered(array: np.ndarray) -> np.ndarray:
        parts = [array[gate * hidden : (gate + 1) * hidden] for gate in gates]
        return np.concatenate(parts).T

    kernel = builder.array(operation.input(1), "weight")[at]
    recurrent = builder.array(operation.input(2), "weight")[at]
    if operation.input(3) is None:
        biases = np.zeros((2, len(kernel)), kernel.dtype)
    else:
        biases = builder.array(operation.input(3), "bias")[at].reshape(2, -1)
    first, second = (ordered(one) for one in biases)
    separate = operation.kind == "GRU" and operation.attributes.get("linear_before_reset", 0)
    return [ordered(kernel), ordered(recurrent), np.stack([first, second]) if separate else first + second]


def _initial(builder: Builder, operation: Operation, directions: int) -> list[Any]:
    """The first states of each direction, None for zeros."""
    given = [operation.input(5), operation.input(6)] if operation.kind == "LSTM" else [operation.input(5)]
    if not any(_any(one) for one in given):
        return [None] * directions
    if any(one is None for one in given):
        raise Unsupported("giving one of the two first states is not supported")
    laid = [builder.laid(builder.tensor(one), (1, 0, 2), operation.name) for one in given]
    return [[one[:, at] for one in laid] for at in range(directions)]


OPERATORS: dict[str, Handler] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
