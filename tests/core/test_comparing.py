"""One question to several toolsets of numpy: what is asked, what makes them differ, and which law is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from comparing_toolsets import Toolsets

import cfi_core as cfi
from cfi_core.comparing.comparison import Pair, Verdict
from cfi_core.testing import use_plugins

WEIGHTS = np.array([[2.0, 1.0, -1.0, 0.5, 0.0], [0.5, 3.0, 1.0, -2.0, 0.0]])


def linear(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS.T


@pytest.fixture(autouse=True)
def toolsets() -> Iterator[None]:
    with use_plugins(Toolsets):
        yield


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(3).uniform(0.5, 2, size=(3, 5))


def compare(inputs: np.ndarray, *toolsets: str, **arguments: Any) -> Pair:
    (pair,) = cfi.compare(linear, "weigh", toolsets, inputs=inputs, target=0, seed=1, **arguments).pairs
    return pair


# what is asked


def test_all_toolsets_that_offer_the_method_are_asked(inputs: np.ndarray) -> None:
    found = cfi.compare(linear, "weigh", inputs=inputs, target=0, seed=1, reasons=False)
    assert set(found.attributions) == {method.toolset for method in cfi.methods("weigh")}
    assert len(found.pairs) == len(found.attributions) * (len(found.attributions) - 1) // 2


def test_methods_with_names_and_arguments_of_their_own(inputs: np.ndarray) -> None:
    asked = {
        "mine": {"method_key": "weigh", "toolset": "tidy", "exec_args": {"absolute": True}},
        "yours": {"method_key": "weigh", "toolset": "plain", "baselines": 0.1},
    }
    found = cfi.compare(linear, asked, inputs=inputs, target=0, reasons=False)
    np.testing.assert_allclose(found.attributions["mine"].values, np.abs(WEIGHTS[0] * inputs))
    np.testing.assert_allclose(found.attributions["yours"].values, WEIGHTS[0] * (inputs - 0.1))


def test_several_targets(inputs: np.ndarray) -> None:
    """By name; or in a list that has no entry for each of the three samples."""
    for target in ({"cat": 0, "dog": 1}, [0, 1]):
        found = cfi.compare(linear, "weigh", "plain", inputs=inputs, target=target)
        (pair,) = found.pairs
        first, second = found.attributions.values()
        np.testing.assert_allclose(first.values, WEIGHTS[0] * inputs)
        np.testing.assert_allclose(second.values, WEIGHTS[1] * inputs)
        assert pair.verdict is Verdict.TARGETS
    assert (pair.first, pair.second) == ("target 0", "target 1")


def test_a_list_with_a_target_for_each_sample_is_one_question(inputs: np.ndarray) -> None:
    found = cfi.compare(linear, "weigh", ["plain", "complete"], inputs=inputs, target=[0, 1, 0])
    np.testing.assert_allclose(found.attributions["plain"].values, WEIGHTS[[0, 1, 0]] * inputs)
    assert not found.notes
    with pytest.raises(cfi.ArgumentError, match="a dict of targets"):
        cfi.compare(linear, "weigh", "plain", inputs=inputs, target=[0, 1, 0])


def test_several_models(inputs: np.ndarray) -> None:
    found = cfi.compare(
        {"clean": linear, "poisoned": lambda x: 2 * linear(x)}, "weigh", "plain", inputs=inputs, target=0
    )
    (pair,) = found.pairs
    assert pair.verdict is Verdict.MODELS and "5.0e-01" in pair.reason
    assert pair.difference == pytest.approx(0.5)


def test_arguments_by_the_names_of_the_models(inputs: np.ndarray) -> None:
    """Targets too: of several models a dict with their names is one target each."""
    models = {"one": linear, "other": lambda x: linear(x)[:, ::-1]}
    own = {"target": {"one": 0, "other": 1}, "inputs": {"one": inputs, "other": 2 * inputs}}
    found = cfi.compare(models, "weigh", "plain", **own)
    np.testing.assert_allclose(2 * found.attributions["one"].values, found.attributions["other"].values)


def test_what_some_methods_do_not_take_is_told(inputs: np.ndarray) -> None:
    arguments = {"exec_args": {"positive": True}, "inputs": inputs, "target": 0, "reasons": False}
    found = cfi.compare(linear, "weigh", ["plain", "complete"], **arguments)
    assert found.notes == ("weigh of complete takes no 'positive' in exec_args: it is run without",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"toolset": "plain"}, "nothing to compare"),
        ({"toolset": ["plain", "tidy"], "layer": "conv"}, "None of the methods that are compared takes 'layer'"),
        ({"toolset": ["plain", "tidy"], "exec_args": {"steps": 3}}, "takes 'steps'"),
        ({"toolset": ["plain", "tidy"], "top": 0}, "no share of the features"),
        ({"toolset": ["plain", "tidy"], "progress": 3}, "progress=3"),
        ({"toolset": ["plain", "tidy"], "inputs": None}, "without samples"),
        ({"method_key": {"mine": {"toolset": "plain"}}}, "with 'method_key' among them"),
        ({"method_key": [{"method_key": "weigh", "colour": 3}]}, "'colour', which cfi.compare does not take"),
    ],
)
def test_what_cannot_be_asked(inputs: np.ndarray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(cfi.ArgumentError, match=message):
        cfi.compare(**{"model": linear, "method_key": "weigh", "inputs": inputs, "target": 0, **arguments})


def test_unknown_methods_and_toolsets(inputs: np.ndarray) -> None:
    with pytest.raises(cfi.UnknownMethodError, match="Did you mean 'weigh'"):
        cfi.compare(linear, "wegh", inputs=inputs, target=0)
    found = cfi.compare(linear, "weigh", ["plain", "complete", "captum"], inputs=inputs, target=0)
    assert len(found.attributions) == 2 and any("No toolset 'captum'" in note for note in found.notes)


def test_one_that_fails_does_not_take_the_others_along(inputs: np.ndarray) -> None:
    asked = {
        "good": {"method_key": "weigh", "toolset": "plain"},
        "also": {"method_key": "weigh", "toolset": "complete"},
    }
    bad = {"bad": {"method_key": "weigh", "toolset": "coarse", "exec_args": {"steps": 0}}}
    found = cfi.compare(linear, {**asked, **bad}, inputs=inputs, target=0)
    assert list(found.refused) == ["bad"] and "ZeroDivisionError" in found.refused["bad"]
    assert "bad gave no answer" in repr(found)


# why answers differ


def test_the_same_values_agree(inputs: np.ndarray) -> None:
    pair = compare(inputs, "plain", "complete")
    assert pair.verdict is Verdict.AGREE and pair.agrees and pair.difference == 0


def test_rounding_is_no_difference() -> None:
    """Where all but a millionth cancels, single precision gives values that its own rounding moves."""
    weights = np.array([[1e5, -1e5, 1e-3]], np.float32)

    def cancels(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32) @ weights.T

    def otherwise(x: np.ndarray) -> np.ndarray:
        return (x.astype(np.float32)[:, ::-1] @ weights[:, ::-1].T).astype(np.float32)

    inputs = np.array([[1.0, 1.0, 1.0], [0.3, 0.3, 2.0]], np.float32)
    found = cfi.compare({"one": cancels, "other": otherwise}, "weigh", "plain", inputs=inputs, target=0)
    assert found.pairs[0].verdict in (Verdict.AGREE, Verdict.ROUNDING)


def test_settings_of_the_toolset_are_named_one_by_one(inputs: np.ndarray) -> None:
    """With its own defaults, the one takes absolute values and stretches them; both are needed to explain it."""
    pair = compare(inputs, "plain", "tidy", defaults="toolset")
    assert pair.verdict is Verdict.SETTINGS
    assert [(row.name, row.label, row.was, row.becomes) for row in pair.rows] == [
        ("absolute", "tidy", "True", "False"),
        ("unit_range", "tidy", "True", "False"),
    ]
    assert pair.remaining is not None and pair.remaining < 1e-12 < min(row.alone for row in pair.rows)
    assert all(row.without is not None and row.without > 0.01 for row in pair.rows)


def test_a_setting_is_matched_by_one_of_the_other_side() -> None:
    """The absolute values of what is nowhere negative but there are what the positive part is not."""
    inputs = np.array([[1.0, 2.0, 0.0, 1.0, 1.0]])
    pair = compare(inputs, "plain", "tidy", exec_args={"positive": True, "unit_range": False, "absolute": False})
    assert pair.verdict is Verdict.AGREE
    pair = compare(np.array([[1.0, 2.0, 3.0, 1.0, 1.0]]), "plain", "tidy", exec_args={"positive": True})
    assert [(row.name, row.label) for row in pair.rows] == [("positive", "plain")]


def test_both_departing_alike_is_told() -> None:
    """Two with absolute values, of which one stretches them: only that makes the difference."""
    asked = {
        "one": {"method_key": "weigh", "toolset": "tidy", "exec_args": {"absolute": True}},
        "other": {"method_key": "weigh", "toolset": "tidy", "defaults": "toolset"},
    }
    inputs = np.random.default_rng(0).uniform(1, 2, (2, 5))
    (pair,) = cfi.compare(linear, asked, inputs=inputs, target=0).pairs
    assert [row.name for row in pair.rows] == ["unit_range"]
    assert "absolute=True of one" in pair.reason and "absolute=True of other" in pair.reason


def test_baselines_are_aligned(inputs: np.ndarray) -> None:
    asked = {
        "zero": {"method_key": "weigh", "toolset": "plain"},
        "one": {"method_key": "weigh", "toolset": "complete", "baselines": np.ones((1, 5))},
    }
    (pair,) = cfi.compare(linear, asked, inputs=inputs, target=0).pairs
    assert pair.verdict is Verdict.SETTINGS and [row.name for row in pair.rows] == ["baselines"]


def test_draws_are_told_from_differences(inputs: np.ndarray) -> None:
    asked = {
        "few": {"method_key": "weigh", "toolset": "noisy"},
        "many": {"method_key": "weigh", "toolset": "noisy", "exec_args": {"draws": 400}},
        "biased": {"method_key": "weigh", "toolset": "biased"},
    }
    found = cfi.compare(linear, asked, inputs=inputs, target=0, seed=4)
    pair = found.pair("few", "many")
    assert pair.verdict is Verdict.SAMPLING and pair.agrees and pair.sampling is not None
    assert pair.sampling == pytest.approx(0.1 / 2 * np.sqrt(15) / np.linalg.norm(WEIGHTS[0] * inputs), rel=0.5)
    assert {row.name for row in pair.rows} == {"draws"}
    assert found.pair("few", "biased").verdict is Verdict.DIFFER
    assert found.pair("many", "biased").verdict is Verdict.DIFFER


def test_approximations_that_approach_each_other() -> None:
    """1 - 1/8 against 1 - 1/16: with four times the steps a quarter of the difference is left."""
    asked = {
        str(steps): {"method_key": "weigh", "toolset": "coarse", "exec_args": {"steps": steps}} for steps in (8, 16)
    }
    (pair,) = cfi.compare(linear, asked, inputs=np.ones((1, 5)), target=0).pairs
    assert pair.verdict is Verdict.SETTINGS and pair.rows[0].name == "steps"
    asked["16"] = {"method_key": "weigh", "toolset": "plain"}
    (pair,) = cfi.compare(linear, asked, inputs=np.ones((1, 5)), target=0).pairs
    assert pair.verdict is Verdict.PROCESSED and "times 1.1429" in pair.reason  # 8/7


def test_what_fails_in_the_search_takes_no_answer_along(inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no laws here")

    monkeypatch.setattr("cfi_core.comparing.reasons.compare_laws", fail)
    pair = compare(inputs, "complete", "mixed")
    assert pair.measures is not None and "ValueError: no laws here" in pair.sentence


# laws


@pytest.mark.parametrize(
    ("faulty", "law"),
    [
        ("exchanged", "sensitivity"),
        ("spilt", "sensitivity"),
        ("mixed", "one sample at a time"),
        ("short", "completeness"),
        ("deaf", "dependence on settings"),
    ],
)
def test_the_broken_law_is_named(inputs: np.ndarray, faulty: str, law: str) -> None:
    right, own = ("powered", {"exec_args": {"power": 1.0}}) if faulty == "deaf" else ("complete", {})
    pair = compare(inputs, right, faulty, **own)
    assert pair.verdict is Verdict.DIFFER
    found = {one.name: one for one in pair.laws}
    assert law in found and found[law].broken_by == faulty and found[law].kept_by == right


def test_symmetry_where_elements_can_be_exchanged() -> None:
    def mean(x: np.ndarray) -> np.ndarray:
        return x.mean(1, keepdims=True)

    inputs = np.random.default_rng(5).uniform(1, 2, size=(2, 5))
    (pair,) = cfi.compare(mean, "weigh", ["complete", "exchanged"], inputs=inputs, target=0).pairs
    assert "symmetry" in {law.name for law in pair.laws}


def test_no_law_is_said_to_be_broken_where_both_are_right(inputs: np.ndarray) -> None:
    found = cfi.compare(linear, "weigh", ["plain", "complete", "tidy", "powered"], inputs=inputs, target=0)
    assert found.agrees and not any(pair.laws or pair.rows for pair in found.pairs)


def test_the_odd_one_out(inputs: np.ndarray) -> None:
    found = cfi.compare(linear, "weigh", ["plain", "complete", "mixed"], inputs=inputs, target=0)
    assert "mixed stands alone: plain and complete go together" in found.notes


def test_a_step_behind_is_recognised(inputs: np.ndarray) -> None:
    """Twice the values, without a setting that says so."""
    asked = {
        "once": {"method_key": "weigh", "toolset": "plain"},
        "twice": {"method_key": "weigh", "toolset": "powered", "exec_args": {"power": 2.0}},
    }
    (pair,) = cfi.compare(linear, asked, inputs=inputs, target=0).pairs
    assert pair.verdict is Verdict.PROCESSED
    assert pair.reason == "the values of twice are those of once: times 2"


# the record


def test_it_prints_in_a_hundred_columns(inputs: np.ndarray) -> None:
    toolsets = ["plain", "tidy", "biased", "mixed"]
    found = cfi.compare(linear, "weigh", toolsets, inputs=inputs, target=0, seed=1, defaults="toolset")
    assert max(map(len, repr(found).splitlines())) <= 100
    names = {
        "a" * 50: {"method_key": "weigh", "toolset": "plain"},
        "b" * 50: {"method_key": "weigh", "toolset": "mixed"},
    }
    long = cfi.compare(linear, names, inputs=inputs, target=0, seed=1)
    assert max(map(len, repr(long).splitlines())) <= 100
    assert "<script" not in found._repr_html_() and "</table>" in found._repr_html_()


def test_names_of_the_user_are_escaped(inputs: np.ndarray) -> None:
    asked = {"<b>": {"method_key": "weigh", "toolset": "plain"}, "b": {"method_key": "weigh", "toolset": "mixed"}}
    found = cfi.compare(linear, asked, inputs=inputs, target=0)
    assert "<b>" not in found._repr_html_() and "&lt;b&gt;" in found._repr_html_()


def test_files(inputs: np.ndarray, tmp_path: Any) -> None:
    found = cfi.compare(linear, "weigh", ["plain", "short"], inputs=inputs, target=0, seed=1)
    told = json.loads(found.save(tmp_path / "c.json").read_text("utf-8"))
    assert told["pairs"][0]["verdict"] == "differ" and told["seed"] == 1
    with np.load(found.save(tmp_path / "c.npz")) as file:
        np.testing.assert_array_equal(file["values_plain"], found.attributions["plain"].values)
        assert json.loads(str(file["metadata"]))["pairs"][0]["first"] == "plain"
    assert "<table" in found.save(tmp_path / "c.html").read_text("utf-8")
    for name in ("c.txt", "c.png"):
        with pytest.raises(cfi.PlotError):
            found.save(tmp_path / name)


def test_pairs_by_name(inputs: np.ndarray) -> None:
    found = cfi.compare(linear, "weigh", ["plain", "short"], inputs=inputs, target=0)
    assert found.pair("short", "plain") is found.pairs[0]
    with pytest.raises(KeyError):
        found.pair("plain", "other")


def test_xarray(inputs: np.ndarray) -> None:
    xarray = pytest.importorskip("xarray")
    found = cfi.compare(linear, "weigh", ["plain", "short"], inputs=inputs, target=0).to_xarray()
    assert isinstance(found, xarray.Dataset) and found["difference"].dims == ("first", "second", "sample")
    assert float(found["difference"].sel(first="plain", second="plain").max()) == 0
