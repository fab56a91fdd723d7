"""Random small graphs through our own reader of ONNX models: right or refused, with ONNX Runtime as the judge."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_cases
import pytest
from onnx import helper, numpy_helper

from cfi_translate.onnx_torch import convert

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

UNARY = ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Softplus", "HardSwish", "LeakyRelu", "Identity", "Erf")


class Chain:
    """A graph of one operator after the other, beginning with images."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.shape = [2, int(self.random.integers(1, 5)), *(int(one) for one in self.random.integers(5, 10, 2))]
        self.input_shape = list(self.shape)
        self.value = "x"

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def numbers(self, *shape: int) -> str:
        return self.weight(self.random.normal(size=shape).astype(np.float32))

    def node(self, kind: str, *inputs: str, **attributes: object) -> None:
        result = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, [self.value, *inputs], [result], name=f"n{len(self.nodes)}", **attributes)
        )
        self.value = result

    def extend(self, kind: str) -> None:
        pick, rank = self.random.integers, len(self.shape)
        if kind == "unary":
            self.node(UNARY[pick(len(UNARY))])
        elif kind == "binary":
            shape = [size if pick(2) else 1 for size in self.shape[1:]]
            self.node(("Add", "Sub", "Mul")[pick(3)], self.numbers(*shape[pick(len(shape)) :]))
        elif kind == "conv" and rank == 4 and min(self.shape[2:]) >= 3:
            filters, strides = int(pick(1, 5)), [int(one) for one in pick(1, 3, 2)]
            pads = [int(one) for one in pick(0, 3, 4)]
            weight = self.numbers(filters, self.shape[1], 3, 2)
            self.node("Conv", weight, *([self.numbers(filters)] if pick(2) else []), strides=strides, pads=pads)
        elif kind == "pool" and rank == 4 and min(self.shape[2:]) >= 3:
            name = ("MaxPool", "AveragePool")[pick(2)]
            extra = {"count_include_pad": int(pick(2))} if name == "AveragePool" else {}
            pads = [int(one) for one in pick(0, 2, 4)]
            strides = [int(one) for one in pick(1, 3, 2)]
            self.node(name, kernel_shape=[3, 2], strides=strides, pads=pads, ceil_mode=int(pick(2)), **extra)
        elif kind == "transpose":
            self.node("Transpose", perm=[0, *(int(one) + 1 for one in self.random.permutation(rank - 1))])
        elif kind == "reduce" and rank > 2:
            axis = self.weight(np.array([int(pick(1, rank))]))
            self.node(("ReduceMean", "ReduceSum", "ReduceMax")[pick(3)], axis, keepdims=int(pick(2)))
        elif kind == "reshape":
            sizes = [self.shape[0], -1] if pick(2) else [self.shape[0], *self.shape[:0:-1]]
            self.node("Reshape", self.weight(np.array([0, *sizes[1:]])))
        elif kind == "softmax":
            self.node("Softmax", axis=int(pick(1, rank)))
        elif kind == "matmul":
            self.node("MatMul", self.numbers(self.shape[-1], int(pick(1, 6))))
        self.shape = self.inferred()

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info(self.value, onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def inferred(self) -> list[int]:
        if not self.nodes:
            return self.shape
        found = onnx.shape_inference.infer_shapes(self.model(), strict_mode=True, data_prop=True)
        return [one.dim_value for one in found.graph.output[0].type.tensor_type.shape.dim]


KINDS = ("unary", "binary", "conv", "pool", "transpose", "reduce", "reshape", "softmax", "matmul")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=7))
def test_a_random_chain_of_operators_comes_out_right(seed, kinds):
    chain = Chain(seed)
    for kind in kinds:
        chain.extend(kind)
    if not chain.nodes:
        return
    model = chain.model()
    inputs = (chain.random.normal(size=chain.input_shape).astype(np.float32),)
    expected = onnx_cases._by_onnxruntime(model, inputs)
    assert expected is not None
    note(onnx.printer.to_text(model))
    verdict = onnx_cases.judge(onnx_cases.Case("random", model, inputs, expected), convert, onnx_cases.run_torch)
    # None of these operators is refused for its kind.
    assert verdict.kind == "right", verdict.reason
