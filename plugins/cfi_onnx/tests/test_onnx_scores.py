"""Classifiers that give labels beside their scores, with and without ZipMap, as files and as sessions."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cfi_onnx.adapter import OnnxAdapter
from cfi_onnx.scores import in_own_places, keep_scores
from cfi_onnx.sessions import SessionAdapter

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
EXPECTED = np.exp(INPUTS @ WEIGHT) / np.exp(INPUTS @ WEIGHT).sum(1, keepdims=True)


def classifier(*, zipped: bool, labels: bool = True) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"], axis=1)]
    outputs = []
    if labels:
        nodes.append(helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0))
        outputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    if zipped:
        nodes.append(helper.make_node("ZipMap", ["p"], ["zip"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]))
        row = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        outputs.append(helper.make_value_info("zip", helper.make_sequence_type_proto(row)))
    else:
        outputs.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, [onnx.numpy_helper.from_array(WEIGHT, "w")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("zipped", [False, True])
def test_the_scores_stay_where_they_were(zipped):
    model = classifier(zipped=zipped)
    before = model.SerializeToString()
    adapter = OnnxAdapter()
    loaded = adapter.load(model)
    label, scores = adapter.outputs(loaded, [INPUTS])
    assert label is None and model.SerializeToString() == before
    np.testing.assert_allclose(scores, EXPECTED, rtol=1e-5)
    runner = adapter.runner(loaded, [INPUTS])
    (run,) = runner.run(0, [INPUTS])
    np.testing.assert_allclose(run, EXPECTED, rtol=1e-5)
    assert [layer.kind for layer in adapter.layers(loaded)][:2] == ["MatMul", "Softmax"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_session_gives_the_same(zipped):
    session = onnxruntime.InferenceSession(
        classifier(zipped=zipped).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    adapter = SessionAdapter()
    label, scores = adapter.outputs(adapter.load(session), [INPUTS])
    assert label is None
    np.testing.assert_allclose(scores, EXPECTED, rtol=1e-5)


def test_a_model_of_scores_alone_is_left_as_it_is():
    model = classifier(zipped=False, labels=False)
    assert keep_scores(model) is model
    assert in_own_places(model, [EXPECTED]) is EXPECTED


def test_a_model_of_labels_alone_keeps_them():
    model = classifier(zipped=False)
    del model.graph.output[1]
    assert keep_scores(model) is model
