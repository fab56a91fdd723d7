"""Each fault that is worked around still exists: a test that fails here means that a workaround can go."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import onnx
import onnx2keras
import pytest
import tf2onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from translate_cases import difference, images, in_onnxruntime, permuted

from cfi_translate.keras_torch.tracing import symbolic_arithmetic
from cfi_translate.names import from_keras
from cfi_translate.reading import SHAPED_LIKE_INPUT
from cfi_translate.workarounds import patch_onnx2keras, patch_tf2onnx, quiet

NHWC = (0, 2, 3, 1)
FLAT = (3, 6)
PICTURE = (3, 3, 6, 8)
CHANNEL = np.array([0.5, 1.5, -2.0], np.float32).reshape(1, 3, 1, 1)


def one_node(operator: str, constants: tuple[np.ndarray, ...] = (), shape=PICTURE, **attributes):
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(operator, ["x", *names], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in zip(names, constants, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


VECTORS = tuple(np.array(v, np.float32) for v in ([1, 2, 3, 4, 5, 6], [0] * 6, [1] * 6, [2] * 6))
FAULTS = {
    "Conv with groups": one_node("Conv", (np.ones((6, 1, 3, 3), np.float32),), group=3),
    "Conv with unequal dilations": one_node("Conv", (np.ones((2, 3, 3, 3), np.float32),), dilations=[1, 2]),
    "MaxPool of negative values": one_node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool with ceil_mode": one_node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "AveragePool without counting the padding": one_node(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "GlobalAveragePool": one_node("GlobalAveragePool"),
    "GlobalMaxPool": one_node("GlobalMaxPool"),
    "Flatten": one_node("Flatten"),
    "Gemm with alpha": one_node("Gemm", (np.ones((6, 2), np.float32),), FLAT, alpha=2.0),
    "Softmax": one_node("Softmax", (), FLAT, axis=1),
    "LogSoftmax": one_node("LogSoftmax", (), FLAT, axis=1),
    "Clip at -1 and 1": one_node("Clip", (np.array(-1, np.float32), np.array(1, np.float32)), FLAT),
    "Selu": one_node("Selu", (), FLAT, alpha=2.0),
    "Elu without alpha": one_node("Elu", (), FLAT),
    "LeakyRelu without alpha": one_node("LeakyRelu", (), FLAT),
    "HardSigmoid": one_node("HardSigmoid", (), FLAT, alpha=1 / 6),
    "Softplus": one_node("Softplus", (), FLAT),
    "Softsign": one_node("Softsign", (), FLAT),
    "Exp": one_node("Exp", (), FLAT),
    "Add of a constant": one_node("Add", (np.array(2, np.float32),)),
    "Sub of a constant": one_node("Sub", (np.array(2, np.float32),)),
    "Mul by a constant": one_node("Mul", (np.array(2, np.float32),)),
    "Div by a constant": one_node("Div", (np.array(2, np.float32),)),
    "BatchNormalization of features": one_node("BatchNormalization", VECTORS, FLAT),
    "Pad with an omitted value": one_node("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array(1, np.float32))),
    "Transpose without perm": one_node("Transpose", (), FLAT),
    "Resize": one_node("Resize", (np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)), nearest_mode="ceil"),
}


def by_library(model) -> keras.Model:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    usual = keras.config.image_data_format()
    try:
        with quiet("onnx2keras"):
            return onnx2keras.onnx_to_keras(model, ["x"], [shape], verbose=False, change_ordering=True)
    finally:
        keras.config.set_image_data_format(usual)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_onnx2keras(fault: str) -> None:
    model = FAULTS[fault]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32) - 1
    try:
        converted = by_library(model)
        output = converted(permuted(array, NHWC) if array.ndim == 4 else array).numpy()
    except Exception:  # noqa: BLE001 - the library fails in many ways, and any of them is the fault
        return
    expected = in_onnxruntime(model, array)
    expected = permuted(expected, NHWC) if expected.ndim == 4 else expected
    wrong = output.shape != expected.shape or difference(output, expected) > 1e-5
    opaque = any(isinstance(layer, keras.layers.Lambda) for layer in converted.layers)
    assert wrong or opaque, f"onnx2keras now converts {fault} well: drop our converter"


def test_onnx2keras_leaves_the_image_format_changed_after_an_error() -> None:
    usual = keras.config.image_data_format()
    try:
        with quiet("onnx2keras"), pytest.raises(KeyError):
            onnx2keras.onnx_to_keras(one_node("Erf"), ["x"], [PICTURE[1:]], verbose=False, change_ordering=True)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format(usual)
    with pytest.raises(KeyError), patch_onnx2keras():
        onnx2keras.onnx_to_keras(one_node("Erf"), ["x"], [PICTURE[1:]], verbose=False, change_ordering=True)
    assert keras.config.image_data_format() == usual


def normalized() -> keras.Model:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((12, 17, 3)),
            layers.Conv2D(4, 3, bias_initializer="ones", name="biased"),
            layers.Conv2D(4, 3, use_bias=False, name="convolution"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="rectify"),
        ]
    )
    model.get_layer("norm").set_weights([np.full(4, value, np.float32) for value in (2, 1, 0.5, 3)])
    return model


def exported(model: keras.Model):
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False))
    signature = [tf.TensorSpec((None, 12, 17, 3), tf.float32, name="x0")]
    return tf2onnx.convert.from_function(function, signature, opset=13, inputs_as_nchw=["x0"])[0]


def test_tf2onnx_folds_scales_and_loses_names() -> None:
    model = normalized()
    usual = np.__dict__.get("object")
    np.object = object
    try:
        with quiet("tf2onnx"):
            bare = exported(model)
    finally:
        del np.object
    assert usual is None
    assert "Mul" not in [node.op_type for node in bare.graph.node]
    split = from_keras([layer.name for layer in model.layers])
    assert None in [split(node.name) for node in bare.graph.node]
    with patch_tf2onnx() as names:
        repaired = exported(model)
    assert [node.op_type for node in repaired.graph.node] == ["Conv", "Conv", "Mul", "Add", "Relu", "Transpose"]
    # The last one takes the channels-first output of this bare call back to the layout of Keras.
    origins = [split(names.get(node.name, node.name)) for node in repaired.graph.node]
    # The last node takes the channels-first output of this bare call back to the layout of Keras.
    assert [origin and origin[0] for origin in origins] == ["biased", "convolution", "norm", "norm", "rectify", None]
    array = images()
    assert difference(in_onnxruntime(repaired, array), in_onnxruntime(bare, array)) < 1e-5


def test_keras_sets_numpy_object(tmp_path) -> None:
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    assert "object" not in vars(np)
    patch_tf2onnx.cache_clear()
    try:
        with quiet("tf2onnx"):
            patch_tf2onnx()
        assert "object" in vars(np)
    finally:
        del np.object


EXPORT_THAT_FAILS = """
import sys, torch
try:
    torch.onnx.export(
        torch.nn.AdaptiveAvgPool2d(7), (torch.ones(1, 3, 12, 17),), sys.argv[1], dynamo=False, verbose=False
    )
except Exception as error:
    assert "adaptive_avg_pool2d" in str(error)
else:
    raise SystemExit("exported")
"""


def test_torch_exporter_switches_its_log_on(tmp_path) -> None:
    """In a process of its own, because the C library may keep what is printed until the process ends."""
    command = [sys.executable, "-W", "ignore", "-c", EXPORT_THAT_FAILS, str(tmp_path / "x.onnx")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Torch IR graph" in printed


def test_exporter_in_evaluation_mode_fuses_layers(tmp_path) -> None:
    """Why torch-onnx exports with TrainingMode.PRESERVE."""
    import onnx

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2)).eval()
    with quiet("torch.onnx"):
        torch.onnx.export(model, (torch.tensor(images()),), tmp_path / "x.onnx", dynamo=False, opset_version=13)
    kinds = [node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node]
    assert kinds == ["Conv"]


def test_onnx2torch_takes_a_constant_for_the_node_of_its_name() -> None:
    import onnx2torch

    from cfi_translate import onnx_to_torch

    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"], name="w"),
            helper.make_node("Add", ["a", "w"], ["y"], name="sum"),
        ],
        "names",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))],
        [numpy_helper.from_array(np.full((2, 3), 5, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(KeyError):
        onnx2torch.convert(model)
    array = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    converted = onnx_to_torch.convert(model, (array,)).model
    assert difference(converted(torch.tensor(array)).detach().numpy(), np.maximum(array, 0) + 5) == 0


@pytest.mark.parametrize("operator", SHAPED_LIKE_INPUT)
def test_onnx_does_not_know_the_shape_of_a_result(operator: str) -> None:
    assert not onnx.defs.get_schema(operator, "").has_type_and_shape_inference_function


def test_keras_variables_do_not_meet_symbolic_tensors() -> None:
    variable, tensor = keras.Variable([1.0, 2.0]), keras.KerasTensor((None, 2))
    with pytest.raises(ValueError, match="KerasTensor"):
        variable * tensor
    with symbolic_arithmetic():
        assert (variable * tensor).shape == (None, 2)
    with pytest.raises(ValueError, match="KerasTensor"):
        variable * tensor
