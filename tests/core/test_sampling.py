"""Standard errors come home as the values do, and a tenth of the values is told; so is a baseline that nobody chose."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.checking import baselines
from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling
from cfi_core.hookspec import hookimpl
from cfi_core.moments import Moments
from cfi_core.specs import Kind, MethodSpec, Need, ToolsetSpec
from cfi_core.testing import use_plugins
from cfi_core.testing.conformance import assert_spread_is_told

ROWS = np.arange(1.0, 9.0).reshape(2, 4)


def model(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows.sum(1), -rows.sum(1)], axis=1)


def draw(request: MethodRequest) -> MethodResult:
    """The inputs as values, with errors as large as they are told."""
    share, draws = request.exec_args.get("share", 0.0), request.exec_args.get("draws", 20)
    errors = tuple(np.abs(value) * share for value in request.inputs)
    wrong = request.exec_args.get("wrong")
    sampling = Sampling((errors[0][:1],) if wrong else errors, draws, request.exec_args.get("argument", "draws"))
    return MethodResult(tuple(request.inputs), Axes.INPUT, sampling=sampling)


class Drawing:
    """A toolset of one method that draws, and of one that takes 0 as its baseline."""

    __name__ = "drawing"

    @hookimpl
    def cfi_toolsets(self) -> list[ToolsetSpec]:
        return [ToolsetSpec(name="lots", framework="numpy")]

    @hookimpl
    def cfi_methods(self) -> list[MethodSpec]:
        common: dict[str, Any] = {"toolset": "lots", "kind": Kind.ATTRIBUTION, "needs": frozenset({Need.FORWARD})}
        common |= {"implementation": f"{__name__}:draw", "optional": ("target", "baselines")}
        own = ("share", "draws", "argument", "wrong", "fill")
        return [
            MethodSpec(key="draw", exec_args=own, **common),
            MethodSpec(key="cover", exec_args=own, zero_baseline=True, instead_of_baselines=("fill",), **common),
        ]


@pytest.fixture(autouse=True)
def _drawing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(baselines, "_told", set())
    with use_plugins(Drawing()):
        yield


def explain(key: str = "draw", *, given: Any = None, inputs: Any = ROWS, seed: int | None = None, **own: Any) -> Any:
    return cfi.attribute(model, key, inputs=inputs, target=0, baselines=given, seed=seed, exec_args=own)


def test_errors_have_the_place_of_the_values_and_are_told_in_the_provenance():
    found = explain(share=0.05)
    np.testing.assert_allclose(found.extras["standard_error"], 0.05 * ROWS)
    assert found.provenance["sampling"] == {"draws": 20, "argument": "draws", "relative": pytest.approx(0.05)}


@pytest.mark.parametrize(
    ("share", "draws", "words"),
    [
        (0.2, 20, r"20 draws,.*off by some 20%.*exec_args=\{'draws': 120\} would bring it below 10%"),
        (0.333, 37, r"exec_args=\{'draws': 620\}"),
        (float("inf"), 3, "3 draws: too few to tell"),
        (float("inf"), 1, "1 draw: too few to tell"),
    ],
)
def test_errors_of_more_than_a_tenth_are_told_with_what_would_do(share, draws, words):
    with pytest.warns(cfi.SamplingWarning, match=words):
        explain(share=share, draws=draws)


def test_errors_of_baselines_are_told_in_baselines():
    with pytest.warns(cfi.SamplingWarning, match="a mean over 20 baselines.*About 120 baselines would"):
        explain(share=0.2, argument="baselines")


def test_up_to_a_tenth_nothing_is_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        explain(share=0.0999)
        explain(share=0.0)


def test_values_of_zero_have_no_relative_error():
    with pytest.warns(cfi.ModelWarning, match="zero everywhere"):
        assert explain(share=0.2, inputs=0 * ROWS).provenance["sampling"]["relative"] == 0


def test_values_of_zero_whose_errors_are_none_are_told(monkeypatch):
    """As a penalty makes them: what they are, the draws do not tell."""
    monkeypatch.setattr(sys.modules[__name__], "draw", lambda request: zeros(request, slice(None)))
    told = pytest.warns(cfi.SamplingWarning, match=r"its values are zero, with standard errors of up to 0\.3")
    with told, pytest.warns(cfi.ModelWarning, match="zero everywhere"):
        found = explain()
    assert found.provenance["sampling"]["relative"] == np.inf


@pytest.mark.parametrize(
    ("share", "words"), [(0.6, r"values of sample 1 are off by some 60%.*'draws': 44\}"), (0.4, "")]
)
def test_a_sample_of_noise_is_told_also_where_others_are_many_times_larger(monkeypatch, share, words):
    """The errors of sample 1 are told, which are too small to count among all."""

    def draw(request: MethodRequest) -> MethodResult:
        (values,) = request.inputs
        errors = np.zeros_like(values)
        errors[1] = share * values[1]
        return MethodResult((values,), Axes.INPUT, sampling=Sampling((errors,), 20, "draws"))

    monkeypatch.setattr(sys.modules[__name__], "draw", draw)
    inputs = ROWS * [[1000], [1]]
    if words:
        with pytest.warns(cfi.SamplingWarning, match=words):
            found = explain(inputs=inputs)
    else:
        found = explain(inputs=inputs)
    assert found.provenance["sampling"]["relative"] < 1e-2


def test_a_sample_of_zeros_is_told_beside_others(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "draw", lambda request: zeros(request, slice(1, 2)))
    with pytest.warns(cfi.SamplingWarning, match="its values of sample 1 are zero"):
        explain(inputs=100 * ROWS)


def zeros(request: MethodRequest, rows: slice) -> MethodResult:
    """Zeros in some rows, and an error of 0.3 everywhere."""
    values = np.array(request.inputs[0])
    values[rows] = 0
    return MethodResult((values,), Axes.INPUT, sampling=Sampling((np.full_like(values, 0.3),), 20, "draws"))


def test_errors_of_another_shape_are_refused():
    with pytest.raises(cfi.MethodError, match="standard errors of other shapes"):
        explain(wrong=True)


def test_sums_over_an_axis_have_none():
    found = explain(share=0.05)
    assert "standard_error" in found.extras
    assert "standard_error" not in found.sum(found.dims[1]).extras


def test_errors_are_kept_in_files(tmp_path):
    found = explain(share=0.05)
    found.save(tmp_path / "a.npz")
    held = cfi.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(held.extras["standard_error"], found.extras["standard_error"])
    assert held.provenance["sampling"] == found.provenance["sampling"]


def noisy(request: MethodRequest) -> MethodResult:
    """The mean of ten draws around the inputs, and its error times a factor."""
    generator, factor = np.random.default_rng(request.seed), request.exec_args.get("share", 1.0)
    draws = generator.normal(request.inputs[0], 2.0, (10, *request.inputs[0].shape))
    moments = Moments()
    moments.add(draws)
    sampling = Sampling((factor * moments.error_of_mean(),), 10, "draws")
    return MethodResult((draws.mean(0),), Axes.INPUT, sampling=sampling)


@pytest.mark.parametrize(("factor", "words"), [(0.5, r"0\.\d+ times the spread"), (2.0, r"[12]\.\d+ times the spread")])
def test_the_kit_tells_errors_that_are_not_the_spread(monkeypatch, factor, words):
    monkeypatch.setattr(sys.modules[__name__], "draw", noisy)
    assert_spread_is_told(lambda seed: explain(seed=seed), seeds=60)
    with pytest.raises(AssertionError, match=words):
        assert_spread_is_told(lambda seed: explain(seed=seed, share=factor), seeds=60)


# baselines


def test_a_baseline_of_0_is_told_once_for_each_method():
    with pytest.warns(cfi.BaselineWarning, match="cover of lots takes a baseline of 0.*baselines=0 says"):
        explain("cover")
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        explain("cover")


@pytest.mark.parametrize("chosen", [{"given": 0}, {"given": ROWS[:1]}, {"fill": 3}])
def test_a_baseline_that_is_chosen_is_not_told(chosen):
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        explain("cover", **chosen)
        explain("draw")
    with pytest.warns(cfi.BaselineWarning):
        explain("cover")
