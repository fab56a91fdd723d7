"""What would come out wrong is refused, by a message that names operator, node, translator and next step."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from translate_cases import images, permuted

from cfi_core.errors import TranslationError
from cfi_translate import onnx_to_keras, onnx_to_torch, tf_to_onnx, torch_to_onnx


def model_of(
    operator: str, *constants: np.ndarray, shape=(2, 3, 6, 8), opset: int = 13, outputs: int = 1, **attributes
):
    names = [f"c{i}" for i in range(len(constants))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(operator, ["x", *names], results, name="culprit", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in results],
        [numpy_helper.from_array(value, name) for name, value in zip(names, constants, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def array_for(model: onnx.ModelProto) -> np.ndarray:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return np.ones([dim.dim_value for dim in dims], np.float32)


KERNEL = np.ones((4, 3, 3), np.float32)
TO_KERAS = {
    "ArgMax": model_of("ArgMax", axis=1),
    "Flatten": model_of("Flatten", axis=2),
    "AveragePool": model_of("AveragePool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0]),
    "MaxPool": model_of("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
    "Selu": model_of("Selu", alpha=2.0),
    "Conv": model_of("Conv", KERNEL, shape=(2, 3, 8)),
    "Clip": model_of("Clip", np.array(-2, np.float32), np.array(1, np.float32)),
    "Softmax": model_of("Softmax", axis=3),
    "ReduceMean": model_of("ReduceMean", axes=[1]),
    "Gemm": model_of("Gemm", np.ones((2, 3), np.float32), shape=(2, 4), transA=1),
    "Div": model_of("Div", np.ones((2, 3, 6, 8), np.float32)),
    "Pad": model_of("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"),
    "Resize": model_of("Resize", np.array([], np.float32), np.array([1, 1, 2, 2], np.float32), mode="linear"),
    "Erf": model_of("Erf"),
}
TO_TORCH = {
    "AveragePool": model_of("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    "TopK": model_of("TopK", np.array([1]), outputs=2, axis=1),
    "Split": model_of("Split", np.array([1, 2]), outputs=2, axis=1),
    "Resize": model_of("Resize", np.array([], np.float32), np.array([1, 1, 2, 2], np.float32), mode="cubic"),
    "Bernoulli": model_of("Bernoulli", opset=15),
    "Det": model_of("Det", shape=(2, 3, 4, 4)),
}


@pytest.mark.parametrize("operator", sorted(TO_KERAS))
def test_to_keras(operator: str) -> None:
    model = TO_KERAS[operator]
    with pytest.raises(TranslationError) as refused:
        onnx_to_keras.convert(model, (array_for(model),))
    message = str(refused.value)
    assert operator in message or "axes" in message
    assert "onnx2keras" in message
    assert "Try another translator" in message


@pytest.mark.parametrize("operator", sorted(TO_TORCH))
def test_to_torch(operator: str) -> None:
    model = TO_TORCH[operator]
    with pytest.raises(TranslationError) as refused:
        onnx_to_torch.convert(model, (array_for(model),))
    message = str(refused.value)
    assert "onnx2torch" in message
    assert "Try another translator" in message
    assert operator in message or "opset" in message


def test_double_precision_weights_are_not_rounded() -> None:
    model = model_of("Relu")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(TranslationError, match="float64"):
        onnx_to_keras.convert(model, (array_for(model),))


def test_tensorflow_output_without_a_sample_axis() -> None:
    import tensorflow as tf

    with pytest.raises(TranslationError, match="sample axis"):
        tf_to_onnx.convert(lambda x: tf.reduce_sum(tf.nn.relu(x)), (images(),))


def test_invalid_file_is_a_typed_error() -> None:
    model = model_of("Relu")
    model.graph.node[0].op_type = "Conv"  # without weights
    for translator in (onnx_to_keras, onnx_to_torch):
        with pytest.raises(TranslationError, match="Try another translator"):
            translator.convert(model, (array_for(model),))


def test_wrong_number_of_inputs() -> None:
    with pytest.raises(TranslationError, match="2 inputs for a model with 1"):
        onnx_to_keras.convert(model_of("Relu"), (images(), images()))


def test_output_that_nothing_computes() -> None:
    graph = helper.make_graph(
        [],
        "none",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    for translator in (onnx_to_keras, onnx_to_torch):
        with pytest.raises(TranslationError, match="'x' is an input or a constant"):
            translator.convert(model, (np.ones((2, 3), np.float32),))


def test_torch_model_that_returns_a_dictionary() -> None:
    class Structured(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": x}

    with pytest.raises(TranslationError, match="returns dict"):
        torch_to_onnx.convert(Structured(), (images(),))


def test_torch_model_beyond_two_gigabytes() -> None:
    with torch.device("meta"):
        large = nn.Linear(2**15, 2**15)
    with pytest.raises(TranslationError, match="2 GiB"):
        torch_to_onnx.convert(large, (images(),))


def test_torch_operator_without_export() -> None:
    with pytest.raises(TranslationError, match="torch-onnx could not translate AdaptiveAvgPool2d"):
        torch_to_onnx.convert(nn.AdaptiveAvgPool2d(7), (images(),))


def test_tensorflow_operation_without_counterpart() -> None:
    import tensorflow as tf

    with pytest.raises(TranslationError, match=r"counterpart in ONNX|could not translate"):
        tf_to_onnx.convert(lambda x: tf.math.lgamma(x), (permuted(images(), (0, 2, 3, 1)),))
