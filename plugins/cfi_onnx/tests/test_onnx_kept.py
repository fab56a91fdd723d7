"""ONNX models that are kept in files are looked through like those of the user's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfi_onnx.adapter import OnnxAdapter

ADAPTER = OnnxAdapter()
(NAME,) = ADAPTER.file_sizes


def product(nodes: int = 1) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(9, dtype=np.float32).reshape(3, 3), "weight")
    names = ["x", *(f"y{number}" for number in range(nodes))]
    made = [helper.make_node("MatMul", [one, "weight"], [other]) for one, other in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", names[-1])]
    graph = helper.make_graph(made, "product", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_model_is_written_and_read():
    made = ADAPTER.restore(ADAPTER.save(product()))
    assert made == product()
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(ADAPTER.outputs(made, [x]), x @ np.arange(9).reshape(3, 3))


def _elsewhere(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def _without_weights(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.initializer[0].dims[:] = [3, 2**40]
    return model.SerializeToString()


ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "cut off": lambda data: data[:-5],
    "no message": lambda data: b"\xff" * 100,
    "a pickle": lambda data: b"\x80\x04\x95\x00",
    "weights elsewhere": _elsewhere,
    "weights that are nowhere": _without_weights,
    "too many nodes": lambda data: product(60_000).SerializeToString(),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_is_no_such_model_is_refused(name: str):
    with pytest.raises(Exception, match=r".*"):
        ADAPTER.restore({NAME: ATTACKS[name](ADAPTER.save(product())[NAME])})
