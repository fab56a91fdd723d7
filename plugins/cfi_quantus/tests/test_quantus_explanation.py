"""Explaining again: with the very method of the attributions, on perturbed inputs, other targets, changed weights."""

from __future__ import annotations

import numpy as np
import pytest
from quantus_models import SMALL, TARGET, explain, make_cnn, make_images

import cfi_core as cfi
import cfi_quantus
from cfi_quantus.library import quantus

FEW = ("Max-Sensitivity", {"nr_samples": 3})


def test_the_provenance_is_enough_for_arguments_that_are_words():
    model, images = make_cnn(3), make_images(3)
    attribution = explain(model, images, key="plain_window", exec_args={"window": (1, 2, 3)})
    scores = cfi_quantus.evaluate(model, attribution, FEW, seed=0)
    assert np.isfinite(scores["Max-Sensitivity"]).all()


def test_baselines_are_not_in_it():
    model, images = make_cnn(), make_images()
    baselines = np.full_like(images, 0.5)
    attribution = explain(model, images, key="plain_input_x_gradient", baselines=baselines)
    with pytest.raises(cfi.ArgumentError, match=r"differs by a relative .*: an argument is not known. Pass explain="):
        cfi_quantus.evaluate(model, attribution, FEW)
    found = cfi_quantus.evaluate(model, attribution, FEW, explain={"baselines": baselines}, seed=0)
    methods = {"it": {"method_key": "plain_input_x_gradient", "toolset": "plain", "baselines": baselines}}
    table = cfi_quantus.table(model, methods, FEW, inputs=images, target=TARGET, seed=0)
    np.testing.assert_array_equal(found["Max-Sensitivity"], table["Max-Sensitivity"])


def test_arguments_that_are_arrays_are_not_in_it_either():
    model, images = make_cnn(), make_images()
    mask = np.random.default_rng(0).random(images.shape).astype(np.float32)
    attribution = explain(model, images, key="plain_mask", exec_args={"mask": mask})
    with pytest.raises(cfi.ArgumentError, match="'mask' must be known"):
        cfi_quantus.evaluate(model, attribution, FEW)
    for explained in ({"exec_args": {"mask": mask}}, {"mine": {"exec_args": {"mask": mask}}}):
        scores = cfi_quantus.evaluate(model, {"mine": attribution}, FEW, explain=explained, seed=0)
        assert (scores["Max-Sensitivity"] > 0).all()


def test_values_alone_do_not_tell_how_they_were_made():
    model, images = make_cnn(), make_images()
    values = explain(model, images).values
    given = {"inputs": images, "target": TARGET, "seed": 0}
    with pytest.raises(cfi.ArgumentError, match="Max-Sensitivity of attributions explains again"):
        cfi_quantus.evaluate(model, values, FEW, **given)
    with pytest.raises(cfi.ArgumentError, match="explain= takes method_key"):
        cfi_quantus.evaluate(model, values, FEW, explain={"method": "plain_gradient"}, **given)
    explained = {"method_key": "plain_gradient", "toolset": "plain"}
    known = cfi_quantus.evaluate(model, values, FEW, explain=explained, **given)
    whole = cfi_quantus.evaluate(model, explain(model, images), FEW, **given)
    np.testing.assert_array_equal(known["Max-Sensitivity"], whole["Max-Sensitivity"])
    with pytest.raises(cfi.ArgumentError, match="differs by a relative"):
        cfi_quantus.evaluate(model, 2 * values, FEW, explain=explained, **given)


def test_a_method_that_draws_is_explained_with_its_seed():
    """The same seed and inputs give the same values, so a changed model alone makes the difference."""
    model, images = make_cnn(), make_images()
    attribution = explain(model, images, key="plain_noise")
    scores = cfi_quantus.evaluate(model, attribution, "MPRT", seed=0)
    assert float(scores["MPRT"].attrs["original"]) == 1.0
    assert (np.abs(scores["MPRT"]) < 0.5).all()


def test_perturbed_inputs_and_other_targets_are_explained_in_the_users_axes():
    """A window has the axes of the user's model, and Quantus has others: the values show which one arrived."""
    seen = []

    def similarity(a, b, **_):
        seen.append((a, b))
        return quantus.correlation_pearson(a, b, batched=True)

    model, images = make_cnn(3), make_images(3)
    attribution = explain(model, images, key="plain_window", exec_args={"window": (1, 2, 3)})
    asked = ("Random Logit", {"similarity_func": similarity, "normalise": False})
    cfi_quantus.evaluate(model, attribution, asked, seed=0)
    np.random.seed(42)  # Quantus's own
    draws = np.random.randint(0, 4, 3)
    others = [[one for one in range(5) if one != target][draw] for target, draw in zip(TARGET, draws, strict=True)]
    expected = explain(model, images, others, "plain_window", exec_args={"window": (1, 2, 3)}).values
    np.testing.assert_array_equal(seen[0][0], attribution.values.reshape(3, -1))
    np.testing.assert_array_equal(seen[0][1], expected.reshape(3, -1))


def test_maps_are_explained_again_as_maps():
    model, images = make_cnn(3), make_images(3)
    attribution = explain(model, images, key="plain_map")
    names = [
        "Max-Sensitivity",
        "Local Lipschitz Estimate",
        "Continuity Test",
        "MPRT",
        "Efficient MPRT",
        "InputInvariance",
    ]
    asked = [(name, SMALL.get(name, {})) for name in names]
    scores = cfi_quantus.evaluate(model, attribution, asked, seed=0)
    reduced = cfi_quantus.evaluate(model, explain(model, images), asked, channels="norm", seed=0)
    assert all(np.isfinite(scores[name]).all() for name in names)
    assert reduced.attrs["applied"] == '{"plain_gradient": "norm over channels"}'
    assert not np.allclose(reduced["MPRT"], scores["MPRT"])


def test_warnings_of_explanations_that_are_repeated_are_told_once():
    model, images = make_cnn(), make_images()
    with pytest.warns(cfi.ModelWarning, match="zero everywhere"):
        cfi.attribute(model, "plain_input_x_gradient", "plain", inputs=0 * images, target=0)
    attribution = explain(model, images, key="plain_input_x_gradient")
    with pytest.raises(cfi.MethodError, match="all equal to zero"):  # and no warning besides
        cfi_quantus.evaluate(model, attribution, ("Max-Sensitivity", {"perturb_func": lambda arr, **_: 0 * arr}))
