"""ONNX models and sessions of ONNX Runtime pass the tests that every framework can inherit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cfi_core.testing.conformance import FrameworkConformance


def make_model(shape: tuple[int, ...], steps: list[tuple[Any, ...]], held: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A chain of nodes: operator, name, further inputs, attributes."""
    nodes, value = [], "x"
    for operator, name, others, attributes in steps:
        nodes.append(helper.make_node(operator, [value, *others], [name], name=name, **attributes))
        value = name
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", None])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class TestOnnx(FrameworkConformance):
    framework = "onnx"

    def make_model(self) -> Any:
        generator = np.random.default_rng(3)
        held = {"kernel": generator.normal(size=(4, 3, 3, 3)), "weights": generator.normal(size=(7, 48))}
        steps = [
            ("Conv", "conv", ("kernel",), {}),
            ("Relu", "relu", (), {}),
            ("Flatten", "flatten", (), {}),
            ("Gemm", "head", ("weights",), {"transB": 1}),
        ]
        return make_model((3, 5, 6), steps, held)

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 5, 6)).astype(np.float32)

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        steps = [("Gemm", "head", ("weights", "bias"), {"transB": 1})]
        return make_model(weights.shape[1:], steps, {"weights": weights, "bias": bias})


class TestOnnxRuntime(TestOnnx):
    framework = "onnxruntime"

    def make_model(self) -> Any:
        return self.open(super().make_model())

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        return self.open(super().make_linear_model(weights, bias))

    def open(self, model: onnx.ModelProto) -> Any:
        return onnxruntime.InferenceSession(model.SerializeToString())
