"""What Quantus would do wrong, or fail at, is refused with the way out; that way works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quantus_models import TARGET, explain, make_cnn, make_images, make_linear, make_masks
from torch import nn

import cfi_core as cfi
import cfi_quantus
from cfi_quantus.library import quantus

ROWS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


def of_images(name, arguments, channels=1, samples=3, **more):
    model, images = make_cnn(channels), make_images(channels, samples)
    attribution = explain(model, images, TARGET[:samples])
    return cfi_quantus.evaluate(model, attribution, (name, arguments), seed=0, **more)


MASKED = {"masks": make_masks()}


@pytest.mark.parametrize(
    ("name", "arguments", "more", "error", "match"),
    [
        ("Faithfulness Correlation", {}, {}, cfi.ArgumentError, r"subset_size=224 \(Quantus's default\) .* 120"),
        ("Top-K Intersection", {"k": 120}, MASKED, cfi.ArgumentError, "k=120 must be smaller"),
        (
            "Pixel-Flipping",
            {"features_in_step": 7},
            {},
            cfi.ArgumentError,
            "features_in_step=7 does not divide the 120",
        ),
        ("Pixel-Flipping", {"features_in_step": 0}, {}, cfi.ArgumentError, "features_in_step=0"),
        ("NonSensitivity", {"features_in_step": 2}, {}, cfi.ArgumentError, "Leave features_in_step out"),
        ("Pointing Game", {}, {}, cfi.ArgumentError, "pass masks="),
        ("Pointing Game", {}, {**MASKED, "channels_of": 3}, cfi.ArgumentError, "channels='sum'"),
        ("Pointing Game", {"weighted": True}, MASKED, cfi.MethodError, "another weight"),
        ("Attribution Localisation", {"weighted": True}, MASKED, cfi.MethodError, "another weight"),
        ("AUC", {}, {"masks": make_masks() * [[[1]], [[0]], [[1]]]}, cfi.InputError, "masks of samples 1 mark nothing"),
        ("AUC", {}, {"masks": make_masks()[:, :5]}, cfi.InputError, r"masks have shape \(3, 5, 10\); pass"),
        ("AUC", {}, {"masks": make_masks() * 2}, cfi.InputError, "zeros and ones"),
        ("ROAD", {"percentages": [0.1, 50]}, {}, cfi.ArgumentError, r"percentages 0\.1 take none or all.*0\.833"),
        ("ROAD", {"percentages": [100]}, {}, cfi.ArgumentError, "below 100"),
        ("ROAD", {}, {"channels_of": 3}, cfi.MethodError, "one channel"),
        ("Infidelity", {}, {}, cfi.ArgumentError, r"patches of 4 do not divide images of \(12, 10\)"),
        ("Continuity Test", {}, {}, cfi.ArgumentError, "at most 20"),
        ("Continuity Test", {"nr_steps": 7}, {}, cfi.ArgumentError, "does not divide 21"),
        (
            "Continuity Test",
            {"nr_steps": 4, "perturb_baseline": "white"},
            {},
            cfi.ArgumentError,
            "ignores perturb_base",
        ),
        (
            "Continuity Test",
            {"nr_steps": 4, "return_nan_when_prediction_changes": True},
            {},
            cfi.MethodError,
            "needs numpy below 2",
        ),
        ("Monotonicity-Arya", {"perturb_func": quantus.no_perturbation}, {}, cfi.ArgumentError, "has no meaning"),
        ("Random Logit", {"num_classes": 6}, {}, cfi.ArgumentError, "the model has 5 outputs"),
        ("Random Logit", {"num_classes": 1}, {}, cfi.ArgumentError, "no other class"),
        ("Relative Representation Stability", {"layer_indices": [-1]}, {}, cfi.MethodError, "Pass layer_names="),
        ("Focus", {}, {}, cfi.ArgumentError, "needs custom_batch"),
        ("Focus", {"custom_batch": [[1, 0, 2, 0]] * 3}, {}, cfi.ArgumentError, "needs custom_batch"),
        ("SensitivityN", {}, {"samples": 1}, cfi.InputError, "two or more"),
        ("Sufficiency", {}, {"samples": 1}, cfi.InputError, "two or more"),
        ("Consistency", {}, {"samples": 1}, cfi.InputError, "two or more"),
        ("Monotonicity-Nguyen", {"nr_samples": 1, "eps": 1e9}, {}, cfi.MethodError, r"pass batch_size=1\."),
        ("Monotonicity-Nguyen", {"nr_samples": 1, "eps": 1e9, "batch_size": 1}, {}, None, ""),
    ],
)
def test_a_metric_that_does_not_fit(name, arguments, more, error, match):
    given = {"channels" if key == "channels_of" else key: value for key, value in more.items()}
    channels, samples = given.pop("channels", 1), given.pop("samples", 3)
    if error is None:
        assert name in of_images(name, arguments, channels, samples, **given)
        return
    with pytest.raises(error, match=match):
        of_images(name, arguments, channels, samples, **given)


@pytest.mark.parametrize(
    "name", ["Selectivity", "Region Segmentation", "IROF", "ROAD", "Infidelity", "Continuity Test"]
)
def test_metrics_of_images_refuse_tables(name):
    model = make_linear(np.ones((2, 6)))
    with pytest.raises(cfi.InputError, match=r"it is defined on images, and the inputs have 1 axes besides"):
        cfi_quantus.evaluate(model, ROWS, name, inputs=ROWS, target=0, explain={"method_key": "plain_gradient"})


def test_one_output_has_no_softmax_and_no_other_class():
    model = make_linear(np.ones((1, 6)))
    scores = cfi_quantus.evaluate(model, ROWS, ("Pixel-Flipping", {"perturb_baseline": 0.0}), inputs=ROWS, seed=0)
    assert "no softmax" in scores["Pixel-Flipping"].attrs["output"]
    np.testing.assert_allclose(scores["Pixel-Flipping"].values[0, :, -1], 0, atol=1e-6)
    assert np.ptp(scores["Pixel-Flipping"].values) > 0.1
    with pytest.raises(cfi.ArgumentError, match="softmax of one output is 1"):
        cfi_quantus.evaluate(model, ROWS, ("Pixel-Flipping", {"softmax": True}), inputs=ROWS)
    for name in ("Random Logit", "Efficient MPRT"):
        explained = {"method_key": "plain_gradient", "toolset": "plain"}
        with pytest.raises(cfi.ArgumentError, match=r"the model has (1|one) output"):
            cfi_quantus.evaluate(model, ROWS, name, inputs=ROWS, target=0, explain=explained)


def test_probabilities_without_a_softmax_that_could_be_left_out_are_told():
    class Odds(nn.Module):
        def forward(self, rows):
            return rows.exp() / rows.exp().sum(1, keepdim=True)

    given = {"inputs": ROWS, "target": 0, "seed": 0}
    scores = cfi_quantus.evaluate(Odds().eval(), ROWS, "Pixel-Flipping", **given)
    assert scores["Pixel-Flipping"].attrs["output"].startswith("probabilities, as the model gives them")
    with pytest.warns(cfi.ModelWarning, match="measures logits, and the model gives probabilities"):
        cfi_quantus.evaluate(Odds().eval(), ROWS, ("Faithfulness Estimate", {}), **given)


def test_a_softmax_at_the_end_is_left_out_where_logits_are_measured():
    linear = make_linear(np.random.default_rng(1).normal(size=(3, 6)))
    given = {"inputs": ROWS, "target": 0, "seed": 0}
    asked = {"logits": ("Pixel-Flipping", {"softmax": False}), "probabilities": "Pixel-Flipping"}
    plain = cfi_quantus.evaluate(linear, ROWS, asked, **given)
    nested = nn.Sequential(nn.Sequential(linear, nn.Softmax(1))).eval()
    ended = cfi_quantus.evaluate(nested, ROWS, asked, **given)
    for label in asked:
        np.testing.assert_allclose(ended[label].values, plain[label].values, rtol=1e-6)
    assert "softmax was left out" in ended["logits"].attrs["output"]


def test_random_logit_needs_features_enough_for_its_similarity():
    model = make_linear(np.random.default_rng(1).normal(size=(3, 6)))
    attribution = explain(model, ROWS, 0, "plain_input_x_gradient")
    with pytest.raises(cfi.ArgumentError, match="needs 7 features"):
        cfi_quantus.evaluate(model, attribution, "Random Logit")


def test_completeness_with_quantuss_defaults_says_that_nothing_can_be_complete():
    model = make_linear(np.ones((2, 6)))
    with pytest.warns(cfi.ModelWarning, match=r"Pass normalise=False"):
        cfi_quantus.evaluate(model, ROWS, "Completeness", inputs=ROWS, target=0)
    images = make_images(3)
    of = explain(make_cnn(3), images, key="plain_map")
    with pytest.raises(cfi.MethodError, match="a value for each element"):
        cfi_quantus.evaluate(make_cnn(3), of, ("Completeness", {"normalise": False}))


def test_sufficiency_of_features_that_do_not_vary():
    model, values = make_linear(np.ones((2, 6))), ROWS * [1, 1, 1, 1, 1, 0]
    for constant in (values, np.where(np.arange(6) < 5, ROWS, [[1], [-1], [1]])):  # the latter but for its sign
        with pytest.raises(cfi.MethodError, match="zero for 1 of 6 features"):
            cfi_quantus.evaluate(model, constant, "Sufficiency", inputs=ROWS, target=0)
    found = cfi_quantus.evaluate(model, values, ("Sufficiency", {"distance_func": "cosine"}), inputs=ROWS, target=0)
    assert np.isfinite(found["Sufficiency"]).all()


def test_nothing_to_randomise():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, rows):
            return rows * self.weight

    attribution = explain(Scale().eval(), ROWS, 0, "plain_input_x_gradient")
    with pytest.raises(cfi.MethodError, match="the model has none"):
        cfi_quantus.evaluate(Scale().eval(), attribution, "MPRT")
    mixed = nn.Sequential(Scale(), make_linear(np.ones((6, 6)))).eval()
    attribution = explain(mixed, ROWS, 0, "plain_input_x_gradient")
    with pytest.warns(cfi.ModelWarning, match=r"did not randomise 0\.weight"):
        scores = cfi_quantus.evaluate(mixed, attribution, "MPRT", seed=0)
    assert list(scores["MPRT layer"].values) == ["1"]


@pytest.mark.parametrize(
    "first",
    [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, bias=False), nn.Sequential(nn.Conv2d(1, 4, 3))],
    ids=["padding", "no bias", "nested"],
)
def test_input_invariance_of_a_model_that_quantus_cannot_shift(first):
    model = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)).eval()
    with pytest.raises(cfi.MethodError, match="convolution without padding and with a bias"):
        cfi_quantus.evaluate(model, explain(model, make_images()), "InputInvariance")


def test_what_quantus_raises_is_typed(monkeypatch):
    def fail(*_, **__):
        raise KeyError("whatever")

    with pytest.raises(cfi.MethodError, match=r"Sparseness of plain_gradient: Quantus failed \(KeyError: 'whatever'\)"):
        of_images("Sparseness", {"normalise_func": fail})
    model, images = make_cnn(), make_images()
    with pytest.raises(cfi.MethodError, match=r"AssertionError: .*all equal to zero"):
        cfi_quantus.evaluate(model, np.zeros_like(images), "Sparseness", inputs=images, target=0)


def test_scores_that_are_no_numbers_are_told():
    model, images = make_cnn(), make_images()
    with pytest.warns(
        cfi.ModelWarning, match="Relative Input Stability of plain_gradient: 1 of 3 scores are no finite"
    ):
        scores = cfi_quantus.evaluate(
            model, explain(model, images), ("Relative Input Stability", {"nr_samples": 3}), seed=11
        )
    assert int(np.isnan(scores["Relative Input Stability"]).sum()) == 1


def test_perturbations_that_change_nothing_are_told():
    model, rows = make_linear(np.ones((2, 6))), np.full((2, 6), 3.0, np.float32)
    values = np.random.default_rng(0).normal(size=(2, 6))
    with pytest.warns(cfi.ModelWarning) as caught:
        cfi_quantus.evaluate(model, values, "Pixel-Flipping", inputs=rows, target=0, seed=0)
    assert any("no perturbation changed any input" in str(one.message) for one in caught)
    scores = cfi_quantus.evaluate(
        model, values, ("Pixel-Flipping", {"perturb_baseline": 0.0}), inputs=rows, target=0, seed=0
    )
    assert scores["Pixel-Flipping"].attrs["unchanged"] == 0
