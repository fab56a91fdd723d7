"""Every metric gives what Quantus gives that is called by hand on the same torch model, to the last bit."""

from __future__ import annotations

import inspect
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_toolset import gradient
from quantus_models import SMALL, TARGET, explain, make_cnn, make_images, make_masks

import cfi_quantus
from cfi_quantus.library import quantus
from cfi_quantus.specs import METRICS, find_metric

SEED = 11


def explain_func(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    inputs = torch.as_tensor(np.asarray(inputs, np.float32))
    return gradient(model, inputs, np.asarray(targets)).numpy()


def by_hand(name: str, model: Any, images: np.ndarray, values: np.ndarray, **call: Any) -> Any:
    """As Quantus's documentation calls a metric."""
    metric_class = getattr(quantus, find_metric(name).class_name)
    init = {key: value for key, value in SMALL.get(name, {}).items() if key != "custom_batch"}
    if "return_aggregate" in inspect.signature(metric_class.__init__).parameters:
        init["return_aggregate"] = False
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    arguments = {
        "model": model,
        "x_batch": images.copy(),
        "y_batch": np.array(TARGET),
        "a_batch": values.copy(),
        "explain_func": explain_func,
        "explain_func_kwargs": {},
        "channel_first": True,
    }
    if name == "Focus":
        arguments["custom_batch"] = SMALL[name]["custom_batch"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric_class(**init, disable_warnings=True)(**{**arguments, **call})


def compare(name: str, scores: Any, raw: Any) -> None:
    if isinstance(raw, dict):
        kept = [values for key, values in raw.items() if key != "original"]
        expected = np.array(kept, float)
        expected = expected.T if expected.ndim == 2 else expected
    else:
        expected = np.array(raw, float)
    np.testing.assert_array_equal(scores[name].values[0], expected)
    assert np.ptp(expected) > 0 or name in ("Consistency", "InputInvariance", "Completeness")


# These are mended, or need something besides; each has a test of its own below.
MENDED = {"IROF", "Monotonicity-Arya", "Smooth MPRT", "SensitivityN", "InputInvariance", "Sufficiency", "Random Logit"}


CASES = [(one, channels) for one in METRICS if one.name not in MENDED for channels in (1, 3)]


# Of three channels ROAD is refused.
@pytest.mark.parametrize(("metric", "channels"), [case for case in CASES if (case[0].name, case[1]) != ("ROAD", 3)])
def test_a_metric_gives_what_quantus_gives(metric, channels):
    model, images = make_cnn(channels), make_images(channels)
    attribution = explain(model, images)
    reduced = "sum" if metric.masks and channels == 3 else None
    values = attribution.values.sum(1, keepdims=True) if reduced else attribution.values
    call = {"s_batch": make_masks()[:, None]} if metric.masks else {}
    raw = by_hand(metric.name, model, images, values, **call)
    scores = cfi_quantus.evaluate(
        model, attribution, [(metric.name, SMALL.get(metric.name, {}))], masks=make_masks(), channels=reduced, seed=SEED
    )
    compare(metric.name, scores, raw)


def test_irof_one_sample_at_a_time(monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # gone from numpy 2.4
    model, images = make_cnn(), make_images()
    attribution = explain(model, images)
    raw = by_hand("IROF", model, images, attribution.values, batch_size=1)
    monkeypatch.undo()
    compare("IROF", cfi_quantus.evaluate(model, attribution, "IROF", seed=SEED), raw)


def test_smooth_mprt_with_the_same_explanation(monkeypatch):
    monkeypatch.setattr(quantus, "explain", explain_func)  # which Quantus takes whatever explain_func is
    model, images = make_cnn(), make_images()
    raw = by_hand("Smooth MPRT", model, images, explain(model, images).values, a_batch=None)
    monkeypatch.undo()
    scores = cfi_quantus.evaluate(model, explain(model, images), [("Smooth MPRT", SMALL["Smooth MPRT"])], seed=SEED)
    kept = np.array([values for key, values in raw.items() if key != "original"]).T
    np.testing.assert_allclose(scores["Smooth MPRT"].values[0], kept, atol=1e-6)  # sums in another precision


def test_sufficiency_and_random_logit():
    model, images = make_cnn(), make_images()
    attribution = explain(model, images)
    raw = by_hand("Sufficiency", model, images, attribution.values)
    np.testing.assert_array_equal(
        cfi_quantus.evaluate(model, attribution, "Sufficiency", seed=SEED)["Sufficiency"][0], raw
    )
    monkey = {"num_classes": 5}
    random_logit = quantus.RandomLogit(**monkey, disable_warnings=True)
    raw = random_logit(
        model=model,
        x_batch=images,
        y_batch=np.array(TARGET),
        a_batch=attribution.values.copy(),
        explain_func=explain_func,
        channel_first=True,
    )
    np.testing.assert_array_equal(
        cfi_quantus.evaluate(model, attribution, "Random Logit", seed=SEED)["Random Logit"][0], raw
    )


def test_every_metric_of_quantus_is_there():
    offered = {
        (name.strip(), one.__name__, category)
        for category, metrics in quantus.AVAILABLE_METRICS.items()
        for name, one in metrics.items()
    }
    assert offered == {(one.name, one.class_name, one.category) for one in METRICS}


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_the_table_says_what_quantus_says(metric):
    metric_class = getattr(quantus, metric.class_name)
    # The drop of the output (Samek et al.: larger is better) is what Region Perturbation returns.
    # Consistency is the probability that a sample is predicted as those of the same explanation are (Dasgupta et al.).
    better = "lower" if metric.name in ("Region Segmentation", "Consistency") else metric.better
    assert metric_class.score_direction.value == better
    source = Path(inspect.getsourcefile(metric_class)).read_text()
    assert any(f"{call}(" in source for call in ("explain_batch", "quantus.explain")) == metric.explains
    assert ("assert_segmentations(" in source) == metric.masks
    assert find_metric(metric.class_name) is find_metric(metric.name.upper()) is metric
