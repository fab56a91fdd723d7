"""Quantus's metrics on models of other frameworks give the numbers of the torch twin."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from shared_cnn import HEIGHT, WIDTH, to_last
from sklearn.linear_model import LogisticRegression

import cfi_core as cfi
import cfi_quantus

TARGET = [1, 3]
README = Path(cfi_quantus.__file__).parents[2] / "README.md"
RUNS = {
    "Pixel-Flipping": {"features_in_step": 56},
    "Faithfulness Correlation": {"subset_size": 100, "nr_runs": 10},
    "Region Segmentation": {"patch_size": 4},
    "Infidelity": {"perturb_patch_sizes": [2], "n_perturb_samples": 1},
    "IROF": {},
    "Sparseness": {},
    "Max-Sensitivity": {"nr_samples": 2},
    "Relative Output Stability": {"nr_samples": 2, "return_nan_when_prediction_changes": False},
    "Random Logit": {},
}
CHANGES = {
    "MPRT": {},
    "Efficient MPRT": {},
    "Relative Representation Stability": {
        "nr_samples": 2,
        "return_nan_when_prediction_changes": False,
        "layer_names": ["relu1", "relu2"],
    },
}


def ask(metrics):
    return list(metrics.items())


def measure(model, images, metrics, method="saliency", **given):
    methods = {"it": {"method_key": method, "toolset": "captum"}}
    return cfi_quantus.table(model, methods, ask(metrics), inputs=images, target=TARGET, seed=5, **given)


def assert_same(found, expected, rtol=2e-3):
    for name in expected.data_vars:
        scale = float(np.abs(expected[name]).max())
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.fixture(scope="module")
def of_torch(twins):
    return measure(twins.torch_model, twins.first, RUNS)


def test_a_keras_model_over_the_bridge(twins, of_torch):
    scores = measure(twins.keras_model, twins.last, RUNS)
    assert scores.attrs["route"] == "bridge-to-torch" and scores.attrs["framework"] == "tensorflow"
    assert_same(scores, of_torch)


def test_a_keras_model_through_a_conversion_is_compared_with_itself(twins, of_torch):
    runs = {name: RUNS[name] for name in ("Pixel-Flipping", "Max-Sensitivity")}
    scores = measure(twins.keras_model, twins.last, runs, translator="conversion")
    assert "bridge" not in scores.attrs["route"]
    assert_same(scores, of_torch[list(runs)])


def test_weights_of_a_keras_model_are_randomised_in_its_conversion(twins):
    """The modules have other names there and the same order, so the same weights are drawn."""
    scores = measure(twins.keras_model, twins.last, CHANGES)
    expected = measure(twins.torch_model, twins.first, CHANGES)
    assert "(modules)" in "".join(scores.attrs) and "bridge" not in scores.attrs["route (modules)"]
    assert float(scores["MPRT"].attrs["original"]) > 0.999
    assert scores["MPRT"].shape == expected["MPRT"].shape == (1, 2, 3)
    same = ["Relative Representation Stability"]
    assert_same(scores[same], expected[same])
    assert np.abs(scores["MPRT"]).max() < 0.9


def test_arguments_of_a_method_are_carried_to_randomised_copies(twins):
    """Windows and baselines are in the axes of the Keras model."""
    methods = {
        "it": {
            "method_key": "occlusion",
            "toolset": "captum",
            "baselines": np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH, 3)).astype(np.float32),
            "exec_args": {"sliding_window_shapes": (7, 5, 3), "strides": (7, 5, 3)},
        }
    }
    scores = cfi_quantus.table(twins.keras_model, methods, ["MPRT"], inputs=twins.last, target=TARGET, seed=0)
    assert float(scores["MPRT"].attrs["original"]) > 0.999


def test_a_map_of_a_layer_by_another_toolset(twins):
    methods = {"it": {"method_key": "grad_cam", "toolset": "tf-keras-vis", "layer": "conv2"}}
    asked = [("Max-Sensitivity", {"nr_samples": 2}), ("Pixel-Flipping", {"features_in_step": 70}), "MPRT"]
    given = {"target": TARGET, "seed": 1, "resize": "bilinear"}
    scores = [
        cfi_quantus.table(model, methods, asked, inputs=images, **given)
        for model, images in ((twins.keras_model, twins.last), (twins.torch_model, twins.first))
    ]
    assert "resized (bilinear)" in scores[0].attrs["applied"]
    same = ["Max-Sensitivity", "Pixel-Flipping"]
    assert_same(scores[0][same], scores[1][same])


def test_a_softmax_at_the_end_of_a_keras_model(softmax_twins, twins):
    asked = {
        "probabilities": ("Pixel-Flipping", {"features_in_step": 140}),
        "logits": ("Pixel-Flipping", {"features_in_step": 140, "softmax": False}),
    }
    values = cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.first, target=TARGET).values
    plain = cfi_quantus.evaluate(twins.torch_model, values, asked, inputs=twins.first, target=TARGET, seed=0)
    ended = cfi_quantus.evaluate(
        softmax_twins.keras_model, to_last(values), asked, inputs=twins.last, target=TARGET, seed=0
    )
    assert_same(ended, plain)
    assert "softmax was left out" in ended["logits"].attrs["output"]


def test_functions_of_jax():
    jax = pytest.importorskip("jax")
    weights = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    rows = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    linear = torch.nn.Linear(6, 3, bias=False).eval()
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(weights.T))
    methods = {"it": {"method_key": "input_x_gradient", "toolset": "captum"}}
    asked = ["Faithfulness Estimate", ("Max-Sensitivity", {"nr_samples": 2})]
    given = {"target": [0, 2], "seed": 5}

    def function(x):
        return x @ weights

    tensors = jax.numpy.asarray(rows)
    found = cfi_quantus.table(function, methods, asked, inputs=tensors, **given)
    assert found.attrs["framework"] == "jax"
    assert_same(found, cfi_quantus.table(linear, methods, asked, inputs=rows, **given))
    attribution = cfi.attribute(function, "input_x_gradient", "captum", inputs=tensors, target=[0, 2])
    with pytest.raises(cfi.ArgumentError, match="pass inputs= as tensors of jax"):
        cfi_quantus.evaluate(function, attribution, asked)
    assert_same(cfi_quantus.evaluate(function, {"it": attribution}, asked, inputs=tensors, seed=5), found)


def test_an_estimator_and_what_it_cannot_be_measured_by():
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    classifier = LogisticRegression().fit(rows, rows[:, 1] > rows[:, 4])
    methods = {"ablation": {"method_key": "feature_ablation", "toolset": "captum"}}
    asked = [("Pixel-Flipping", {"perturb_baseline": 0.0}), ("Max-Sensitivity", {"nr_samples": 2})]
    scores = cfi_quantus.table(classifier, methods, asked, inputs=rows[:3], target=1, seed=0)
    flipped = rows[:3].copy()
    order = np.argsort(-_ablated(classifier, rows[:3]), axis=1)
    for step in range(6):
        flipped[np.arange(3), order[:, step]] = 0
        expected = classifier.predict_proba(flipped)[:, 1]
        np.testing.assert_allclose(scores["Pixel-Flipping"].values[0, :, step], expected, atol=1e-6)
    with pytest.raises(cfi.RouteError, match="modules"):
        cfi_quantus.table(classifier, methods, ["MPRT"], inputs=rows[:3], target=1)


def _ablated(classifier, rows):
    whole = classifier.predict_proba(rows)[:, 1]
    drops = []
    for feature in range(rows.shape[1]):
        without = rows.copy()
        without[:, feature] = 0
        drops.append(whole - classifier.predict_proba(without)[:, 1])
    return np.stack(drops, axis=1)


def test_an_onnx_model(twins, of_torch, tmp_path):
    runs = {name: RUNS[name] for name in ("Pixel-Flipping", "Max-Sensitivity")}
    onnx = cfi.translate(twins.torch_model, "onnx", inputs=twins.first).model
    assert_same(measure(onnx, twins.first, runs), of_torch[list(runs)])


@pytest.mark.filterwarnings("error::cfi_core.CFIWarning")
def test_the_readme(twins, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    given = {"model": twins.keras_model, "images": twins.last, "labels": TARGET}
    exec(compile(example, "README.md", "exec"), given)
    printed = capsys.readouterr().out
    assert "Relative Representation Stability" in printed and "MPRT ↓" in printed
    assert set(given["scores"].dims) == {"explanation", "sample", "MPRT layer"}


def test_the_keras_model_stays_as_it_is(twins):
    before = [np.array(weight) for weight in twins.keras_model.get_weights()]
    measure(twins.keras_model, twins.last, {**CHANGES, "Sparseness": {}})
    for weight, former in zip(twins.keras_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, former)
    assert isinstance(twins.keras_model, keras.Model)
