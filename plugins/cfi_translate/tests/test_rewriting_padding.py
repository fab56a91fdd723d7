"""Padding joins what can pad by itself."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_cases import graph, kinds, normal, rewritten

from cfi_translate.reading import read
from cfi_translate.rewriting import rewrite
from cfi_translate.rewriting.padding import padding_into_window

X = normal(3, 2, 6, 5) - 1
WEIGHTS = {
    "k": normal(4, 2, 3, 3),
    "around": np.array([0, 0, 1, 0, 0, 0, 1, 2]),
    "channels": np.array([0, 1, 1, 0, 0, 0, 1, 2]),
    "cut": np.array([0, 0, -1, 0, 0, 0, 1, 2]),
    "far": np.array([0, 0, 3, 0, 0, 0, 3, 0]),
    "zero": np.float32(0),
    "one": np.float32(1),
    "lowest": np.float32(-np.inf),
}
KERNEL = "kernel_shape = [3, 3]"
CONVOLUTION = "p = Pad (x, around) y = Conv (p, k)"
JOINED = {
    "convolution": CONVOLUTION,
    "convolution that pads": "p = Pad (x, around, zero) y = Conv <pads = [1, 1, 0, 1], strides = [2, 1]> (p, k)",
    "convolution without padding": 'p = Pad (x, around) y = Conv <auto_pad = "VALID"> (p, k)',
    "average": f"p = Pad (x, around) y = AveragePool <{KERNEL}> (p)",
    "average that counts": (
        "p = Pad (x, around) y = AveragePool <kernel_shape = [4, 4], pads = [1, 1, 1, 1], count_include_pad = 1> (p)"
    ),
    "maximum": f"p = Pad (x, around, lowest) y = MaxPool <{KERNEL}, strides = [2, 2]> (p)",
}
STAY = {
    "ones": "p = Pad (x, around, one) y = Conv (p, k)",
    "reflected": 'p = Pad <mode = "reflect"> (x, around) y = Conv (p, k)',
    "channels": "p = Pad (x, channels) q = Slice (p, s, e, axis) y = Conv (q, k)",
    "padding by the size": 'p = Pad (x, around) y = Conv <auto_pad = "SAME_UPPER"> (p, k)',
    "average that does not count": f"p = Pad (x, around) y = AveragePool <{KERNEL}, pads = [1, 1, 1, 1]> (p)",
    "maximum with zeros": f"p = Pad (x, around) y = MaxPool <{KERNEL}> (p)",
    "further than the window": f"p = Pad (x, far, lowest) y = MaxPool <{KERNEL}> (p)",
    "used": "p = Pad (x, around) q = Conv (p, k) r = ReduceSum <keepdims = 1> (p) y = Add (q, r)",
}
SLICE = {"s": np.array([0]), "e": np.array([2]), "axis": np.array([1])}


@pytest.mark.parametrize("case", JOINED)
def test_padding_joins(case: str) -> None:
    operations = rewritten(graph(JOINED[case], X, WEIGHTS), X, padding_into_window)
    assert len(operations) == 1
    assert operations[0].name == "y"


@pytest.mark.parametrize("case", STAY)
def test_other_padding_stays(case: str) -> None:
    assert kinds(rewritten(graph(STAY[case], X, {**WEIGHTS, **SLICE}), X, padding_into_window))[0] == "Pad"


def test_what_is_cut_off_stays() -> None:
    program = read(graph("p = Pad (x, cut) y = Conv (p, k)", X, WEIGHTS), (X,), "test")
    assert kinds(rewrite(program, [padding_into_window]).operations) == ["Pad", "Conv"]


@pytest.mark.parametrize("settings", [{"outputs": ("y", "p")}, {"modules": ("p",)}], ids=["output", "module"])
def test_padding_that_is_wanted_stays(settings: dict) -> None:
    assert kinds(rewritten(graph(CONVOLUTION, X, WEIGHTS, **settings), X, padding_into_window)) == ["Pad", "Conv"]
