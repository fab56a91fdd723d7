"""Recurrent layers, attention and masks, against Keras itself."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras_torch_cases import difference, functional, one_layer, randomised

from cfi_core.errors import TranslationError
from cfi_translate.keras_torch import convert

SHAPE = (7, 5)


def recurrent_states(x):
    steps, hidden, cell = L.LSTM(4, return_sequences=True, return_state=True)(x)
    gated, state = L.GRU(4, return_state=True)(steps)
    return [steps, cell, L.LSTM(4)(x, initial_state=[hidden, cell]), gated, state]


def attention(mask=False, dropout=0.0, **options):
    def build():
        def through(x):
            y = L.Masking()(x) if mask else x
            return L.Dense(3)(L.MultiHeadAttention(2, 3, dropout=dropout)(y, y, **options))

        return functional(through, SHAPE)

    return build


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
    "attention": attention(),
    "attention, masked": attention(mask=True),
    "attention, masked, dropout": attention(mask=True, dropout=0.1),
    "attention, causal": attention(mask=True, use_causal_mask=True),
    "attention scores": attention(return_attention_scores=False),
    "scores": lambda: functional(lambda x: L.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True), SHAPE),
    "time distributed": lambda: functional(distributed, (4, 8, 9, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_sequence_layer_computes_what_keras_computes(name):
    model = randomised(CASES[name]())
    generator = np.random.default_rng(3)
    array = generator.standard_normal((3, *model.inputs[0].shape[1:])).astype("float32")
    if "mask" in name or "causal" in name:
        array[0, 4:] = 0  # at the end, at the start and in between
        array[1, :2] = array[1, 4] = 0
        array[2, 1:] = 0
    measured = difference(model, (array,))
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
