"""Biases of products and convolutions, and products as Gemm."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_cases import graph, kinds, normal, rewritten

from cfi_translate.rewriting.bias import bias_into_convolution, bias_into_product
from cfi_translate.rewriting.gemm import product_to_gemm

X = normal(3, 4, 5)
IMAGES = normal(3, 2, 6, 5)
WEIGHTS = {"w": normal(5, 6), "b": normal(6), "rows": normal(4, 1), "k": normal(4, 2, 3, 3), "kt": normal(2, 4, 3, 3)}
PRODUCT = "p = MatMul (x, w) y = Add (p, b)"
CONVOLUTION = "p = Conv (x, k) y = Add (c, p)"


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6)])
def test_a_bias_joins_its_product(shape: tuple[int, ...]) -> None:
    operations = rewritten(graph(PRODUCT, X, {**WEIGHTS, "b": normal(*shape)}), X, bias_into_product)
    assert kinds(operations) == ["MatMul"]
    assert (operations[0].name, len(operations[0].inputs)) == ("y", 3)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("p = MatMul (x, w) y = Add (p, rows)", {}),
        ("p = MatMul (x, w) q = Add (p, b) y = Sub (q, p)", {}),
        (PRODUCT, {"outputs": ("y", "p")}),
        (PRODUCT, {"modules": ("p",)}),
        ("t = Transpose <perm = [0, 2, 1]> (x) p = MatMul (x, t) y = Add (p, rows)", {}),
    ],
    ids=["another axis", "used", "output", "module", "no weight"],
)
def test_a_product_without_bias_stays(text: str, settings: dict) -> None:
    model = graph(text, X, WEIGHTS, **settings)
    assert kinds(rewritten(model, X, bias_into_product)) == [node.op_type for node in model.graph.node]


def test_a_product_of_rows_is_gemm() -> None:
    rows = normal(3, 5)
    operations = rewritten(graph(PRODUCT, rows, WEIGHTS), rows, bias_into_product, product_to_gemm)
    assert kinds(operations) == ["Gemm"]
    assert len(operations[0].inputs) == 3
    assert kinds(rewritten(graph("y = MatMul (x, w)", rows, WEIGHTS), rows, product_to_gemm)) == ["Gemm"]
    assert kinds(rewritten(graph("y = MatMul (x, w)", X, WEIGHTS), X, product_to_gemm)) == ["MatMul"]


def test_integers_are_no_gemm() -> None:
    whole = np.arange(15).reshape(3, 5)
    model = graph("y = MatMul (x, w)", whole, {"w": np.arange(10).reshape(5, 2)})
    assert kinds(rewritten(model, whole, product_to_gemm)) == ["MatMul"]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (CONVOLUTION, (4, 1, 1)),
        (CONVOLUTION, (1, 4, 1, 1)),
        ("p = Conv (x, k) y = Sub (p, c)", (4, 1, 1)),
        ("p = ConvTranspose (x, kt) y = Add (p, c)", (4, 1, 1)),
    ],
)
def test_a_bias_joins_its_convolution(text: str, shape: tuple[int, ...]) -> None:
    operations = rewritten(graph(text, IMAGES, {**WEIGHTS, "c": normal(*shape)}), IMAGES, bias_into_convolution)
    assert len(operations) == 1
    assert (operations[0].name, operations[0].inputs[2].shape) == ("y", (4,))


@pytest.mark.parametrize(
    ("text", "shape", "settings"),
    [
        (CONVOLUTION, (4, 1), {}),
        (CONVOLUTION, (3,), {}),
        ("p = Conv (x, k) y = Sub (c, p)", (4, 1, 1), {}),
        ("p = Conv (x, k, b4) y = Add (p, c)", (4, 1, 1), {}),
        (CONVOLUTION, (4, 1, 1), {"outputs": ("y", "p")}),
        (CONVOLUTION, (4, 1, 1), {"modules": ("p",)}),
    ],
    ids=["rows", "columns", "from the bias", "has one", "output", "module"],
)
def test_a_convolution_without_bias_stays(text: str, shape: tuple[int, ...], settings: dict) -> None:
    model = graph(text, IMAGES, {**WEIGHTS, "c": normal(*shape), "b4": normal(4)}, **settings)
    assert len(rewritten(model, IMAGES, bias_into_convolution)) == 2


def test_a_module_that_adds_keeps_its_name() -> None:
    operations = rewritten(graph(PRODUCT, X, WEIGHTS, modules=("y",)), X, bias_into_product)
    assert [(one.name, one.ends_module) for one in operations] == [("y", True)]
