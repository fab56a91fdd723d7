"""A model that is an ONNX file goes to either framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from shared_cnn import Twins, apart

import cfi_core as cfi


@pytest.fixture(scope="module")
def onnx_file(softmax_twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.onnx.export(
        softmax_twins.torch_model,
        (torch.tensor(softmax_twins.first),),
        path,
        dynamo=False,
        opset_version=13,
        input_names=["image"],
        dynamic_axes={"image": {0: "n"}},
    )
    return path


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_an_onnx_model_is_explained_by_either_toolset(softmax_twins, onnx_file, toolset, as_file):
    model = str(onnx_file) if as_file else onnx.load(onnx_file)
    crossed = cfi.attribute(model, "saliency", toolset, inputs=softmax_twins.first, target=[1, 3])
    native = cfi.attribute(softmax_twins.torch_model, "saliency", "captum", inputs=softmax_twins.first, target=[1, 3])
    assert crossed.dims == ("sample", "channel", "height", "width")
    assert apart(native.values, crossed.values) < 1e-4
    assert "logit" in crossed.provenance["explained"]
    assert crossed.certificate.faithful
    assert "onnx models have no gradients" in str(crossed.certificate)


def test_its_layers_go_by_node_names(softmax_twins, onnx_file):
    names = [layer.name for layer in cfi.layers(str(onnx_file))]
    assert "/relu2/Relu" in names
    crossed = cfi.attribute(
        str(onnx_file), "grad_cam", "tf-keras-vis", inputs=softmax_twins.first, target=0, layer="/relu2/Relu"
    )
    native = cfi.attribute(
        softmax_twins.torch_model, "grad_cam", "captum", inputs=softmax_twins.first, target=0, layer="relu2"
    )
    assert apart(native.values, crossed.values) < 1e-4


def test_translate_to_either_framework(softmax_twins, onnx_file):
    for framework in ("torch", "tensorflow"):
        translation = cfi.translate(str(onnx_file), framework, inputs=softmax_twins.first)
        assert translation.certificate.faithful
        assert "/conv2/Conv" in translation.layer_map


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(cfi.InputError, match="no file"):
        cfi.attribute("nowhere.onnx", "saliency", "captum", inputs=np.zeros((1, 3, 4, 4)), target=0)


def of_samples(count: int | str, last: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """Two inputs of 5 features, for that many samples at a time: `softmax((a + 2 b) w)`, or what `last` makes of it."""
    helper = onnx.helper
    weight = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Add", ["b", "b"], ["twice"]),
        helper.make_node("Add", ["a", "twice"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["product"], name="product"),
        *(last or [helper.make_node("Softmax", ["product"], ["y"], axis=1)]),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [count, 5]) for name in "ab"]
    graph = helper.make_graph(
        nodes,
        "samples",
        values,
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pairs(samples: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.random.default_rng(1).normal(size=(2, samples, 5)).astype(np.float32)
    return first, second


@pytest.mark.parametrize("samples", [1, 3, 10])
@pytest.mark.parametrize("exported_for", [1, 3, 10])
def test_a_model_of_a_fixed_number_of_samples_takes_any(exported_for: int, samples: int):
    free, fixed = of_samples("n"), of_samples(exported_for)
    for method, translator in (("saliency", "onnx-torch"), ("feature_ablation", "bridge-to-torch")):
        calls = [
            cfi.attribute(model, method, "captum", inputs=pairs(samples), target=1, translator=translator)
            for model in (free, fixed)
        ]
        for expected, found in zip(*(one.values for one in calls), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    session = onnxruntime.InferenceSession(fixed.SerializeToString(), providers=["CPUExecutionProvider"])
    run = cfi.attribute(session, "feature_ablation", "captum", inputs=pairs(samples), target=1)
    for expected, found in zip(calls[0].values, run.values, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert cfi.translate(fixed, "tensorflow", inputs=pairs(samples)).certificate.faithful


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ([onnx.helper.make_node("Softmax", ["product"], ["y"], axis=0)], "changes the result of another"),
        ([onnx.helper.make_node("ReduceSum", ["product"], ["y"], keepdims=0)], "no sample axis"),
    ],
)
def test_samples_that_cannot_be_computed_apart_are_refused(last: list[onnx.NodeProto], reason: str):
    with pytest.raises(cfi.InputError, match=reason):
        cfi.attribute(of_samples(4, last), "feature_ablation", "captum", inputs=pairs(3), target=0)


def _of_one_input(nodes: list[onnx.NodeProto], shape: list[int | str]) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        nodes,
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array(0), "axis"), onnx.numpy_helper.from_array(np.array([0]), "axes")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    "nodes",
    [
        [onnx.helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [onnx.helper.make_node("ReduceMax", ["x", "axes"], ["m"]), onnx.helper.make_node("Sub", ["x", "m"], ["y"])],
        [onnx.helper.make_node("ReduceMin", ["x", "axes"], ["m"]), onnx.helper.make_node("Sub", ["x", "m"], ["y"])],
        [onnx.helper.make_node("ReduceMean", ["x", "axes"], ["m"]), onnx.helper.make_node("Sub", ["x", "m"], ["y"])],
    ],
    ids=["recurrence", "largest", "smallest", "mean"],
)
@pytest.mark.parametrize("samples", [2, 4, 7])
@pytest.mark.parametrize("alike", [True, False])
def test_samples_that_influence_each_other_are_seen_whatever_the_inputs(
    nodes: list[onnx.NodeProto], alike: bool, samples: int
):
    x = np.zeros((samples + 2, 5), np.float32)
    if not alike:
        x[:] = np.random.default_rng(0).normal(size=x.shape)
    with pytest.raises(cfi.InputError, match="changes the result of another"):
        cfi.attribute(_of_one_input(nodes, [samples, 5]), "feature_ablation", "captum", inputs=x, target=0)


def test_layers_of_a_model_of_a_fixed_number_of_samples():
    nodes = [
        onnx.helper.make_node("ReduceSum", ["x"], ["all"], name="all", keepdims=0),
        onnx.helper.make_node("Relu", ["x"], ["y"], name="relu"),
    ]
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for count in (1, 2, "n"):
        model = _of_one_input(nodes, [count, 5])
        shapes = {layer.name: layer.output_shape for layer in cfi.layers(model, x)}
        assert shapes["relu"] == (5,)
        found = cfi.attribute(model, "layer_activation", "captum", inputs=x, layer="relu", translator="bridge")
        np.testing.assert_allclose(found.values, np.maximum(x, 0))
