"""Names of features: from lists, tables, estimators and tokenizers to the attribution, its files and its reductions."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import cfi_core as cfi

ROWS = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 6.0]])
TOKENS = np.array([[2, 1, 0], [1, 1, 2]])


@pytest.fixture(autouse=True)
def toolset(omission: None) -> None:
    """Functions of arrays are explained."""


class Tokenizer:
    words = ("[PAD]", "good", "##ness")

    def convert_ids_to_tokens(self, number: int) -> str:
        return self.words[number]


def total(*inputs: np.ndarray, **named: np.ndarray) -> np.ndarray:
    return sum(array.sum(1, keepdims=True) for array in (*inputs, *named.values())).astype(float)


def of_ids(input_ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (input_ids * mask).sum(1, keepdims=True).astype(float)


def explain(model: Any = total, inputs: Any = ROWS, **arguments: Any) -> cfi.Attribution:
    return cfi.attribute(model, "omit", inputs=inputs, target=0, **arguments)


PER_SAMPLE = (("##ness", "good", "[PAD]"), ("good", "good", "##ness"))


@pytest.mark.parametrize(
    ("inputs", "given", "expected"),
    [
        (ROWS, ["a", "b", "c"], ("a", "b", "c")),
        (ROWS, np.array(["a", "b", "c"]), ("a", "b", "c")),
        (ROWS, pd.Index(["a", "b", "c"]), ("a", "b", "c")),
        (ROWS, pd.DataFrame(ROWS, columns=["a", "b", 3]), ("a", "b", "3")),
        (ROWS, [["a", "b", "c"], ["d", "e", "f"]], (("a", "b", "c"), ("d", "e", "f"))),
        (TOKENS, Tokenizer(), PER_SAMPLE),
        (TOKENS, SimpleNamespace(tokenizer=Tokenizer()), PER_SAMPLE),
        (TOKENS, SimpleNamespace(id_to_token=lambda number: Tokenizer.words[number].encode()), PER_SAMPLE),
        (pd.DataFrame(ROWS, columns=["a", "b", "c"]), None, ("a", "b", "c")),
        (pd.DataFrame(ROWS, columns=["a", "b", "c"]), ["x", "y", "z"], ("x", "y", "z")),
        (pd.DataFrame(ROWS), None, None),
        (ROWS, None, None),
    ],
)
def test_names_come_home(inputs, given, expected):
    found = explain(inputs=inputs, feature_names=given)
    assert found.feature_names == expected
    assert found.dims == ("sample", "token" if expected == PER_SAMPLE else "feature")


def test_an_estimator_knows_its_columns():
    table = pd.DataFrame(ROWS, columns=["height", "width", "age"])
    fitted = LogisticRegression().fit(table, [0, 1])
    assert explain(fitted, ROWS).feature_names == ("height", "width", "age")


def test_several_inputs():
    one = explain(inputs=(ROWS, ROWS[:, :2]), feature_names=(None, ["a", "b"]))
    assert one.feature_names == (None, ("a", "b")) and one.part_names == (None, ("a", "b"))
    other = explain(lambda x, y: total(x, y), {"x": ROWS, "y": ROWS}, feature_names={"y": ["a", "b", "c"]})
    assert other.feature_names == {"x": None, "y": ("a", "b", "c")}
    tokens = explain(of_ids, {"mask": np.ones((2, 3), int), "input_ids": TOKENS}, feature_names=Tokenizer())
    assert tokens.feature_names == {"input_ids": PER_SAMPLE} and tokens.dims == {"input_ids": ("sample", "token")}


@pytest.mark.parametrize(
    ("inputs", "given", "error", "said"),
    [
        (ROWS, ["a", "b"], cfi.ArgumentError, "has 2 names for 3 features"),
        (ROWS, [["a", "b", "c"]], cfi.ArgumentError, "names for 1 samples; there are 2"),
        (ROWS, [["a", "b", "c"], ["d"]], cfi.ArgumentError, "has 1 names for 3 features"),
        (ROWS, "abc", cfi.ArgumentError, "is 'abc': pass a list of names"),
        (ROWS, 3, cfi.ArgumentError, "is 3: pass a list of names"),
        (ROWS, Tokenizer(), cfi.ArgumentError, "no input that is explained holds tokens"),
        (ROWS, {"x": ["a", "b", "c"]}, cfi.ArgumentError, "not given by name"),
        (TOKENS + 5, Tokenizer(), cfi.InputError, "has no token 7: is it the one of this model"),
        (TOKENS[..., None], Tokenizer(), cfi.ArgumentError, r"of shape \(samples, tokens\)"),
        ((ROWS, ROWS), ["a", "b", "c"], cfi.ArgumentError, "2 inputs are explained: pass feature_names as a tuple"),
    ],
)
def test_names_that_do_not_fit_are_refused(inputs, given, error, said):
    with pytest.raises(error, match=said):
        explain(inputs=inputs, feature_names=given)


def test_the_plan_takes_them_too():
    assert cfi.plan(total, "omit", inputs=ROWS, feature_names=["a", "b", "c"]).arguments.feature_names == [
        "a",
        "b",
        "c",
    ]


def test_files_xarray_and_listing_tell_them(tmp_path):
    pytest.importorskip("xarray")
    table, text = explain(feature_names=["a", "b", "c"]), explain(inputs=TOKENS, feature_names=Tokenizer())
    assert list(table.to_xarray().coords["feature"].values) == ["a", "b", "c"]
    assert text.to_xarray().coords["token_name"].values.tolist() == [list(row) for row in PER_SAMPLE]
    both = explain(lambda x, y: total(x, y), {"x": ROWS, "y": ROWS}, feature_names={"y": ["a", "b", "c"]})
    assert list(both.to_xarray().coords["feature_y"].values) == ["a", "b", "c"]
    assert repr(table).endswith("shape (2, 3), of a b c>")
    assert repr(text).endswith("of ##ness good [PAD] and other samples>")
    kept = json.loads(str(np.load(text.save(tmp_path / "a.npz"))["metadata"]))
    assert kept["feature_names"] == [list(row) for row in PER_SAMPLE]


# one value for each token


def make(values: Any, dims: Any, **more: Any) -> cfi.Attribution:
    return cfi.Attribution(values=values, dims=dims, method_key="m", toolset="t", **more)


VECTORS = np.arange(24.0).reshape(2, 3, 4) - 7
DIMS = ("sample", "token", "embedding")


def test_reductions():
    whole = make(VECTORS, DIMS, feature_names=PER_SAMPLE, provenance={"applied": {"steps": 3}}, extras={"figure": 1})
    for name, expected in {
        "sum": VECTORS.sum(2),
        "mean": VECTORS.mean(2),
        "norm": np.sqrt((VECTORS**2).sum(2)),
    }.items():
        found = getattr(whole, name)("embedding")
        np.testing.assert_allclose(found.values, expected, rtol=1e-15)
        assert found.dims == ("sample", "token") and found.feature_names == PER_SAMPLE and found.extras == {}
        assert found.provenance["applied"] == {"steps": 3, "reduced": (f"{name} over embedding",)}
    twice = whole.sum("embedding").mean("token")
    assert twice.dims == ("sample",) and twice.feature_names is None
    assert twice.provenance["applied"]["reduced"] == ("sum over embedding", "mean over token")
    assert whole.dims == DIMS and whole.provenance == {"applied": {"steps": 3}}


def test_reductions_of_several_arrays_touch_those_with_the_axis():
    named = make({"ids": VECTORS, "x": ROWS}, {"ids": DIMS, "x": ("sample", "feature")}).sum("embedding")
    np.testing.assert_array_equal(named.values["ids"], VECTORS.sum(2))
    np.testing.assert_array_equal(named.values["x"], ROWS)
    assert named.dims == {"ids": ("sample", "token"), "x": ("sample", "feature")}
    pair = make((VECTORS, VECTORS), (DIMS, DIMS)).sum("token")
    assert [part.shape for part in pair.values] == [(2, 4)] * 2 and pair.dims == (("sample", "embedding"),) * 2


@pytest.mark.parametrize("axis", ["sample", "channel"])
def test_what_cannot_be_reduced(axis):
    with pytest.raises(cfi.ArgumentError, match=f"no axis '{axis}' to take the sum over: there are token, embedding"):
        make(VECTORS, DIMS).sum(axis)
