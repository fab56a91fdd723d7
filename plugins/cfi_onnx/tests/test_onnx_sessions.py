"""ONNX Runtime sessions as models."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfi_core.errors import InputError
from cfi_onnx.sessions import SessionAdapter

ADAPTER = SessionAdapter()


def session(dtype: int = TensorProto.FLOAT) -> onnxruntime.InferenceSession:
    """y = x @ w, t = the token doubled."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["ids", "ids"], ["t"])]
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info("x", dtype, ["n", 3]), helper.make_tensor_value_info("ids", 7, ["n", 2])],
        [helper.make_tensor_value_info("y", dtype, ["n", 2]), helper.make_tensor_value_info("t", 7, ["n", 2])],
        [numpy_helper.from_array(np.arange(6).reshape(3, 2).astype(kind), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(made.SerializeToString())


def test_a_session_with_its_names_shapes_and_types() -> None:
    model = ADAPTER.load(session())
    x, ids = np.ones((2, 3)), np.array([[1, 2], [3, 4]], np.int32)
    assert ADAPTER.input_shapes(model) == ((None, 3), (None, 2))
    assert [ADAPTER.declares_integer(model, i) for i in (0, 1, 2)] == [False, True, None]
    assert ADAPTER.tensor(x, model).dtype == np.float32 and ADAPTER.tensor(ids, model).dtype == np.int32
    y, t = ADAPTER.outputs(model, [ADAPTER.tensor(x, model), ids])
    np.testing.assert_array_equal(y, [[6, 9], [6, 9]])
    assert t is None  # whole numbers beside scores cannot be explained
    assert ADAPTER.tensor(x.astype(np.float32), ADAPTER.load(session(TensorProto.DOUBLE))).dtype == np.float64
    with pytest.raises(InputError, match="takes 2 inputs, but gets 1"):
        ADAPTER.outputs(model, [x])


def test_a_session_is_channels_first() -> None:
    assert ADAPTER.channel_axis(ADAPTER.load(session()), (2, 8, 9, 3)) == 1
