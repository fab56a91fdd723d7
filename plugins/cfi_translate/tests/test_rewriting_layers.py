"""Means that are pooling, scales that are normalisations, reshapes that are Flatten."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_cases import graph, kinds, normal, rewritten

from cfi_translate.rewriting.batch_normalization import scale_to_batch_normalization, shift_to_batch_normalization
from cfi_translate.rewriting.flatten import reshape_to_flatten
from cfi_translate.rewriting.pooling import mean_to_pooling

X = normal(3, 4, 6, 5)
CHANNELS = {"a": normal(4, 1, 1) + 3, "b": normal(1, 4, 1, 1, seed=1), "row": normal(5), "one": np.float32(2)}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("kind", "pooling"), [("ReduceMean", "GlobalAveragePool"), ("ReduceMax", "GlobalMaxPool")])
def test_over_all_of_space_it_is_pooling(kind: str, pooling: str, keepdims: int) -> None:
    model = graph(f"y = {kind} <keepdims = {keepdims}> (x, axes)", X, {"axes": np.array([-1, 2])})
    operations = rewritten(model, X, mean_to_pooling)
    assert [(one.kind, one.name, one.attributes["keepdims"]) for one in operations] == [(pooling, "y", keepdims)]


@pytest.mark.parametrize("keepdims", [0, 1])
def test_over_one_axis_that_stays_it_is_no_pooling(keepdims: int) -> None:
    signals = normal(3, 4, 6)
    model = graph(f"y = ReduceMean <keepdims = {keepdims}> (x, axes)", signals, {"axes": np.array([2])})
    assert kinds(rewritten(model, signals, mean_to_pooling)) == ["ReduceMean" if keepdims else "GlobalAveragePool"]


@pytest.mark.parametrize(
    ("kind", "axes", "x"),
    [
        ("ReduceMean", [1, 2], X),
        ("ReduceMean", [3], X),
        ("ReduceSum", [2, 3], X),
        ("ReduceMean", [2, 3], X.astype(np.float64)),
    ],
)
def test_other_reductions_stay(kind: str, axes: list[int], x: np.ndarray) -> None:
    assert kinds(rewritten(graph(f"y = {kind} (x, axes)", x, {"axes": np.array(axes)}), x, mean_to_pooling)) == [kind]


@pytest.mark.parametrize(
    ("text", "scale", "shift"),
    [
        ("p = Mul (x, a) y = Add (b, p)", CHANNELS["a"], CHANNELS["b"]),
        ("p = Div (x, a) y = Sub (p, b)", 1 / CHANNELS["a"], -CHANNELS["b"]),
        ("p = Sub (x, b) y = Mul (a, p)", CHANNELS["a"], -CHANNELS["b"] * CHANNELS["a"]),
        ("y = Mul (x, a)", CHANNELS["a"], 0 * CHANNELS["b"]),
    ],
)
def test_a_scale_of_channels_is_a_normalisation(text: str, scale: np.ndarray, shift: np.ndarray) -> None:
    (found,) = rewritten(graph(text, X, CHANNELS), X, scale_to_batch_normalization)
    assert (found.kind, found.name) == ("BatchNormalization", "y")
    np.testing.assert_allclose(found.inputs[1].constant, scale.reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(found.inputs[2].constant, shift.reshape(-1), rtol=1e-6)


@pytest.mark.parametrize(
    "text", ["y = Mul (x, row)", "y = Mul (x, one)", "y = Div (a, x)", "y = Add (x, b)", "p = Sin (x) y = Mul (p, x)"]
)
def test_other_products_and_sums_stay(text: str) -> None:
    assert "BatchNormalization" not in kinds(rewritten(graph(text, X, CHANNELS), X, scale_to_batch_normalization))


@pytest.mark.parametrize("settings", [{"outputs": ("y", "p")}, {"modules": ("p",)}], ids=["output", "module"])
def test_a_scale_that_is_wanted_takes_no_shift(settings: dict) -> None:
    model = graph("p = Mul (x, a) y = Add (p, b)", X, CHANNELS, **settings)
    assert kinds(rewritten(model, X, scale_to_batch_normalization)) == ["BatchNormalization", "Add"]


def test_a_shift_alone_is_one_for_readers_that_ask() -> None:
    assert kinds(rewritten(graph("y = Add (b, x)", X, CHANNELS), X, shift_to_batch_normalization)) == [
        "BatchNormalization"
    ]


@pytest.mark.parametrize("sizes", [[0, -1], [-1, 120], [0, 120]])
def test_joining_all_but_the_samples_is_flatten(sizes: list[int]) -> None:
    model = graph("y = Reshape (x, sizes)", X, {"sizes": np.array(sizes)})
    assert [(one.kind, len(one.inputs)) for one in rewritten(model, X, reshape_to_flatten)] == [("Flatten", 1)]


def test_a_squeeze_of_pooled_axes_is_flatten() -> None:
    model = graph("p = GlobalAveragePool (x) y = Squeeze (p, axes)", X, {"axes": np.array([2, 3])})
    assert kinds(rewritten(model, X, reshape_to_flatten)) == ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize("sizes", [[0, 4, -1], [0, 8, 15], [-1, 60]])
def test_other_reshapes_stay(sizes: list[int]) -> None:
    model = graph("y = Reshape (x, sizes)", X, {"sizes": np.array(sizes)})
    assert kinds(rewritten(model, X, reshape_to_flatten)) == ["Reshape"]
