"""What the model predicts for each sample comes home with the attribution; no probability is made up."""

from __future__ import annotations

import numpy as np
import pytest

import cfi_core as cfi

X = np.random.default_rng(0).normal(size=(3, 4))
SCORES = np.array([[0.0, 2.0, -1.0], [3.0, 1.0, 3.5], [-1.0, -2.0, -3.0]])


def linear(x):
    """Known scores at the samples; what else is asked for changes with the inputs."""
    return x @ np.linalg.lstsq(X, SCORES, rcond=None)[0]


def softmax(x):
    powers = np.exp(linear(x))
    return powers / powers.sum(1, keepdims=True)


class Classifier:
    """As an estimator of scikit-learn, whose classes have names."""

    classes_ = np.array(["cat", "dog", "bird"])

    def predict_proba(self, x):
        return softmax(x)


@pytest.fixture(autouse=True)
def toolset(omission: None) -> None:
    """Functions of arrays are explained."""


def predicted(model, target=0):
    return cfi.attribute(model, "omit", inputs=X, target=target).provenance["predicted"]


def test_outputs_are_told_as_they_are():
    found = predicted(linear)
    assert [one["class"] for one in found] == [1, 2, 0]
    assert [one["value"] for one in found] == pytest.approx([2.0, 3.5, -1.0])
    assert {(one["kind"], one["name"]) for one in found} == {("output", None)}


def test_a_probability_is_one_where_the_model_gives_it():
    found = predicted(softmax, target=1)
    powers = np.exp(SCORES)
    assert [one["value"] for one in found] == pytest.approx(powers.max(1) / powers.sum(1))
    assert {one["kind"] for one in found} == {"probability"}
    assert predicted(lambda x: 1 / (1 + np.exp(-linear(x))))[0]["kind"] == "output", "sigmoids do not add up to one"


def test_classes_have_the_names_that_the_model_knows():
    assert [one["name"] for one in predicted(Classifier())] == ["dog", "bird", "cat"]


def test_what_is_no_choice_of_a_class_is_no_prediction():
    assert predicted(lambda x: linear(x)[:, :1]) is None
    assert predicted(lambda x: linear(x)[..., None].repeat(2, -1), target=(0, 1)) is None
