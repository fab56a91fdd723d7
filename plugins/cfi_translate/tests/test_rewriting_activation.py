"""Activations are recognised by their curves, however they are written."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_cases import graph, kinds, normal, rewritten

from cfi_translate.rewriting.activation import join_activation

X = 3 * normal(3, 4, 5)
NUMBERS = {
    "zero": 0,
    "half": 0.5,
    "one": 1,
    "two": 2,
    "three": 3,
    "six": 6,
    "root": np.sqrt(2),
    "sixth": 1 / 6,
    "tanhs": np.sqrt(2 / np.pi),
    "cubes": 0.044715,
    "many": np.full((1, 1, 5), 0.5),
    "steep": 1.702,
}
WEIGHTS = {name: np.float32(value) for name, value in NUMBERS.items()}
FORMS = {
    "GELU": ("a = Div (x, root) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, half)", "Gelu"),
    "GELU, half first": ("h = Mul (x, many) a = Div (x, root) b = Erf (a) c = Add (one, b) y = Mul (h, c)", "Gelu"),
    "GELU by tanh": (
        "a = Pow (x, three) b = Mul (a, cubes) c = Add (x, b) d = Mul (c, tanhs) e = Tanh (d) f = Add (e, one)"
        "g = Mul (half, x) y = Mul (g, f)",
        "Gelu",
    ),
    "swish": ("a = Sigmoid (x) y = Mul (x, a)", "Swish"),
    "swish by its formula": ("a = Neg (x) b = Exp (a) c = Add (b, one) y = Div (x, c)", "Swish"),
    "hard swish": ("a = Add (x, three) b = Clip (a, zero, six) c = Mul (x, b) y = Div (c, six)", "HardSwish"),
    "hard swish by hard sigmoid": ("a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (a, x)", "HardSwish"),
    "mish": ("a = Softplus (x) b = Tanh (a) y = Mul (x, b)", "Mish"),
    "hard sigmoid": ("a = Add (x, three) b = Clip (a, zero, six) y = Mul (b, sixth)", "HardSigmoid"),
    "ReLU6": ("a = Relu (x) y = Min (a, six)", "Clip"),
}
OTHERS = {
    "another curve": "a = Mul (x, steep) b = Sigmoid (a) y = Mul (x, b)",
    "another number": "a = Add (x, three) b = Clip (a, zero, six) c = Mul (x, b) y = Div (c, two)",
    "two sources": "a = Sigmoid (x) b = Sin (x) y = Mul (a, b)",
}


@pytest.mark.parametrize("form", FORMS)
def test_an_activation_is_one_operation(form: str) -> None:
    text, kind = FORMS[form]
    operations = rewritten(graph(text, X, WEIGHTS), X, join_activation)
    assert kinds(operations) == [kind]
    assert operations[0].name == "y"


def test_both_forms_of_gelu_are_told_apart() -> None:
    found = [rewritten(graph(FORMS[one][0], X, WEIGHTS), X, join_activation) for one in ("GELU", "GELU by tanh")]
    assert [one[0].attributes["approximate"] for one in found] == ["none", "tanh"]


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_no_activation_stays(form: str) -> None:
    model = graph(OTHERS[form], X, WEIGHTS)
    assert kinds(rewritten(model, X, join_activation)) == [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "settings", [{"outputs": ("y", "a")}, {"modules": ("a",)}, {"used": True}], ids=["output", "module", "used"]
)
def test_what_is_wanted_in_between_stays(settings: dict) -> None:
    text = "a = Sigmoid (x) b = Mul (x, a)" + (" y = Sub (b, a)" if settings.pop("used", False) else " y = Sin (b)")
    assert kinds(rewritten(graph(text, X, WEIGHTS, **settings), X, join_activation))[:2] == ["Sigmoid", "Mul"]


def test_a_module_that_is_an_activation_keeps_its_name() -> None:
    model = graph("gate = Sigmoid (x) act = Mul (x, gate) y = Sin (act)", X, modules=("act",))
    first = rewritten(model, X, join_activation)[0]
    assert (first.kind, first.name, first.ends_module) == ("Swish", "act", True)


def test_integers_stay() -> None:
    whole = np.arange(12).reshape(3, 4)
    model = graph("a = Max (x, zero) y = Min (a, six)", whole, {"zero": np.int64(0), "six": np.int64(6)})
    assert kinds(rewritten(model, whole, join_activation)) == ["Max", "Min"]
