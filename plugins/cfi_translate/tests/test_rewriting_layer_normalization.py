"""Layer normalisation in pieces is one operation."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_cases import graph, kinds, normal, rewritten

from cfi_translate.rewriting.layer_normalization import join_layer_normalization

X = normal(3, 4, 5)
WEIGHTS = {"e": np.float32(1e-5), "two": np.float32(2), "w": normal(5), "b": normal(5, seed=1), "rows": normal(4, 1)}
PIECES = (
    "m = ReduceMean (x, axes) c = Sub (x, m) s = Pow (c, two) v = ReduceMean (s, axes)"
    "t = Add (v, e) r = Sqrt (t) n = Div (c, r)"
)


def joined(behind: str, *axes: int, x: np.ndarray = X, **settings):
    weights = {**WEIGHTS, "axes": np.array(axes or [-1])}
    return rewritten(graph(PIECES + behind, x, weights, **settings), x, join_layer_normalization)


@pytest.mark.parametrize(
    ("behind", "weights"),
    [(" a = Mul (n, w) y = Add (b, a)", 2), (" y = Mul (w, n)", 1), (" y = Sin (n)", 1)],
    ids=["scale and shift", "scale", "neither"],
)
def test_with_and_without_weights(behind: str, weights: int) -> None:
    first = joined(behind)[0]
    assert (first.kind, first.name) == ("LayerNormalization", "n" if "Sin" in behind else "y")
    assert len(first.inputs) == 1 + weights
    assert (first.attributes["axis"], first.attributes["epsilon"]) == (2, pytest.approx(1e-5))


def test_over_two_axes() -> None:
    operations = joined(" y = Sin (n)", 1, 2)
    assert kinds(operations) == ["LayerNormalization", "Sin"]
    assert operations[0].attributes["axis"] == 1


def test_a_weight_of_another_shape_stays_behind() -> None:
    assert kinds(joined(" y = Mul (n, rows)")) == ["LayerNormalization", "Mul"]


def test_other_axes_and_types_stay() -> None:
    assert "LayerNormalization" not in kinds(joined(" y = Mul (n, rows)", 1))
    wide = {**{name: np.asarray(value, np.float64) for name, value in WEIGHTS.items()}, "axes": np.array([-1])}
    model = graph(PIECES + " y = Mul (n, w)", X.astype(np.float64), wide)
    assert "LayerNormalization" not in kinds(rewritten(model, X.astype(np.float64), join_layer_normalization))


@pytest.mark.parametrize("settings", [{"outputs": ("y", "v")}, {"modules": ("c",)}], ids=["output", "module"])
def test_what_is_wanted_in_between_stays(settings: dict) -> None:
    assert "LayerNormalization" not in kinds(joined(" y = Mul (n, w)", **settings))


def test_what_a_module_ends_in_takes_no_weights_from_behind() -> None:
    assert kinds(joined(" y = Mul (n, w)", modules=("n",))) == ["LayerNormalization", "Mul"]
