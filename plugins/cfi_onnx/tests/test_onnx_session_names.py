"""Sessions of ONNX Runtime, called by the names of their inputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import cfi_core as cfi
from cfi_onnx.sessions import SessionAdapter

ADAPTER = SessionAdapter()


@pytest.fixture
def session() -> onnxruntime.InferenceSession:
    """`first - 2 * second`."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, real, [None, 3]) for name in ("first", "second")]
    nodes = [
        helper.make_node("Add", ["second", "second"], ["twice"]),
        helper.make_node("Sub", ["first", "twice"], ["apart"]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("apart", real, [None, 3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString())


def test_inputs_go_where_their_names_say(session: onnxruntime.InferenceSession) -> None:
    first, second = np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    model = ADAPTER.by_name(ADAPTER.load(session), ("second", "first"), {})
    assert ADAPTER.input_names(model) == ("second", "first")
    np.testing.assert_allclose(ADAPTER.outputs(model, [second, first]), first - 2 * second, rtol=1e-6)


def test_other_names_are_refused(session: onnxruntime.InferenceSession) -> None:
    with pytest.raises(cfi.InputError, match="first, second"):
        ADAPTER.by_name(ADAPTER.load(session), ("first", "third"), {})
