"""Scores with coordinates and provenance; batches, seeds and state."""

from __future__ import annotations

import copy
import json
import random
import sys

import numpy as np
import pytest
import torch
from quantus_models import SMALL, TARGET, explain, make_cnn, make_images, make_linear, make_masks
from torch import nn

import cfi_core as cfi
import cfi_quantus

ROWS = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def test_scores_of_several_methods_and_metrics():
    model, images = make_cnn(3), make_images(3)
    attributions = {"gradient": explain(model, images), "map": explain(model, images, key="plain_map")}
    asked = ["Sparseness", ("Pixel-Flipping", {"features_in_step": 40}), ("MPRT", {})]
    scores = cfi_quantus.evaluate(model, attributions, asked, seed=4)
    assert list(scores.data_vars) == ["Sparseness", "Pixel-Flipping", "MPRT"]
    assert list(scores["explanation"].values) == ["gradient", "map"] and list(scores["sample"].values) == [0, 1, 2]
    assert scores["Sparseness"].dims == ("explanation", "sample")
    assert scores["Pixel-Flipping"].sizes == {"explanation": 2, "sample": 3, "Pixel-Flipping step": 9}
    assert list(scores["MPRT layer"].values) == ["5", "2", "0"]  # from the top down
    assert scores.attrs["seed"] == 4 and scores.attrs["framework"] == "torch" and scores.attrs["route"] == "native"
    told = json.loads(scores.attrs["methods"])
    assert told["map"]["method"] == "plain_map" and told["gradient"]["toolset"] == "plain"
    array = scores[["Sparseness"]].to_dataarray("metric")
    assert array.dims == ("metric", "explanation", "sample")


def test_each_method_is_measured_as_if_alone():
    model, images = make_cnn(), make_images()
    first, second = explain(model, images), explain(model, images, key="plain_input_x_gradient")
    asked = [(name, SMALL[name]) for name in ("Faithfulness Correlation", "Max-Sensitivity", "Monotonicity-Nguyen")]
    both = cfi_quantus.evaluate(model, {"a": first, "b": second}, asked, seed=2)
    alone = cfi_quantus.evaluate(model, {"b": second}, asked[::-1], seed=2)
    for name, _ in asked:
        np.testing.assert_array_equal(both[name].sel({"explanation": "b"}), alone[name].sel({"explanation": "b"}))
    other = cfi_quantus.evaluate(model, {"b": second}, asked, seed=3)
    assert not np.allclose(other["Max-Sensitivity"], alone["Max-Sensitivity"])


@pytest.mark.parametrize("name", ["Pixel-Flipping", "Selectivity", "Infidelity", "SensitivityN", "ROAD", "Consistency"])
def test_scores_do_not_depend_on_batches(name):
    model, images = make_cnn(), make_images(samples=5)
    attribution = explain(model, images, 0)
    found = [
        cfi_quantus.evaluate(model, attribution, (name, SMALL.get(name, {})), batch_size=size, seed=0)[name].values
        for size in (2, 64)
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_targets_are_those_of_each_sample():
    model, images = make_cnn(), make_images()
    asked = ("Pixel-Flipping", {"features_in_step": 20, "softmax": False})
    values = explain(model, images).values
    each = cfi_quantus.evaluate(model, values, asked, inputs=images, target=TARGET, seed=0)["Pixel-Flipping"]
    for sample, target in enumerate(TARGET):
        one = cfi_quantus.evaluate(model, values, asked, inputs=images, target=target, seed=0)["Pixel-Flipping"]
        np.testing.assert_array_equal(each[:, sample], one[:, sample])
    last = cfi_quantus.evaluate(model, values, asked, inputs=images, target=-1, seed=0)["Pixel-Flipping"]
    same = cfi_quantus.evaluate(model, values, asked, inputs=images, target=4, seed=0)["Pixel-Flipping"]
    np.testing.assert_array_equal(last, same)


def test_the_model_and_the_process_stay_as_they_are():
    model, images = make_cnn(), make_images()
    model.train()
    before, given = copy.deepcopy(model.state_dict()), images.copy()
    with pytest.warns(cfi.ModelWarning, match="training mode"):
        attribution = explain(model, images)
    values = attribution.values.copy()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    asked = [
        (name, SMALL.get(name, {})) for name in ("MPRT", "Smooth MPRT", "Random Logit", "Complexity", "Sparseness")
    ]
    with pytest.warns(cfi.ModelWarning, match="training mode"):
        cfi_quantus.evaluate(model, attribution, asked, inputs=images, seed=0)
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_array_equal(images, given)
    np.testing.assert_array_equal(attribution.values, values)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_tables_and_series_have_no_channels_or_some():
    model = make_linear(np.random.default_rng(1).normal(size=(3, 6)))
    asked = ["Faithfulness Estimate", ("Pixel-Flipping", {"features_in_step": 3}), "MPRT", "NonSensitivity"]
    table = cfi_quantus.table(model, ["plain_input_x_gradient"], asked, inputs=ROWS, target=[0, 1, 2, 0, 1], seed=0)
    assert table["Pixel-Flipping"].sizes["Pixel-Flipping step"] == 2
    series = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 7, 4)).eval()
    inputs = np.random.default_rng(2).normal(size=(3, 2, 9)).astype(np.float32)
    asked = [("Pixel-Flipping", {"features_in_step": 3}), "Faithfulness Estimate", "Relative Input Stability"]
    asked[2] = ("Relative Input Stability", {"nr_samples": 2, "return_nan_when_prediction_changes": False})
    scores = cfi_quantus.table(series, ["plain_gradient"], asked, inputs=inputs, target=0, seed=0)
    assert scores["Pixel-Flipping"].sizes["Pixel-Flipping step"] == 6


def test_double_precision_stays():
    model = make_linear([[1e-9, 2.0], [0, 0]]).double()
    rows = np.array([[1.0, 1.0]])
    asked = ("Pixel-Flipping", {"softmax": False, "perturb_baseline": 0.0})
    scores = cfi_quantus.evaluate(model, rows * [1e-9, 2], asked, inputs=rows, target=0)
    np.testing.assert_allclose(scores["Pixel-Flipping"].values[0, 0], [1e-9, 0], rtol=1e-6)


def test_one_of_several_outputs_is_measured():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = make_linear(np.random.default_rng(1).normal(size=(3, 6)))

        def forward(self, rows):
            return {"other": rows, "scores": self.linear(rows)}

    model, plain = Two().eval(), Two().linear.eval()
    asked = [("Pixel-Flipping", {}), "Complexity"]
    found = cfi_quantus.evaluate(model, ROWS, asked, inputs=ROWS, target=("scores", 1), seed=0)
    expected = cfi_quantus.evaluate(plain, ROWS, asked, inputs=ROWS, target=1, seed=0)
    np.testing.assert_array_equal(found["Pixel-Flipping"], expected["Pixel-Flipping"])


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"attributions": {}}, cfi.ArgumentError, "attributions is empty"),
        ({"inputs": None}, cfi.ArgumentError, "pass inputs="),
        ({"attributions": ROWS[:3]}, cfi.InputError, r"have shape \(3, 6\), the inputs \(5, 6\)|of 3 samples"),
        ({"attributions": ROWS[:, :4]}, cfi.InputError, "pass values of the same"),
        ({"attributions": ROWS * np.nan}, cfi.InputError, "no finite numbers"),
        ({"target": lambda outputs: outputs[:, 0]}, cfi.TargetError, "the target is a function"),
        ({"target": 9}, cfi.TargetError, "out of range"),
        ({"batch_size": 0}, cfi.ArgumentError, "batch_size=0 is no number of samples"),
        ({"channels": "max"}, cfi.ArgumentError, "channels='max' is none of"),
        ({"resize": "cubic"}, cfi.ArgumentError, "resize='cubic' is none of"),
    ],
)
def test_what_does_not_fit(changes, error, match):
    model = make_linear(np.random.default_rng(1).normal(size=(3, 6)))
    given = {"attributions": ROWS, "metrics": "Sparseness", "inputs": ROWS, "target": 0, **changes}
    with pytest.raises(error, match=match):
        cfi_quantus.evaluate(model, **given)


def test_attributions_of_different_calls_are_told_apart():
    model = make_linear(np.random.default_rng(1).normal(size=(3, 6)))
    first, second = explain(model, ROWS, 0), explain(model, 2 * ROWS, 1, "plain_input_x_gradient")
    with pytest.raises(cfi.ArgumentError, match="of different inputs:"):
        cfi_quantus.evaluate(model, {"a": first, "b": second}, "Sparseness")
    with pytest.raises(cfi.ArgumentError, match="of different targets"):
        cfi_quantus.evaluate(model, {"a": first, "b": explain(model, ROWS, 1)}, "Sparseness")


def test_integers_are_not_perturbed():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(cfi.InputError, match="perturbs inputs by real numbers"):
        cfi_quantus.evaluate(model, np.ones((2, 3)), "Sparseness", inputs=np.array([[1, 2, 3], [3, 4, 5]]), target=0)


def test_masks_have_the_users_axes_without_channels():
    model, images = make_cnn(3), make_images(3)
    scores = cfi_quantus.evaluate(
        model, explain(model, images, key="plain_map"), "Relevance Mass Accuracy", masks=make_masks(), seed=0
    )
    values = explain(model, images, key="plain_map").values
    expected = (values * make_masks()).sum((1, 2)) / values.sum((1, 2))
    np.testing.assert_allclose(scores["Relevance Mass Accuracy"].values[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("methods", "error", "match"),
    [
        (["no_such_method"], cfi.UnknownMethodError, "no_such_method"),
        ([], cfi.ArgumentError, "methods is empty"),
        ({"it": 3}, cfi.ArgumentError, "The method 'it' is a key, or a dict"),
        ({"it": {"toolset": "plain"}}, cfi.ArgumentError, "The method 'it' is a key, or a dict"),
        ({"it": {"method_key": "plain_gradient", "plot": True}}, cfi.ArgumentError, "not 'plot'"),
    ],
)
def test_a_table_names_what_a_method_lacks(methods, error, match):
    with pytest.raises(error, match=match):
        cfi_quantus.table(make_cnn(), methods, "Sparseness", inputs=make_images(), target=0)


def test_one_method_needs_no_label():
    scores = cfi_quantus.table(make_cnn(), "plain_gradient", "Sparseness", inputs=make_images(), target=0)
    assert list(scores["explanation"].values) == ["plain_gradient"]


def test_a_table_is_printed_with_arrows():
    model, images = make_cnn(), make_images()
    methods = {
        "gradient": "plain_gradient",
        "times input": {"method_key": "plain_input_x_gradient", "toolset": "plain"},
    }
    asked = ["Sparseness", ("Max-Sensitivity", {"nr_samples": 2}), ("Pixel-Flipping", {"features_in_step": 40})]
    scores = cfi_quantus.table(model, methods, asked, inputs=images, target=TARGET, seed=0)
    frame = cfi_quantus.summarize(scores)
    assert list(frame.columns) == ["Sparseness ↑", "Max-Sensitivity ↓", "Pixel-Flipping ↓"]
    assert list(frame.index) == ["gradient", "times input"]
    np.testing.assert_allclose(
        frame["Pixel-Flipping ↓"], scores["Pixel-Flipping"].mean(("sample", "Pixel-Flipping step"))
    )
