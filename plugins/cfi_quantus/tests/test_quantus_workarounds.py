"""Faults of Quantus 0.6 that are worked around or refused: each is shown, so that the test fails when it is mended."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from quantus_models import TARGET, explain, make_cnn, make_images, make_linear, make_masks
from torch import nn

import cfi_quantus
from cfi_quantus.library import quantus, utils

QUIET = {"disable_warnings": True}


def call(metric, model, images, values, **more):
    arguments = {"model": model, "x_batch": images.copy(), "y_batch": np.array(TARGET), "a_batch": values.copy()}
    return metric(**{**arguments, "channel_first": True, **more})


@pytest.fixture
def case():
    model, images = make_cnn(), make_images()
    return model, images, explain(model, images)


def test_areas_are_computed_with_a_function_that_numpy_has_no_more(case):
    model, _, attribution = case
    gone = nullcontext() if hasattr(np, "trapz") else pytest.raises(AttributeError, match="trapz")
    with gone:
        utils.calculate_auc(np.ones(3))
    former = utils.calculate_auc
    found = cfi_quantus.evaluate(
        model, attribution, {"it": ("Pixel-Flipping", {"return_auc_per_sample": True})}, seed=0
    )
    curves = cfi_quantus.evaluate(model, attribution, "Pixel-Flipping", seed=0)["Pixel-Flipping"].values
    np.testing.assert_allclose(found["it"].values, np.trapezoid(curves, axis=-1), rtol=1e-5)
    assert utils.calculate_auc is former


def test_every_model_is_kept_for_ever(case):
    _, images, _ = case

    def run(evaluate):
        model = make_cnn()
        evaluate(model)
        return weakref.ref(model)

    kept = run(lambda model: utils.get_wrapped_model(model, channel_first=True, softmax=True).predict(images))
    gc.collect()
    assert kept() is not None

    def evaluate(model):
        metrics = ["Pixel-Flipping", ("MPRT", {"skip_layers": True})]
        cfi_quantus.evaluate(model, explain(model, images), metrics, seed=0)

    freed = run(evaluate)
    gc.collect()
    assert freed() is None and kept() is None


def test_monotonicity_is_content_with_everything():
    """Quantus adds the baseline to the baseline: a feature that lowers the output is not seen."""
    model, rows = make_linear([[1, -1, 2, -3], [1, 1, 1, 1]]), np.ones((3, 4), np.float32)
    values = np.array([[1, 1, 2, 3.0]] * 3)
    metric = quantus.Monotonicity(perturb_baseline=0.0, **QUIET)
    assert call(metric, model, rows, values, y_batch=np.zeros(3, int), softmax=False) == [True] * 3
    asked = ("Monotonicity-Arya", {"perturb_baseline": 0.0, "softmax": False})
    found = cfi_quantus.evaluate(model, values, asked, inputs=rows, target=0, seed=0)
    assert not found["Monotonicity-Arya"].values.any()


def test_sensitivity_n_adds_up_the_last_step_alone():
    weights = np.random.default_rng(0).integers(-4, 5, (2, 8))
    model, rows = make_linear(weights), np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    values = rows * weights[0]
    metric = quantus.SensitivityN(perturb_baseline=0.0, return_aggregate=False, normalise=False, **QUIET)
    shown = nn.Sequential(nn.Flatten(), model).eval()
    found = call(metric, shown, rows[:, None], values[:, None], y_batch=np.zeros(5, int), softmax=False)
    assert np.min(found) < 0.9  # of a linear model, whose drops are its attributions


def test_sensitivity_n_and_road_see_the_first_batch_alone(case):
    model, _, _ = case
    images = make_images(samples=5)
    values, classes = explain(model, images, 0).values, np.zeros(5, int)
    metric = quantus.ROAD(percentages=[50], **QUIET)
    np.random.seed(0)
    first = call(metric, model, images, values, y_batch=classes, batch_size=2)
    np.random.seed(0)
    alone = call(quantus.ROAD(percentages=[50], **QUIET), model, images[:2], values[:2], y_batch=classes[:2])
    assert first == alone
    whole = cfi_quantus.evaluate(
        model, values, ("ROAD", {"percentages": [50]}), inputs=images, target=0, batch_size=2, seed=0
    )
    np.random.seed(0)
    expected = call(quantus.ROAD(percentages=[50], **QUIET), model, images, values, y_batch=classes)
    np.testing.assert_array_equal(whole["ROAD"].values[0], list(expected.values()))


def test_irof_replaces_by_the_mean_of_all_samples_and_in_one_channel_alone(monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    model, images = make_cnn(), make_images()
    values = explain(model, images).values
    make = lambda: quantus.IROF(return_aggregate=False, **QUIET)  # noqa: E731
    together = call(make(), model, images, values)
    alone = call(make(), model, images, values, batch_size=1)
    assert np.abs(np.subtract(together, alone)).max() > 1e-3
    colours = make_images(3)
    with pytest.raises(AssertionError, match="same as the mask shape"):
        call(make(), make_cnn(3), colours, explain(make_cnn(3), colours).values)
    monkeypatch.undo()
    found = cfi_quantus.evaluate(make_cnn(3), explain(make_cnn(3), colours), "IROF", seed=0)["IROF"].values[0]
    one = cfi_quantus.evaluate(make_cnn(3), explain(make_cnn(3), colours[:1], TARGET[:1]), "IROF", seed=0)
    np.testing.assert_allclose(found[:1], one["IROF"].values[0], rtol=1e-5)


def test_the_first_value_is_not_shifted():
    images = make_images()
    metric = quantus.InputInvariance(**QUIET)
    shifted = quantus.perturb_batch(
        perturb_func=metric.perturb_func,
        indices=np.tile(np.arange(images[0].size), (3, 1)),
        indexed_axes=np.arange(3),
        arr=images,
    )
    moved = shifted != images
    assert not moved[:, 0, 0, 0].any() and moved.sum() == images.size - 3


def test_the_average_over_layers_counts_the_unchanged_model_in(case):
    model, images, attribution = case
    from test_quantus_by_hand import explain_func

    raw = call(quantus.MPRT(**QUIET), model, images, attribution.values, explain_func=explain_func)
    average = quantus.MPRT(return_average_correlation=True, **QUIET)
    found = call(average, model, images, attribution.values, explain_func=explain_func)
    np.testing.assert_allclose(found, np.mean(list(raw.values()), axis=0))
    np.testing.assert_allclose(raw["original"], 1)
    asked = {"it": ("MPRT", {"return_average_correlation": True}), "last": ("MPRT", {"return_last_correlation": True})}
    ours = cfi_quantus.evaluate(model, attribution, asked, seed=0)
    layers = [values for name, values in raw.items() if name != "original"]
    np.testing.assert_allclose(ours["it"].values[0], np.mean(layers, axis=0))
    np.testing.assert_allclose(ours["last"].values[0], layers[-1])


def test_smooth_mprt_explains_with_something_else(case, monkeypatch):
    model, images, attribution = case
    monkeypatch.setattr(quantus, "explain", lambda model, inputs, targets, **_: np.asarray(inputs, float) + 1)
    asked = []

    def explain_func(model, inputs, targets, **_):
        asked.append(inputs)
        return np.asarray(inputs)

    call(quantus.SmoothMPRT(nr_samples=2, **QUIET), model, images, attribution.values, explain_func=explain_func)
    assert not asked


@pytest.mark.parametrize("name", ["seuclidean", "euclidean"])
def test_sufficiency_and_its_distances(name):
    model, rows = make_linear([[1.0, 2, 3], [1, 1, 1]]), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    values = rows * [1, 1, 0]  # one feature without variance
    metric = quantus.Sufficiency(distance_func=name, **QUIET)
    arguments = {"y_batch": np.zeros(4, int)}
    if name == "seuclidean":
        assert not np.any(call(metric, model, rows, values, **arguments))
        assert not np.any(call(quantus.Sufficiency(threshold=1e9, **QUIET), model, rows, values, **arguments))
        return
    with pytest.raises(TypeError):
        call(metric, model, rows, values, **arguments)
    found = cfi_quantus.evaluate(
        model, values, ("Sufficiency", {"distance_func": name, "threshold": 1.0}), inputs=rows, target=0, seed=0
    )
    assert found["Sufficiency"].values.any()


def test_the_weighted_scores_are_other_ones(case):
    model, images, _ = case
    values, masks = np.zeros_like(images), make_masks()[:, None]
    values[:, 0, 3, 4], values[:, 0, 0, 0] = 1, 0.5
    with pytest.raises(TypeError, match="boolean array indexing"):
        call(quantus.PointingGame(weighted=True, **QUIET), model, images, values, s_batch=masks)
    weighted = quantus.AttributionLocalisation(weighted=True, **QUIET)
    found = call(weighted, model, images, values, s_batch=masks)
    assert np.isclose(found[0], (1 / 1.5) * 15 / 120)  # three samples: what is left behind two is one
    with pytest.warns(RuntimeWarning, match="divide by zero"), pytest.warns(UserWarning, match="max size"):
        call(weighted, model, images[:2], values[:2], s_batch=masks[:2], y_batch=np.zeros(2, int))


def test_an_empty_mask_is_a_hit(case):
    model, images, attribution = case
    masks = np.zeros((3, 1, 12, 10))
    assert all(call(quantus.PointingGame(**QUIET), model, images, attribution.values, s_batch=masks))


def test_road_takes_values_of_channels_for_pixels():
    model, images = make_cnn(3), make_images(3)
    with pytest.raises(IndexError):
        call(quantus.ROAD(percentages=[50], **QUIET), model, images, explain(model, images).values)


def test_a_map_is_completed_by_the_first_channel_alone():
    images = make_images(3)
    model = nn.Sequential(nn.Flatten(), make_linear(np.ones((2, images[0].size)))).eval()
    values = images.sum(1, keepdims=True).astype(np.float64)
    metric = quantus.Completeness(
        perturb_baseline=0.0, normalise=False, output_func=lambda drop: seen.append(drop), **QUIET
    )
    seen = []
    call(metric, model, images, values, y_batch=np.zeros(3, int))
    np.testing.assert_allclose(seen[0], images[:, 0].sum((1, 2)), rtol=1e-5)


def test_negative_layer_indices_name_other_layers():
    wrapped = utils.get_wrapped_model(make_cnn(), channel_first=True, softmax=False)
    images = make_images()
    last_but_one = wrapped.get_hidden_representations(images, layer_indices=[-2])
    np.testing.assert_array_equal(
        last_but_one, wrapped.get_hidden_representations(images, layer_names=["5"])
    )  # the last


def test_tables_are_refused():
    model, rows = make_linear(np.ones((2, 6))), np.arange(12.0, dtype=np.float32).reshape(2, 6)
    metric = quantus.FaithfulnessCorrelation(subset_size=2, **QUIET)
    with pytest.raises(ValueError, match="must be smaller than input size"):
        call(metric, model, rows, rows, y_batch=np.zeros(2, int))
    # and run with a channel, which the model does not see
    found = cfi_quantus.evaluate(
        model, rows, ("Faithfulness Correlation", {"subset_size": 2}), inputs=rows, target=0, seed=0
    )
    assert np.isfinite(found["Faithfulness Correlation"].values).all()


def test_a_functional_softmax_is_put_on_twice():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = make_linear([[5.0, 0], [0, 5]])

        def forward(self, rows):
            return torch.softmax(self.linear(rows), 1)

    model, rows = Functional().eval(), np.array([[1, 0.5], [0.25, 1]], np.float32)
    wrapped = utils.get_wrapped_model(model, channel_first=True, softmax=True)
    assert not np.allclose(wrapped.predict(rows), model(torch.as_tensor(rows)).detach())
    found = cfi_quantus.evaluate(
        model, rows, ("Pixel-Flipping", {"perturb_baseline": 0.0}), inputs=rows, target=0, seed=0
    )
    flipped = rows.copy()
    flipped[np.arange(2), rows.argmax(1)] = 0
    expected = model(torch.as_tensor(flipped)).detach().numpy()[:, 0]
    np.testing.assert_allclose(found["Pixel-Flipping"].values[0, :, 0], expected, rtol=1e-6)
