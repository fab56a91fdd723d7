"""Recurrent layers and masks, against Keras itself."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras_torch_cases import difference, functional, one_layer, randomised, sequence

from cfi_core.errors import TranslationError
from cfi_translate.keras_torch import convert

SHAPE = (7, 5)


def recurrent_states(x):
    steps, hidden, cell = L.LSTM(4, return_sequences=True, return_state=True)(x)
    gated, state = L.GRU(4, return_state=True)(steps)
    return [steps, cell, L.LSTM(4)(x, initial_state=[hidden, cell]), gated, state]


def distributed(x):
    x = L.TimeDistributed(L.Conv2D(3, 3, activation="relu"))(x)
    return L.LSTM(3)(L.TimeDistributed(L.Dense(5))(L.TimeDistributed(L.Flatten())(x)))


CASES = {
    "LSTM": one_layer(SHAPE, lambda: L.LSTM(4, return_sequences=True), lambda: L.LSTM(3, use_bias=False)),
    "GRU": one_layer(SHAPE, lambda: L.GRU(4, return_sequences=True), lambda: L.GRU(3, use_bias=False)),
    "SimpleRNN": one_layer(
        SHAPE,
        lambda: L.SimpleRNN(4, return_sequences=True, go_backwards=True),
        lambda: L.RNN(L.SimpleRNNCell(3, activation="relu")),
    ),
    "states": lambda: functional(recurrent_states, SHAPE),
    "bidirectional": one_layer(
        SHAPE,
        lambda: L.Bidirectional(L.LSTM(4, return_sequences=True)),
        lambda: L.Bidirectional(L.GRU(3), merge_mode="sum"),
    ),
    "different ways": one_layer(
        SHAPE,
        lambda: L.Bidirectional(L.SimpleRNN(4, return_sequences=True), merge_mode="ave"),
        lambda: L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(3, go_backwards=True), merge_mode="mul"),
    ),
    "bidirectional states": one_layer(SHAPE, lambda: L.Bidirectional(L.LSTM(4, return_state=True))),
    "masked": one_layer(
        SHAPE,
        L.Masking,
        lambda: L.LSTM(4, return_sequences=True),
        lambda: L.GRU(3, return_sequences=True, go_backwards=True),
        lambda: L.Bidirectional(L.LSTM(3, return_sequences=True)),
        lambda: L.Bidirectional(L.GRU(2)),
    ),
    "masked mean": one_layer(SHAPE, L.Masking, lambda: L.Dense(4), L.GlobalAveragePooling1D),
    "time distributed": lambda: functional(distributed, (4, 8, 9, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_recurrent_layer_computes_what_keras_computes(name):
    model = randomised(CASES[name]())
    measured = difference(model, (sequence(model, with_gaps="mask" in name),))
    assert measured.outputs < 5e-6 and measured.gradients < 5e-5


def test_tokens_with_padding():
    def through(tokens):
        x = L.Embedding(9, 5, mask_zero=True, name="embedding")(tokens)
        return L.GRU(4)(L.Bidirectional(L.LSTM(3, return_sequences=True))(L.LayerNormalization()(x)))

    model = randomised(functional(through, (7,), dtype="int64"))
    tokens = np.random.default_rng(0).integers(0, 4, (3, 7))
    assert (tokens == 0).any()
    assert difference(model, (tokens,)).outputs < 5e-6


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: L.GRU(3, reset_after=False), "reset_after=True"),
        (lambda: L.LSTM(3, activation="relu"), "tanh activations, not sigmoid, relu, relu"),
        (
            lambda: L.LSTM(3, recurrent_activation="hard_sigmoid"),
            "sigmoid gates.* not hard_sigmoid",
        ),
        (lambda: L.RNN(keras.layers.StackedRNNCells([L.LSTMCell(3)])), "StackedRNNCells"),
        (lambda: L.SimpleRNN(3, activation="gelu"), "tanh and relu"),
        (lambda: L.SimpleRNN(3, activation=lambda x: x), "not another <lambda>"),
    ],
)
def test_recurrent_layers_that_torch_lacks_are_refused(layer, reason):
    model = one_layer(SHAPE, layer)()
    with pytest.raises(TranslationError, match=reason):
        convert(model, (np.zeros((2, *SHAPE), "float32"),))


@pytest.mark.parametrize("layer", [L.LSTM(3), L.Bidirectional(L.GRU(3)), L.Softmax(1), L.GlobalAveragePooling1D()])
def test_a_mask_that_is_a_constant_is_refused(layer):
    mask = np.ones((2, SHAPE[0]), bool)
    model = functional(lambda x: layer(x, mask=mask), SHAPE)
    with pytest.raises(TranslationError, match="its mask is no"):
        convert(model, (np.zeros((2, *SHAPE), "float32"),))
