"""Baselines of tokens, on functions of arrays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayAdapter

TOKENS = np.array([[1, 5, 4, 2], [1, 3, 2, 0]])
WEIGHTS = np.array([0.0, 1.0, 3.0, -2.0, 5.0, 7.0])


@pytest.fixture(autouse=True)
def toolset(omission: None) -> None:
    """Functions of arrays are explained."""


class Model:
    """The sum of a weight for each token."""

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray | None = None) -> np.ndarray:
        return WEIGHTS[input_ids].sum(1, keepdims=True)


class Pieces:
    """Texts and numbers, as sentencepiece has them."""

    words = ("<pad>", "<s>", "</s>", "<mask>", "a", "b")

    def id_to_piece(self, number: int) -> str:
        return self.words[number]

    def piece_to_id(self, token: str) -> int:
        return self.words.index(token)


def explain(baselines: Any, inputs: Any = TOKENS, model: Any = None, **arguments: Any) -> cfi.Attribution:
    return cfi.attribute(model or Model(), "omit", inputs=inputs, baselines=baselines, target=0, **arguments)


@pytest.mark.parametrize(("given", "number"), [("mask", 3), ("pad", 0), ("b", 5), (4, 4), ([[4], [4]], 4), ([4, 4], 4)])
def test_what_stands_for_a_token(given, number):
    found = explain(given, feature_names=Pieces())
    np.testing.assert_array_equal(found.values, WEIGHTS[TOKENS] - WEIGHTS[number])


def test_what_is_kept_is_zero():
    known = SimpleNamespace(**{f"{name}_token_id": place for place, name in enumerate(("pad", "cls", "sep"))})
    known.convert_ids_to_tokens = str
    expected = np.where(TOKENS > 2, WEIGHTS[TOKENS] - WEIGHTS[3], 0)
    for keep in (("special", "padding"), ["padding", "special"]):
        found = explain(cfi.TokenBaseline(3, keep=keep), feature_names=known)
        np.testing.assert_array_equal(found.values, expected)
    by_mask = explain(
        cfi.TokenBaseline(3, keep="padding"),
        {"input_ids": TOKENS, "attention_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 0]])},
    )
    expected = np.where([[True, True, True, False]] * 2, WEIGHTS[TOKENS] - WEIGHTS[3], 0)
    np.testing.assert_array_equal(by_mask.values["input_ids"], expected)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("house", cfi.ArgumentError, "configuration knows no token 'house'"),
        (cfi.TokenBaseline(3, keep="special"), cfi.ArgumentError, "Which tokens are special is not known"),
        (cfi.TokenBaseline(3, keep="padding"), cfi.ArgumentError, "What is padding is not known"),
        (6, cfi.InputError, "baselines are no tokens of the model: .* one is not in the vocabulary"),
        (("pad", "pad"), cfi.InputError, "2 parts for 1 inputs"),
    ],
)
def test_refusals(given, error, said):
    with pytest.raises(error, match=said):
        explain(given, model=lambda tokens: Model()(tokens))


def test_floats_have_no_tokens():
    with pytest.raises(cfi.ArgumentError, match="baselines='pad' is for tokens"):
        explain("pad", TOKENS / 2, lambda x: x.sum(1, keepdims=True))


@pytest.mark.parametrize("arguments", [{"keep": "words"}, {"token": 0.5}, {"token": True}])
def test_what_it_is_made_of(arguments):
    with pytest.raises(cfi.ArgumentError, match=r"is neither 'special' nor 'padding'|A TokenBaseline is made of"):
        cfi.TokenBaseline(**{"token": "pad", **arguments})


def test_a_vocabulary_of_known_size_is_looked_at_first(monkeypatch):
    monkeypatch.setattr(ArrayAdapter, "vocabulary", lambda adapter, model: 6)
    with pytest.raises(cfi.InputError, match="inputs hold the token 9, and the model's vocabulary goes from 0 to 5"):
        explain(0, TOKENS + 4)
    with pytest.raises(cfi.InputError, match="baselines hold the token -1"):
        explain(-1)
