"""The built-in writer: what is written is read back by numpy alone."""

from __future__ import annotations

import json
import math

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.builtin import write_npz
from cfi_core.specs import Kind

VALUES = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
DIMS = ("sample", "height", "width")


def attribution(**facts):
    return Attribution(**({"values": VALUES, "dims": DIMS, "method_key": "saliency", "toolset": "press"} | facts))


def read(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("metadata")))


def test_npz_keeps_values_axes_and_provenance(tmp_path):
    provenance = {"seed": 7, "kind": Kind.LAYER, "seconds": np.float32(0.5), "shape": (1, 2), "nested": {"on": True}}
    write_npz(
        attribution(
            target=np.array([1, 2]),
            layer="conv",
            route=("there", "back"),
            provenance=provenance,
            extras={"delta": np.array([0.25]), "ratio": 0.5, "made by": object, "figure": object, "note": "µ"},
        ),
        tmp_path / "a.npz",
    )
    arrays, metadata = read(tmp_path / "a.npz")
    assert set(arrays) == {"values", "extra_delta", "extra_ratio"}
    assert arrays["values"].dtype == np.float32
    np.testing.assert_array_equal(arrays["values"], VALUES)
    np.testing.assert_array_equal(arrays["extra_delta"], [0.25])
    assert arrays["extra_ratio"] == 0.5
    assert metadata == {
        "dims": [list(DIMS)],
        "method_key": "saliency",
        "toolset": "press",
        "route": ["there", "back"],
        "certificate": None,
        "target": [1, 2],
        "layer": "conv",
        "feature_names": None,
        "extras": {"made by": "<class 'object'>", "note": "µ"},
        "provenance": {"seed": 7, "kind": "layer", "seconds": 0.5, "shape": [1, 2], "nested": {"on": True}},
    }


def test_npz_of_several_arrays(tmp_path):
    write_npz(attribution(values=(VALUES, VALUES[0]), dims=(DIMS, DIMS[1:])), tmp_path / "a.npz")
    arrays, metadata = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["values_0"], VALUES)
    np.testing.assert_array_equal(arrays["values_1"], VALUES[0])
    assert metadata["dims"] == [["sample", "height", "width"], ["height", "width"]]


def test_npz_takes_the_path_as_it_is(tmp_path):
    write_npz(attribution(), tmp_path / "A.NPZ")
    assert [path.name for path in tmp_path.iterdir()] == ["A.NPZ"]


def test_npz_keeps_numbers_that_are_not_finite(tmp_path):
    values = np.array([np.nan, np.inf])
    write_npz(attribution(values=values, dims=("sample",), provenance={"x": math.inf}), tmp_path / "a.npz")
    arrays, metadata = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["values"], values)
    assert metadata["provenance"]["x"] == math.inf
