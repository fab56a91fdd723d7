"""Attention and its masks, against Keras itself."""

from __future__ import annotations

import numpy as np
import pytest
from keras import layers as L
from keras import ops
from keras_torch_cases import difference, functional, randomised, sequence

from cfi_core.errors import TranslationError
from cfi_translate.keras_torch import convert

SHAPE = (7, 5)


def attention(mask=False, dropout=0.0, **options):
    def build():
        def through(x):
            y = L.Masking()(x) if mask else x
            return L.Dense(3)(L.MultiHeadAttention(2, 3, dropout=dropout)(y, y, **options))

        return functional(through, SHAPE)

    return build


def masks_of_their_own(x):
    """Values and keys with masks of their own, a mask of queries × keys, another size of the result."""
    between = ops.ones_like(x[:, :, :1]) * ops.transpose(x[:, :, :1], (0, 2, 1)) > -0.5
    attend = L.MultiHeadAttention(2, 3, value_dim=4, output_shape=6)
    return attend(x, L.Masking()(x), L.Masking(1.0)(x), attention_mask=between)


def operation(x, **options):
    query, key, value = (ops.reshape(L.Dense(6)(x), (-1, 7, 2, 3)) for _ in range(3))
    return ops.dot_product_attention(query, key, value, **options)


CASES = {
    "attention": attention(),
    "attention, masked": attention(mask=True),
    "attention, masked, dropout": attention(mask=True, dropout=0.1),
    "attention, causal": attention(mask=True, use_causal_mask=True),
    "attention scores": attention(return_attention_scores=False),
    "scores": lambda: functional(lambda x: L.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True), SHAPE),
    "masks of their own": lambda: functional(masks_of_their_own, SHAPE),
    "operation, causal": lambda: functional(lambda x: operation(x, is_causal=True), SHAPE),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_computes_what_keras_computes(name):
    model = randomised(CASES[name]())
    measured = difference(model, (sequence(model, with_gaps="mask" in name or "causal" in name),))
    assert measured.outputs < 5e-6 and measured.gradients < 5e-5


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: L.MultiHeadAttention(2, 3)(x, x, query_mask=x[:, :, 0] > 0), "mask of its queries"),
        (lambda x: operation(x, bias=np.zeros((1, 2, 7, 7), "float32")), "it has a bias"),
        (lambda x: L.MultiHeadAttention(2, 3)(x, x, attention_mask=np.ones((1, 7, 7), bool)), "attention mask is no"),
    ],
)
def test_attention_that_would_come_out_otherwise_is_refused(function, reason):
    model = functional(function, SHAPE)
    with pytest.raises(TranslationError, match=reason):
        convert(model, (np.zeros((2, *SHAPE), "float32"),))
