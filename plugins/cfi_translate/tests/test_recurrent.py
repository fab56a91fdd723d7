"""Gate orders and cells of recurrent layers, against cells written out step by step from the definitions."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cfi_translate.grammar import Refusal
from cfi_translate.program import Value
from cfi_translate.recurrent import (
    GATES,
    RecurrentCell,
    cells_of_onnx,
    initial_states,
    keras_bias,
    reorder_gates,
)

STEPS, SAMPLES, FEATURES, HIDDEN = 4, 2, 3, 5
KINDS = ("LSTM", "GRU", "RNN")
FRAMEWORKS = ("torch", "keras", "onnx")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class SlowCell:
    """A recurrent layer with weights by the names of its gates, one sample and one step at a time."""

    def __init__(self, kind):
        generator = np.random.default_rng(len(kind))
        self.kind, self.gates = kind, sorted(GATES[kind]["torch"])

        def weights(*shape):
            return {gate: generator.standard_normal(shape).astype(np.float32) for gate in self.gates}

        self.input, self.state = weights(HIDDEN, FEATURES), weights(HIDDEN, HIDDEN)
        self.input_bias, self.state_bias = weights(HIDDEN), weights(HIDDEN)

    def stacked(self, framework):
        """Both matrices and both biases with the gates as the framework orders them."""
        order = GATES[self.kind][framework]
        return [np.concatenate([one[gate] for gate in order]) for one in self.parts]

    @property
    def parts(self):
        return self.input, self.state, self.input_bias, self.state_bias

    def __call__(self, sequence):
        """Hidden states of all steps of a sequence of shape (steps, features)."""
        h, c, outputs = np.zeros(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32), []
        for x in sequence:
            of_input = {gate: self.input[gate] @ x + self.input_bias[gate] for gate in self.gates}
            of_state = {gate: self.state[gate] @ h + self.state_bias[gate] for gate in self.gates}
            total = {gate: of_input[gate] + of_state[gate] for gate in self.gates}
            if self.kind == "LSTM":
                c = sigmoid(total["f"]) * c + sigmoid(total["i"]) * np.tanh(total["c"])
                h = sigmoid(total["o"]) * np.tanh(c)
            elif self.kind == "GRU":
                update, reset = sigmoid(total["u"]), sigmoid(total["r"])
                h = (1 - update) * np.tanh(of_input["n"] + reset * of_state["n"]) + update * h
            else:
                h = np.tanh(total["n"])
            outputs.append(h)
        return np.stack(outputs)


def run_torch(kind, weights, sequences):
    layer = getattr(nn, kind)(FEATURES, HIDDEN, batch_first=True)
    for name, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True):
        getattr(layer, f"{name}_l0").data = torch.from_numpy(weight)
    return layer(torch.from_numpy(sequences))[0].detach().numpy()


def run_keras(kind, weights, sequences):
    options = {"reset_after": True} if kind == "GRU" else {}
    made = getattr(keras.layers, "SimpleRNN" if kind == "RNN" else kind)(HIDDEN, return_sequences=True, **options)
    made.build(sequences.shape)
    kernel, recurrent, *biases = weights
    made.set_weights([kernel.T, recurrent.T, keras_bias(*biases, kind == "GRU")])
    return made(sequences).numpy()


def run_onnx(kind, weights, sequences):
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    kernel, recurrent, *biases = weights
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w", "r", "b"], ["y"], hidden_size=HIDDEN, **options)],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, SAMPLES, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [STEPS, 1, SAMPLES, HIDDEN])],
        [
            numpy_helper.from_array(array[None], name)
            for name, array in (("w", kernel), ("r", recurrent), ("b", np.concatenate(biases)))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": sequences.transpose(1, 0, 2)})[0][:, 0].transpose(1, 0, 2)


RUN = {"torch": run_torch, "keras": run_keras, "onnx": run_onnx}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", FRAMEWORKS)
@pytest.mark.parametrize("target", FRAMEWORKS)
def test_gates_are_where_the_framework_looks_for_them(kind, source, target):
    cell = SlowCell(kind)
    sequences = np.random.default_rng(1).standard_normal((SAMPLES, STEPS, FEATURES)).astype(np.float32)
    weights = [reorder_gates(kind, weight, source, target) for weight in cell.stacked(source)]
    expected = np.stack([cell(sequence) for sequence in sequences])
    np.testing.assert_allclose(RUN[target](kind, weights, sequences), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_torch_are_reordered_as_arrays_are(kind):
    weight = np.random.default_rng(0).standard_normal((4 * 3 * 2, 3)).astype(np.float32)
    tensor = reorder_gates(kind, torch.from_numpy(weight), "torch", "onnx")
    np.testing.assert_array_equal(tensor.numpy(), reorder_gates(kind, weight, "torch", "onnx"))
    np.testing.assert_array_equal(reorder_gates(kind, tensor, "onnx", "torch").numpy(), weight)


def cells(kind, steps=4, lengths=None, peepholes=None, **attributes):
    return cells_of_onnx(kind, attributes, steps, lengths, peepholes)


def constant(*numbers):
    return Value("constant", np.dtype(np.float32), (len(numbers),), np.array(numbers, np.float32))


def test_cells_of_an_onnx_operator():
    assert cells("LSTM") == (RecurrentCell("LSTM", ("sigmoid", "tanh", "tanh")),)
    assert cells("RNN", activations=["Tanh", "Tanh"]) == (RecurrentCell("RNN", ("tanh",)),)
    assert cells("RNN", activations=["Tanh", "Relu"], direction="bidirectional") == (
        RecurrentCell("RNN", ("tanh",)),
        RecurrentCell("RNN", ("relu",)),
    )
    assert cells("GRU", linear_before_reset=1, lengths=constant(4, 4), peepholes=None) == (
        RecurrentCell("GRU", ("sigmoid", "tanh"), reset_after=True),
    )
    assert cells("LSTM", peepholes=constant(0, 0)) == cells("LSTM")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"clip": 1.0}, "clips"),
        ({"input_forget": 1}, "couples"),
        ({"peepholes": constant(0, 1)}, "peepholes"),
        ({"peepholes": Value("computed")}, "peepholes"),
        ({"lengths": constant(4, 3)}, "same length"),
        ({"lengths": constant(3, 3)}, "same length"),
        ({"lengths": Value("computed")}, "same length"),
        ({"activations": ["Sigmoid", "Tanh"]}, "all of its activations"),
        ({"direction": "bidirectional", "activations": ["Sigmoid", "Tanh", "Tanh"]}, "all of its activations"),
    ],
)
def test_what_neither_torch_nor_keras_computes_is_refused(settings, reason):
    with pytest.raises(Refusal, match=reason):
        cells("LSTM", **settings)


@pytest.mark.parametrize(
    ("cell", "in_torch", "in_keras"),
    [
        (RecurrentCell("LSTM", ("sigmoid", "tanh", "tanh")), None, None),
        (RecurrentCell("LSTM", ("sigmoid", "relu", "relu")), "tanh activations", None),
        (RecurrentCell("LSTM", ("sigmoid", "tanh", "relu")), "tanh activations", "no LSTM with the activations"),
        (RecurrentCell("LSTM", ("hardsigmoid", "tanh", "tanh")), "sigmoid gates", "hardsigmoid"),
        (RecurrentCell("GRU", ("sigmoid", "tanh"), reset_after=True), None, None),
        (RecurrentCell("GRU", ("sigmoid", "tanh")), "linear_before_reset", None),
        (RecurrentCell("RNN", ("relu",)), None, None),
        (RecurrentCell("RNN", ("softsign",)), "tanh and relu", None),
        (RecurrentCell("RNN", ("elu",)), "tanh and relu", "elu"),
    ],
)
def test_cells_that_a_framework_lacks_are_refused(cell, in_torch, in_keras):
    for check, reason in ((cell.require_in_torch, in_torch), (cell.require_in_keras, in_keras)):
        if reason is None:
            check()
        else:
            with pytest.raises(Refusal, match=reason):
                check()


def test_initial_states_are_left_out_where_they_are_zero():
    zero, one, computed = constant(0, 0), constant(1, 1), Value("computed")
    assert initial_states("LSTM", zero, None) == initial_states("RNN", None, None) == ()
    assert initial_states("LSTM", zero, computed) == (zero, computed)
    assert initial_states("GRU", one, computed) == (one,)
    with pytest.raises(Refusal, match="one of its two"):
        initial_states("LSTM", computed, None)
