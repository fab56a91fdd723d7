"""SHAP's explainers against sums over all coalitions; the kit tests the rest, closed forms among it."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn import ensemble
from torch import nn

import cfi_core as cfi
from cfi_core.testing.conformance import (
    FrameworkConformance,
    KnownAnswerConformance,
    Law,
    PlotterConformance,
    ToolsetConformance,
)
from cfi_shap.plots import draw_waterfall

ROWS = np.random.default_rng(3).normal(size=(200, 4))
LABELS = (ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] > 0).astype(int)
GIVEN = {"target": [1, 3], "baselines": np.random.default_rng(2).normal(size=(3, 3, 4, 5))}


class TestShap(ToolsetConformance):
    toolset = "shap"
    arguments: ClassVar = {
        "deep_lift_shap": GIVEN,
        "gradient_shap": {**GIVEN, "exec_args": {"nsamples": 5}},
        "kernel_shap": {**GIVEN, "exec_args": {"nsamples": 130}},
        "partition_shap": {"target": [1, 3], "exec_args": {"max_evals": 50}},
    }

    def make_model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)


class TestAnswers(KnownAnswerConformance):
    toolset = "shap"
    laws: ClassVar = {"partition_shap": Law.SHAPLEY}
    sampling = frozenset({"gradient_shap"})  # the others go through all coalitions of so few features
    within: ClassVar = {"kernel_shap": 1e-6, "gradient_shap": 1e-6, "partition_shap": 1e-12}

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> nn.Module:
        model = nn.Linear(weights.shape[1], len(weights), dtype=torch.float64).eval()
        model.load_state_dict({"weight": torch.tensor(weights), "bias": torch.tensor(bias)})
        return model


class TestTrees(ToolsetConformance):
    toolset = "shap-trees"
    arguments: ClassVar = {"tree_shap": {"target": 1, "baselines": ROWS[:7]}}

    def make_model(self) -> Any:
        return ensemble.RandomForestClassifier(5, random_state=0).fit(ROWS, LABELS)

    def make_inputs(self) -> np.ndarray:
        return ROWS[100:103]


class TestFramework(FrameworkConformance):
    framework, linear = "trees", False
    make_model, make_inputs = TestTrees.make_model, TestTrees.make_inputs


class TestBar(PlotterConformance):
    plotter = "shap-bar"


class TestBeeswarm(PlotterConformance):
    plotter = "shap-beeswarm"


class TestWaterfall(PlotterConformance):
    plotter = "shap-waterfall"


class TestImage(PlotterConformance):
    plotter = "shap-image"


def test_a_waterfall_leads_from_the_mean_output_at_the_baselines() -> None:
    ends = {"completeness": {"at_baselines": (2.0,), "at_inputs": (3.25,)}}
    values = np.array([[0.5, -0.25, 1.0]])
    found = cfi.Attribution(values, ("sample", "feature"), "kernel_shap", "shap", inputs=(values,), provenance=ends)
    texts = {
        text.get_text().strip() for text in draw_waterfall(found).findobj(lambda artist: hasattr(artist, "get_text"))
    }
    assert {"$ = 2$", "$ = 3.25$"} <= texts


def shapley_values(function: Any, x: np.ndarray, baselines: np.ndarray) -> np.ndarray:
    """By Shapley's formula, over all coalitions; absent features take the baselines, over which is averaged."""
    found, size = np.zeros_like(x), x.shape[1]
    for (sample, feature), _ in np.ndenumerate(x):
        others = [other for other in range(size) if other != feature]
        for coalition in (chosen for count in range(size) for chosen in combinations(others, count)):
            without = baselines.copy()
            without[:, coalition] = x[sample, coalition]
            joined = without.copy()
            joined[:, feature] = x[sample, feature]
            gain = (function(joined) - function(without)).mean()
            found[sample, feature] += gain / comb(size - 1, len(coalition)) / size
    return found


@pytest.mark.parametrize(("key", "size", "baselines"), [("kernel_shap", 4, 3), ("partition_shap", 2, 1)])
def test_a_network_gets_the_values_of_all_coalitions(key: str, size: int, baselines: int) -> None:
    model = nn.Sequential(nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, background = ROWS[:2, :size], ROWS[5 : 5 + baselines, :size]
    found: Any = cfi.attribute(model, key, "shap", inputs=x, target=2, baselines=background)
    expected = shapley_values(lambda rows: model(torch.tensor(rows)).detach().numpy()[:, 2], x, background)
    np.testing.assert_allclose(found.values, expected, atol=1e-8)


@pytest.mark.parametrize("name", ["RandomForest", "GradientBoosting", "HistGradientBoosting", "ExtraTrees"])
def test_trees_get_the_values_of_all_coalitions(name: str) -> None:
    model = getattr(ensemble, f"{name}Classifier")(random_state=0).fit(ROWS, LABELS)
    given: Any = {"inputs": ROWS[:2], "target": [0, 1], "baselines": ROWS[9:14]}
    score = getattr(model, "decision_function", lambda rows: model.predict_proba(rows)[:, 1])
    if hasattr(model, "decision_function"):
        with pytest.raises(cfi.MethodError, match="pass head='logit'"):
            cfi.attribute(model, "tree_shap", **given)
        given["head"] = "logit"
    found: Any = cfi.attribute(model, "tree_shap", **given)
    np.testing.assert_allclose(found.values, shapley_values(score, ROWS[:2], ROWS[9:14]) * [[-1], [1]], atol=1e-6)


def test_a_background_of_more_than_a_hundred_rows_is_taken_whole() -> None:
    model = ensemble.RandomForestRegressor(3, random_state=0).fit(ROWS, LABELS)
    found: Any = cfi.attribute(model, "tree_shap", inputs=ROWS[:2], baselines=ROWS)
    np.testing.assert_allclose(found.values.sum(1), model.predict(ROWS[:2]) - model.predict(ROWS).mean(), atol=1e-9)


class Functional(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](torch.relu(self[0](x)))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Functional(nn.Linear(4, 6), nn.Linear(6, 3)), "misses f.inputs. - mean of f.baselines. by a relative"),
        (nn.Sequential(nn.Linear(4, 6), nn.Mish(), nn.Linear(6, 3)), "unrecognized nn.Module: Mish"),
    ],
)
def test_what_deep_explainer_would_get_wrong_is_an_error(model: nn.Module, match: str) -> None:
    with pytest.raises(cfi.MethodError, match=match):
        cfi.attribute(model.eval(), "deep_lift_shap", "shap", inputs=ROWS[:2], target=1, baselines=ROWS[5:9])


@pytest.mark.parametrize("key", ["gradient_shap", "kernel_shap", "partition_shap"])
def test_a_target_function_gives_one_value_for_each_sample(key):
    model, inputs = TestShap().make_model(), TestShap().make_inputs()
    more = {} if key == "partition_shap" else {"baselines": GIVEN["baselines"]}
    with pytest.raises(cfi.TargetError, match="one value per sample"):
        cfi.attribute(model, key, "shap", inputs=inputs, target=lambda outputs: outputs[:, :2], **more)


def test_no_model_is_translated_into_trees() -> None:
    with pytest.raises(cfi.RouteError, match=r"no model is translated into one of trees\. Pass such a model"):
        cfi.attribute(nn.Linear(3, 2), "tree_shap", inputs=np.ones((2, 3), np.float32), target=1)


@pytest.mark.parametrize(
    ("name", "begin", "said"),
    [
        ("a.json", b'{"learner":{"attributes":{}}}', r"holds a model of XGBoost.*xgboost\.XGBClassifier\(\)"),
        ("a.ubj", b"{L\0\0\0\0\0\0\0\x07learner{L", r"holds a model of XGBoost.*model\.load_model\(path\)"),
        (
            "a.txt",
            b"tree\nversion=v4\nnum_class=1\n",
            r"holds a model of LightGBM.*lightgbm\.Booster\(model_file=path\)",
        ),
        ("a.cbm", b"CBM1\x10\0\0\0", r"holds a model of CatBoost.*catboost\.CatBoost\(\)"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_files_of_boosters_say_how_they_are_loaded(
    tmp_path: Any, name: str, begin: bytes, said: str, trust: bool
) -> None:
    (tmp_path / name).write_bytes(begin)
    with pytest.raises(cfi.ModelFileError, match=said):
        cfi.load_model(tmp_path / name, trust=trust)


def test_other_files_of_such_names_are_not_said_to_be_boosters(tmp_path: Any) -> None:
    (tmp_path / "a.json").write_text('{"model_type": "bert"}')
    with pytest.raises(cfi.ModelFileError, match="holds no model that is known") as told:
        cfi.load_model(tmp_path / "a.json")
    assert "XGBoost" not in str(told.value) and ".json" not in str(told.value).partition("Known")[2]
