"""Passes over an ONNX graph: what it computes at its own number of samples stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfi_translate.program import repeats
from cfi_translate.reading import free_batch_axis


def computed(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("first", "follows"), [("Squeeze", False), ("Transpose", False), ("Identity", True)])
def test_a_one_in_a_reshape_stands_for_the_samples_only_behind_a_sample_axis(first: str, follows: bool) -> None:
    inputs = ["x", "axes"] if first == "Squeeze" else ["x"]
    settings = {"perm": [1, 0, 2]} if first == "Transpose" else {}
    nodes = [helper.make_node(first, inputs, ["z"], **settings), helper.make_node("Reshape", ["z", "sizes"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "reshaped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 15])],
        [numpy_helper.from_array(np.array(one), name) for name, one in (("axes", [0]), ("sizes", [1, -1]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    x = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    expected = computed(model, x)
    free_batch_axis(model, (x,))
    assert np.array_equal(computed(model, x), expected)
    if follows:
        assert computed(model, np.repeat(x, 3, 0)).shape == (3, 15)


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        ([[0.5, 1e-9, np.nan], [0.5000001, -1e-9, np.nan]], True),
        ([[0.0, -np.inf], [0.0, -np.inf]], True),
        ([[0.0, -np.inf], [1.0, -np.inf]], False),
        ([[0.0, -1e9], [1e-3, -1e9]], False),
        ([[1e-3, 2e-3], [1e-3, 2.001e-3]], False),
    ],
)
def test_rounding_alone_is_no_difference_between_samples(rows: list[list[float]], same: bool) -> None:
    array = np.array(rows, np.float32)
    assert repeats(array, array[:1]) is same
    assert repeats(np.array([[3, 4], [3, 4]]), np.array([[3, 4]]))
    assert not repeats(np.array([[3, 4], [3, 5]]), np.array([[3, 4]]))
