"""Texts: their words are features, and a word's baseline is that it is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import cfi_core as cfi
from cfi_core.words import as_texts, split_words

TEXTS = ["A really great film, great fun!", "bad film"]
TRAINED = [*TEXTS, "not great", "so bad, really bad", "fun and great", "bad plot"]
LABELS = ["good", "bad", "bad", "bad", "good", "bad"]


@pytest.fixture(autouse=True)
def toolset(omission: None) -> None:
    """Functions of arrays are explained."""


def score(texts: list[str]) -> np.ndarray:
    """Letters, and how often there is an "a"."""
    return np.array([[len(text), text.lower().count("a")] for text in texts], float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A film, don't  watch!", ["A ", "film, ", "don't  ", "watch!"]),
        ("… well-made\n(really)", ["… well-made\n(", "really)"]),
        ("très bon", ["très ", "bon"]),
        ("...", []),
    ],
)
def test_words_are_the_text_again(text, words):
    assert split_words(text) == words
    assert "".join(words) in (text, "")


@pytest.mark.parametrize("inputs", [TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), pd.Series(TEXTS)])
def test_texts_come_in_many_forms(inputs):
    assert as_texts(inputs) == TEXTS
    found = cfi.attribute(score, "omit", inputs=inputs, target=0)
    expected = [[len(word) for word in split_words(text)] for text in TEXTS]
    np.testing.assert_array_equal(found.values[0], expected[0])
    np.testing.assert_array_equal(found.values[1], [*expected[1], 0, 0, 0, 0])
    assert found.dims == ("sample", "token")
    assert found.feature_names[1] == ("bad", "film", "", "", "", "")
    assert found.feature_names[0] == ("A", "really", "great", "film", "great", "fun")
    assert found.provenance["preparation"].startswith("texts were split into words")


@pytest.mark.parametrize("other", [3, [], ["a", 3], np.zeros((2, 2)), pd.DataFrame({"a": ["b"]}), np.array([["a"]])])
def test_what_is_no_text(other):
    assert as_texts(other) is None


@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), CountVectorizer(ngram_range=(1, 2))])
def test_a_pipeline_of_texts_loses_one_word_at_a_time(vectorizer):
    pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(TRAINED, LABELS)
    found = cfi.attribute(pipeline, "omit", inputs=TEXTS, target="good")
    for text, row in zip(TEXTS, found.values, strict=True):
        words = split_words(text)
        left = ["".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
        expected = pipeline.predict_proba([text])[:, 1] - pipeline.predict_proba(left)[:, 1]
        np.testing.assert_allclose(row[: len(words)], expected, rtol=1e-9, atol=1e-15)
        assert not row[len(words) :].any()
    assert found.provenance["classes"] == ("good",)


def test_one_text_alone():
    assert cfi.attribute(score, "omit", inputs="a cat", target=1).values.tolist() == [[1.0, 1.0]]


def test_names_and_baselines_of_the_user_win():
    found = cfi.attribute(score, "omit", inputs="a cat", target=0, feature_names=["x", "y"], baselines=2)
    assert found.feature_names == ("x", "y") and found.values.tolist() == [[-1.0, 0.0]]


def test_refusals():
    with pytest.raises(cfi.InputError, match="no words in text 1"):
        cfi.attribute(score, "omit", inputs=["a", "..."], target=0)
    with pytest.raises(cfi.CFIError, match="pass an array of numbers"):
        cfi.attribute(score, "omit", inputs=["a", 3], target=0)
