"""Transposes move towards the outputs until they cancel, and what they pass computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from rewriting_cases import graph, normal

from cfi_translate.reading import read
from cfi_translate.rewriting.channels_first import to_channels_first
from cfi_translate.writing import needs_values, write

X = normal(3, 5, 4, 2)
WEIGHTS = {"k": normal(2, 2, 1, 1, seed=1), "row": normal(2, seed=2), "last": np.array([3]), "space": np.array([1, 2])}
WEIGHTS |= {"pads": np.array([0, 1, 2, 0, 0, 0, 1, 0])}
FIRST = "a = Transpose <perm = [0, 3, 1, 2]> (x) b = Conv (a, k)"
LAST = "Transpose <perm = [0, 2, 3, 1]>"


def moved(model: ModelProto, x: np.ndarray) -> tuple[list[str], tuple[int, ...] | None]:
    """Kinds of the operations afterwards, which compute what the model does, and the order of the input's axes."""
    program, (axes,) = to_channels_first(read(model, (x,), "test", needs=needs_values))
    written = write(program)
    for samples in (1, 3, 4):
        given = np.resize(x, (samples, *x.shape[1:]))
        turned = given if axes is None else given.transpose(axes)
        (expected,), (found,) = (
            ReferenceEvaluator(one).run(None, {"x": array}) for one, array in ((model, given), (written, turned))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return [one.kind for one in program.operations], axes


@pytest.mark.parametrize(
    ("text", "between"),
    [
        ("d = Relu (c)", ["Relu"]),
        ("d = Add (c, row)", ["Add"]),
        ("d = Sub (row, c)", ["Sub"]),
        ("d = Concat <axis = 3> (c, c)", ["Concat"]),
        ("d = Softmax <axis = -1> (c)", ["Softmax"]),
        ("d = ReduceMax <keepdims = 1> (c, space)", ["ReduceMax"]),
        ("d = Pad (c, pads)", ["Pad"]),
        ("r = Tanh (c) d = Mul (r, c)", ["Tanh", "Mul"]),
    ],
)
def test_what_minds_no_order_of_axes_lets_transposes_pass(text: str, between: list[str]) -> None:
    behind = "e = Transpose <perm = [0, 3, 1, 2]> (d) y = Sigmoid (e)"
    kinds, axes = moved(graph(f"{FIRST} c = {LAST} (b) {text} {behind}", X, WEIGHTS), X)
    assert kinds == ["Conv", *between, "Sigmoid"]
    assert axes == (0, 3, 1, 2)


def test_a_reduction_that_drops_the_moved_axes_needs_no_transpose_behind() -> None:
    text = f"{FIRST} c = {LAST} (b) y = ReduceMean <keepdims = 0> (c, space)"
    assert moved(graph(text, X, WEIGHTS), X) == (["Conv", "ReduceMean"], (0, 3, 1, 2))


def test_what_minds_the_order_gets_its_transpose() -> None:
    text = f"{FIRST} c = {LAST} (b) y = Flatten (c)"
    assert moved(graph(text, X, WEIGHTS), X) == (["Conv", "Transpose", "Flatten"], (0, 3, 1, 2))


def test_an_input_stays_as_it_is_where_turning_it_saves_nothing() -> None:
    assert moved(graph("a = Relu (x) y = Add (a, row)", X, WEIGHTS), X) == (["Relu", "Add"], None)


def test_a_transpose_of_axes_of_size_1_is_a_reshape_and_joins_others() -> None:
    x = normal(3, 1, 1, 4)
    text = "a = Transpose <perm = [0, 3, 1, 2]> (x) y = Flatten (a)"
    kinds, axes = moved(graph(text, x), x)
    assert (kinds, axes) == (["Reshape"], None)
