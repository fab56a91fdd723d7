"""ONNX models from the output of their Gather on, and sessions whose inputs have names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfi_core.errors import InputError
from cfi_onnx.adapter import OnnxAdapter
from cfi_onnx.sessions import SessionAdapter

ADAPTER = OnnxAdapter()
TOKENS = np.array([[5, 2, 9], [1, 7, 3]])
SCALE = np.array([[1.0], [2.0]], np.float32)
TABLE, PLACES = (np.random.default_rng(n).normal(size=(12, 4)).astype(np.float32) for n in (0, 1))


def model(twice: bool = False) -> onnx.ModelProto:
    """The vectors of tokens and places, scaled."""
    nodes = [
        helper.make_node("Cast", ["tokens"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "whole"], ["vectors"], name="words"),
        helper.make_node("Gather", ["places", "order" if not twice else "whole"], ["where"]),
        helper.make_node("Add", ["vectors", "where"], ["both"]),
        helper.make_node("ReduceMean", ["both", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["outputs"]),
    ]
    weights = {"table": TABLE, "places": PLACES, "order": np.arange(3), "axes": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "text",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT32, ["n", 3]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def by_hand(vectors: np.ndarray) -> np.ndarray:
    return (vectors + PLACES[:3]).mean(1) * SCALE


def test_the_gather_by_the_tokens_counts() -> None:
    given = [TOKENS.astype(np.int32), SCALE]
    found = ADAPTER.split_embedding(model(), given)
    assert found is not None and found.layer == "words"
    np.testing.assert_array_equal(found.activation, TABLE[TOKENS])
    vectors = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(ADAPTER.outputs(found.model, [vectors, *given]), by_hand(vectors), atol=1e-6)
    assert ADAPTER.input_names(found.model) == ("vectors", "tokens", "scale")
    assert ADAPTER.split_embedding(model(twice=True), given) is None


def session() -> Any:
    return onnxruntime.InferenceSession(model().SerializeToString(), providers=["CPUExecutionProvider"])


def test_sessions_take_their_inputs_by_name() -> None:
    adapter = SessionAdapter()
    loaded = adapter.load(session())
    assert adapter.input_names(loaded) == ("tokens", "scale")
    named = adapter.by_name(loaded, ("scale", "tokens"), {})
    given = adapter.outputs(named, [SCALE, TOKENS.astype(np.int32)])
    np.testing.assert_allclose(given, by_hand(TABLE[TOKENS]), atol=1e-6)
    assert adapter.declares_integer(named, 1) and not adapter.declares_integer(named, 0)
    with pytest.raises(InputError, match=r"none named 'mask'; 'scale' is missing. Its inputs are tokens, scale"):
        adapter.by_name(loaded, ("mask", "tokens"), {})
