"""Metrics of models and attributions for which the score is known from the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from quantus_models import HEIGHT, WIDTH, explain, make_images, make_linear, make_masks
from torch import nn

import cfi_quantus

WEIGHTS = np.array([[2, -1, 0.5, 4, 0, 1], [1, 1, -2, 0.25, 0, 8]])
ROWS = np.array([[1, 2, 4, -1, 3, 0.5], [-2, 0.5, 1, 1, 1, 2], [4, -1, 0.25, 2, -3, 1]], np.float32)
TARGET = [0, 1, 0]
ZERO = {"perturb_baseline": 0.0, "softmax": False}


def drops() -> np.ndarray:
    """What each feature adds to the output of the class: on a linear model, input times gradient."""
    return WEIGHTS[TARGET] * ROWS


def score(model: Any, attribution: Any, name: str, **arguments: Any) -> np.ndarray:
    return cfi_quantus.evaluate(model, attribution, {"it": (name, arguments)}, seed=3)["it"].values[0]


def tabular(name: str, key: str = "plain_input_x_gradient", **arguments: Any) -> np.ndarray:
    model = make_linear(WEIGHTS)
    return score(model, explain(model, ROWS, TARGET, key), name, **arguments)


def image_model(channels: int = 3) -> tuple[nn.Module, np.ndarray]:
    weights = np.random.default_rng(2).integers(-4, 5, (2, channels * HEIGHT * WIDTH))
    return nn.Sequential(nn.Flatten(), make_linear(weights)).eval(), make_images(channels)


def test_input_times_gradient_is_complete_on_a_linear_model_and_the_gradient_is_not():
    given = {"perturb_baseline": 0.0, "normalise": False}
    assert tabular("Completeness", **given).all()
    assert not tabular("Completeness", "plain_gradient", **given).any()


@pytest.mark.parametrize("name", ["Faithfulness Correlation", "Faithfulness Estimate"])
def test_drops_that_are_the_attributions_correlate_with_them(name):
    given = {"subset_size": 2} if name == "Faithfulness Correlation" else {}
    np.testing.assert_allclose(tabular(name, **given, **ZERO, normalise=False), 1, atol=1e-6)
    assert tabular(name, "plain_gradient", **given, **ZERO, normalise=False).min() < 0


def test_sensitivity_n_is_one_for_every_n():
    model, images = image_model(1)
    found = score(
        model, explain(model, images, [0, 1, 0], "plain_input_x_gradient"), "SensitivityN", **ZERO, normalise=False
    )
    np.testing.assert_allclose(found, 1, atol=1e-5)
    assert len(found) == int(0.8 * HEIGHT * WIDTH)


def test_pixels_are_flipped_from_the_largest_drop_on():
    found = tabular("Pixel-Flipping", **ZERO)
    ordered = -np.sort(-drops(), axis=1)
    np.testing.assert_allclose(found, drops().sum(1, keepdims=True) - ordered.cumsum(1), atol=1e-6)


def test_pixels_are_flipped_in_all_channels_of_the_users_axes():
    model, images = image_model()
    attribution = explain(model, images, [0, 1, 0], "plain_input_x_gradient")
    found = score(model, attribution, "Pixel-Flipping", features_in_step=60, **ZERO)
    flat = attribution.values.reshape(3, -1).astype(float)
    ordered = -np.sort(-flat, axis=1)
    expected = flat.sum(1, keepdims=True) - ordered.reshape(3, -1, 60).sum(2).cumsum(1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("size", [2, 5])  # 5 divides the width alone: the last patches lie over the edge
def test_patches_are_removed_from_the_largest_sum_on(size):
    model, images = image_model()
    attribution = explain(model, images, [0, 1, 0], "plain_input_x_gradient")
    pad = -HEIGHT % size
    rows = np.pad(attribution.values.astype(float), ((0, 0), (0, 0), (pad // 2, pad - pad // 2), (0, 0)))
    blocks = rows.reshape(3, 3, rows.shape[2] // size, size, WIDTH // size, size).sum((1, 3, 5)).reshape(3, -1)
    dropped = -np.sort(-blocks, axis=1)
    expected = np.cumsum(dropped, axis=1)
    found = score(model, attribution, "Region Segmentation", patch_size=size, **ZERO)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    left = attribution.values.reshape(3, -1).sum(1, keepdims=True) - expected
    np.testing.assert_allclose(score(model, attribution, "Selectivity", patch_size=size, **ZERO), left, atol=1e-3)


def test_the_gradient_of_a_linear_model_has_no_infidelity():
    model, images = image_model()
    given = {"perturb_patch_sizes": [2], "n_perturb_samples": 2}
    # Values are sums over 360 features of single precision.
    assert score(model, explain(model, images, [0, 1, 0]), "Infidelity", **given).max() < 1e-6
    other = explain(model, images, [0, 1, 0], "plain_input_x_gradient")
    assert score(model, other, "Infidelity", **given).min() > 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Max-Sensitivity", {"nr_samples": 3}),
        ("Avg-Sensitivity", {"nr_samples": 3}),
        ("Local Lipschitz Estimate", {"nr_samples": 3}),
        ("Relative Input Stability", {"nr_samples": 3, "return_nan_when_prediction_changes": False}),
        ("Relative Output Stability", {"nr_samples": 3, "return_nan_when_prediction_changes": False}),
        ("Continuity Test", {"nr_steps": 4}),
    ],
)
def test_the_gradient_of_a_linear_model_is_the_same_everywhere(name, arguments):
    model, images = image_model()
    np.testing.assert_array_equal(score(model, explain(model, images, [0, 1, 0]), name, **arguments), 0)
    other = explain(model, images, [0, 1, 0], "plain_input_x_gradient")
    if name != "Continuity Test":  # which ends in an empty image, where it is zero
        assert (score(model, other, name, **arguments) > 0).all()


def test_with_two_classes_the_other_one_is_explained():
    from cfi_quantus.library import quantus

    found = tabular("Random Logit", "plain_gradient", similarity_func=quantus.correlation_pearson)
    np.testing.assert_allclose(found, np.corrcoef(WEIGHTS)[0, 1], atol=1e-6)


def test_features_without_influence_have_no_attribution():
    assert (ROWS[:, 4] != 0).all() and not WEIGHTS[:, 4].any()
    np.testing.assert_array_equal(tabular("NonSensitivity", **ZERO), 0)
    values = drops()
    values[1, 4] = 1
    model = make_linear(WEIGHTS)
    found = cfi_quantus.evaluate(model, values, [("NonSensitivity", ZERO)], inputs=ROWS, target=TARGET, seed=0)[
        "NonSensitivity"
    ].values
    np.testing.assert_array_equal(found, [[0, 1, 0]])


def test_outputs_rise_where_all_features_add():
    rows, model = np.abs(ROWS), make_linear(np.abs(WEIGHTS))
    assert score(model, explain(model, rows, TARGET, "plain_input_x_gradient"), "Monotonicity-Arya", **ZERO).all()
    expected = (drops() >= 0).all(1)
    assert 0 < expected.sum() < 3
    np.testing.assert_array_equal(tabular("Monotonicity-Arya", **ZERO), expected)


def complexity(name: str, values: Any, **arguments: Any) -> np.ndarray:
    values = np.asarray(values, np.float32)
    model = make_linear(np.ones((2, values.shape[1])))
    found = cfi_quantus.evaluate(
        model, values, {"it": (name, arguments)}, inputs=np.ones_like(values), target=0, seed=0
    )
    return found["it"].values[0]


def test_sparseness_is_the_gini_index():
    values = np.array([[0, 0, 0, 0, 1.0], [0.2, 0.2, 0.2, 0.2, 0.2], [0.1, 0, 0.3, 0, 0.6]])
    pairs = np.abs(values[:, :, None] - values[:, None]).sum((1, 2))  # the index by its definition, over all pairs
    np.testing.assert_allclose(complexity("Sparseness", values), pairs / (2 * 5 * values.sum(1)), atol=1e-6)
    np.testing.assert_allclose(complexity("Sparseness", values)[:2], [4 / 5, 0], atol=1e-6)


def test_complexity_is_the_entropy_of_the_shares():
    values = [[0, 0, 0, 0, 3.0], [1, 1, 0, 0, 0], [-1, 1, 2, 0, 0]]
    np.testing.assert_allclose(complexity("Complexity", values), [0, np.log(2), 1.5 * np.log(2)], atol=1e-6)
    np.testing.assert_array_equal(complexity("Effective Complexity", values, eps=0.5, normalise=False), [1, 2, 3])


def localisation(name: str, values: Any, **arguments: Any) -> np.ndarray:
    model, images = image_model(1)
    found = cfi_quantus.evaluate(
        model,
        np.asarray(values, np.float32),
        {"it": (name, arguments)},
        inputs=images,
        target=0,
        masks=make_masks(),
        seed=0,
    )
    return found["it"].values[0]


def test_localisation():
    """Of 15 marked pixels, 6 hold the largest values, one per unit; the rest of the mass lies outside."""
    masks, values = make_masks(), np.zeros((3, HEIGHT, WIDTH))
    inside = np.argwhere(masks[0])[:6]
    for place, (row, column) in enumerate(inside):
        values[:, row, column] = 10 + place
    values[:, 0, :4] = [1, 2, 3, 4]
    values[1] *= -1
    values[1, 11, 9] = 1  # the largest, and outside
    mass = values[0][masks[0] == 1].sum() / values[0].sum()
    np.testing.assert_allclose(localisation("Relevance Mass Accuracy", values)[0], mass, atol=1e-6)
    np.testing.assert_allclose(localisation("Attribution Localisation", values)[0], mass, atol=1e-6)
    np.testing.assert_allclose(localisation("Top-K Intersection", values, k=8)[0], 6 / 8)
    np.testing.assert_array_equal(localisation("Pointing Game", values), [1, 0, 1])
    ranked = np.argsort(-values[0].ravel(), kind="stable")[:15]
    expected = masks[0].ravel()[ranked].mean()
    assert abs(localisation("Relevance Rank Accuracy", values)[0] - expected) <= 5 / 15  # ties among zeros
    found = localisation("AUC", values)[0]
    inside_values, outside = values[0][masks[0] == 1], values[0][masks[0] == 0]
    pairs = (inside_values[:, None] > outside).mean() + 0.5 * (inside_values[:, None] == outside).mean()
    np.testing.assert_allclose(found, pairs, atol=1e-6)


def test_focus_is_the_share_of_the_quadrants_of_the_class():
    model, images = image_model(1)
    values = np.zeros((3, HEIGHT, WIDTH), np.float32)
    values[:, 0, 0], values[:, 0, 9], values[:, 11, 0], values[:, 11, 9], values[:, 5, 5] = 1, 2, 4, 8, -5
    positions = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    found = cfi_quantus.evaluate(
        model, values, [("Focus", {"custom_batch": positions})], inputs=images, target=0, seed=0
    )["Focus"].values[0]
    np.testing.assert_allclose(found, [1 / 15, 6 / 15, 8 / 15], atol=1e-6)


def test_samples_of_like_explanations_are_counted():
    """Slow implementations of Dasgupta et al.'s sufficiency and consistency."""
    model, rows = make_linear(WEIGHTS), np.random.default_rng(4).normal(size=(12, 6)).astype(np.float32)
    attribution = explain(model, rows, 0, "plain_input_x_gradient")
    predicted = model(torch.as_tensor(rows)).argmax(1).numpy()
    values = np.abs(attribution.values / np.abs(attribution.values).max())
    apart = np.linalg.norm(values[:, None] - values[None], axis=2)
    near = (apart / apart.max() <= 0.4) & ~np.eye(12, dtype=bool)
    expected = [(predicted[row] == predicted[i]).mean() if (row := near[i]).any() else 0 for i in range(12)]
    found = score(model, attribution, "Sufficiency", threshold=0.4, distance_func="euclidean")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    signs = np.sign(attribution.values)
    same = (signs[:, None, :5] == signs[None, :, :5]).all(2) & ~np.eye(12, dtype=bool)
    expected = [(predicted[row] == predicted[i]).mean() if (row := same[i]).any() else 0 for i in range(12)]
    np.testing.assert_allclose(score(model, attribution, "Consistency", abs=False), expected, atol=1e-6)
    assert 0 < np.mean(expected) < 1


def test_the_gradient_is_invariant_to_a_shift_and_input_times_gradient_is_not():
    """Kindermans et al. 2019."""
    from quantus_models import make_cnn

    model, images = make_cnn(3), make_images(3)
    assert score(model, explain(model, images), "InputInvariance").all()
    assert not score(model, explain(model, images, key="plain_input_x_gradient"), "InputInvariance").any()
