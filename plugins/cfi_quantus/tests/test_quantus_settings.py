"""Metrics and their arguments in Quantus's own words; what is not known is refused with the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from quantus_models import make_linear

import cfi_core as cfi
import cfi_quantus
from cfi_quantus.settings import read_metrics

ROWS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        ("Sparseness", ["Sparseness"]),
        ("pixel flipping", ["Pixel-Flipping"]),
        ("ModelParameterRandomisation", ["MPRT"]),
        ("Region-Perturbation", ["Region Segmentation"]),
        (("Pixel-Flipping", {"features_in_step": 2}), ["Pixel-Flipping"]),
        (["Sparseness", ("AUC", {})], ["Sparseness", "AUC"]),
        (("Sparseness", "Complexity"), ["Sparseness", "Complexity"]),
        ({"raw": ("Complexity", {"normalise": False}), "as it is": "Complexity"}, ["raw", "as it is"]),
    ],
)
def test_how_metrics_are_asked_for(asked, labels):
    assert [setting.label for setting in read_metrics(asked)] == labels


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("Sparsenes", "no metric 'Sparsenes'. Nearest: Sparseness"),
        ("qqq", "cfi_quantus.metrics"),
        (3, "is a name or a pair"),
        ([], "metrics is empty"),
        (["AUC", ("AUC", {})], "AUC stand twice"),
        (("Pixel-Flipping", {"feature_in_step": 2}), "takes no 'feature_in_step'. It takes features_in_step"),
        (("Sparseness", {"custom_batch": 1}), "takes no 'custom_batch'"),
        (("Sparseness", {"explain_func": print}), "CFI explains, with the method"),
        (("Sparseness", {"s_batch": 1}), "pass masks="),
        (("MPRT", {"return_sample_correlation": True}), "renamed it"),
        (("MPRT", {"return_average_correlation": True, "skip_layers": True}), "exclude each other"),
    ],
)
def test_what_is_refused(asked, match):
    with pytest.raises(cfi.ArgumentError, match=match):
        read_metrics(asked)


def test_arguments_are_left_as_they_are():
    """Quantus writes into the arguments that it is given."""
    given = {"n_bins_default": 20}
    setting = read_metrics(("Efficient MPRT", {"complexity_func_kwargs": given}))[0]
    setting.init["complexity_func_kwargs"]["n_bins"] = 3
    assert given == {"n_bins_default": 20}


def test_quantuss_defaults_stand_in_the_attributes():
    scores = cfi_quantus.evaluate(make_linear(np.ones((2, 6))), ROWS, "Sparseness", inputs=ROWS, target=0)
    attrs = scores["Sparseness"].attrs
    assert (attrs["abs"], attrs["normalise"], attrs["normalise_func"]) == ("True", "True", "None")
    assert attrs["better"] == "higher" and attrs["category"] == "Complexity"
    assert attrs["citation"].startswith("Chalasani")


def test_absolute_values_are_chosen_without_a_word(capsys):
    values = np.abs(ROWS)
    asked = {"abs": "Sparseness", "raw": ("Sparseness", {"abs": False}), "one": ("Complexity", {"abs": False})}
    scores = cfi_quantus.evaluate(make_linear(np.ones((2, 6))), values, asked, inputs=ROWS, target=0)
    np.testing.assert_array_equal(scores["raw"], scores["abs"])
    signed = cfi_quantus.evaluate(
        make_linear(np.ones((2, 6))), ROWS, {"raw": ("Effective Complexity", {"abs": False})}, inputs=ROWS, target=0
    )
    np.testing.assert_array_equal(signed["raw"].values[0], (ROWS > 0).sum(1))
    assert capsys.readouterr().out == ""


def test_scores_are_put_together_if_asked():
    asked = {"mean": ("Sparseness", {"return_aggregate": True}), "each": "Sparseness"}
    asked["max"] = ("Sparseness", {"return_aggregate": True, "aggregate_func": np.max})
    scores = cfi_quantus.evaluate(make_linear(np.ones((2, 6))), ROWS, asked, inputs=ROWS, target=0)
    assert scores["mean"].dims == scores["max"].dims == ("explanation",)
    np.testing.assert_allclose(scores["mean"], scores["each"].mean("sample"))
    np.testing.assert_allclose(scores["max"], scores["each"].max("sample"))
