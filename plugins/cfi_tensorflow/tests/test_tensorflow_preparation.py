"""Tasks with a preprocessor of their own, as KerasHub has them: texts become tokens as in `predict`."""

from __future__ import annotations

import sys
from types import ModuleType

import keras
import numpy as np
import pytest

from cfi_core.errors import InputError
from cfi_core.preparation import unpack_model
from cfi_core.registry import registry
from cfi_tensorflow.preparation import unpack_task

WORDS = ["[PAD]", "good", "bad", "film"]


class Preprocessor:
    """Tokens, four of them, and a mask; of pairs one text after the other."""

    tokenizer = property(lambda self: self)

    def id_to_token(self, number):
        return WORDS[number]

    def __call__(self, texts):
        sides = texts if isinstance(texts, tuple) else (texts,)
        rows = [" ".join(parts).split() for parts in zip(*sides, strict=True)]
        ids = np.array([[WORDS.index(word) for word in row] + [0] * (4 - len(row)) for row in rows])
        return {"token_ids": keras.ops.convert_to_tensor(ids), "padding_mask": keras.ops.convert_to_tensor(ids > 0)}


class Task(keras.Model):
    preprocessor = None


def make(preprocessor=None):
    ids, mask = keras.Input((4,), name="token_ids", dtype="int32"), keras.Input((4,), name="padding_mask", dtype="bool")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(4, 3)(ids), mask=mask)
    task = Task({"token_ids": ids, "padding_mask": mask}, keras.layers.Dense(2)(pooled))
    task.preprocessor = preprocessor
    return task


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """The module in which KerasHub has its tasks."""
    module = ModuleType("keras_hub.models")
    module.Task = Task
    monkeypatch.setitem(sys.modules, "keras_hub.models", module)


def test_texts_become_what_the_preprocessor_makes_of_them():
    task = make(Preprocessor())
    for texts, ids in (
        (["good film", "bad"], [[1, 3, 0, 0], [2, 0, 0, 0]]),
        ("good", [[1, 0, 0, 0]]),
        ([("good film", "bad"), ("bad", "film")], [[1, 3, 2, 0], [2, 3, 0, 0]]),
    ):
        model, inputs = unpack_model(registry(), task, texts)
        assert model is task
        np.testing.assert_array_equal(inputs["token_ids"], ids)
        np.testing.assert_array_equal(inputs["padding_mask"], np.array(ids) > 0)
    assert unpack_task(task, "good").feature_names["token_ids"].id_to_token(1) == "good"


@pytest.mark.parametrize("inputs", [{"token_ids": np.zeros((1, 4))}, np.zeros((1, 4)), [1, 2], [], None, ["a", 3]])
def test_all_else_goes_to_the_model_as_it_is(inputs):
    assert unpack_task(make(Preprocessor()), inputs) is None


def test_without_a_preprocessor_the_names_are_told():
    with pytest.raises(InputError, match=r"has no preprocessor .* \(padding_mask, token_ids\)"):
        unpack_task(make(), ["good"])
