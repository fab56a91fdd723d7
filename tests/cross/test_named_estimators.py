"""Tables, classes by name and outputs with other things in them, of scikit-learn's estimators and plain functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import cfi_core as cfi

FLOATS = np.zeros((2, 3))


def test_columns_in_another_order_are_refused():
    """Read as an array, each would be taken for another."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["age", "dose"])
    model = LogisticRegression().fit(frame, frame["age"] > 0)
    turned = frame[["dose", "age"]]
    with pytest.raises(
        cfi.InputError, match=r"columns dose, age.*fitted on age, dose.*pass inputs\[\['age', 'dose'\]\]"
    ):
        cfi.attribute(model, "feature_ablation", "captum", inputs=turned, target=1)


def test_a_class_by_its_name_and_the_predicted_one():
    frame = np.random.default_rng(0).normal(size=(30, 2))
    model = LogisticRegression().fit(frame, np.where(frame[:, 0] > 0, "ill", "well"))
    named = cfi.attribute(model, "feature_ablation", "captum", inputs=frame[:3], target="well")
    first = cfi.attribute(model, "feature_ablation", "captum", inputs=frame[:3], target=1)
    np.testing.assert_array_equal(named.values, first.values)
    predicted = cfi.attribute(model, "feature_ablation", "captum", inputs=frame[:3], target="predicted")
    chosen = model.predict_proba(frame[:3]).argmax(1)
    assert predicted.provenance["target"] == tuple((int(one),) for one in chosen)
    with pytest.raises(cfi.TargetError, match=r"no class named .wel.. Near: .well."):
        cfi.attribute(model, "feature_ablation", "captum", inputs=frame[:3], target="wel")


def test_what_is_no_array_in_an_output_is_left_out():
    """As the caches of language models are; positions stay."""

    class Cache:
        pass

    def model(x):
        return Cache(), "words", x @ np.eye(3)

    found = cfi.attribute(model, "feature_ablation", "captum", inputs=FLOATS + 1, target=(2, 1))
    np.testing.assert_allclose(found.values, np.eye(3)[[1, 1]], atol=1e-6)
    with pytest.raises(cfi.InputError, match=r"gives nothing|no numbers to explain"):
        cfi.attribute(lambda x: "words", "feature_ablation", "captum", inputs=FLOATS, target=0)
