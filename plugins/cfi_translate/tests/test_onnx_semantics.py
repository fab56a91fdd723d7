"""What ONNX operators mean, against ONNX Runtime through both of our readers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_cases import Case, by_onnxruntime, judge, run_keras, run_torch

from cfi_translate.onnx_keras import convert as to_keras
from cfi_translate.onnx_torch import convert as to_torch
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.moving import repeated_places
from cfi_translate.semantics.windows import Window, window_of

READERS = {"torch": (to_torch, run_torch), "keras": (to_keras, run_keras)}


def one_node(kind: str, shape: tuple[int, ...], *weights: np.ndarray, opset: int = 17, **settings) -> ModelProto:
    names = [f"w{position}" for position in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], ["y"], **settings)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(one, name) for name, one in zip(names, weights, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model: ModelProto, reader: str) -> None:
    shape = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = by_onnxruntime(model, (x,))
    assert expected is not None
    verdict = judge(Case("one", model, (x,), expected), *READERS[reader])
    assert verdict.kind == "right", verdict


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "settings",
    [{"output_shape": [6]}, {"output_shape": [5]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}],
    ids=str,
)
def test_which_end_a_transposed_convolution_cuts_off(reader: str, settings: dict) -> None:
    weight = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    check(one_node("ConvTranspose", (1, 2, 3), weight, strides=[2], **settings), reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_resizing(reader: str, mode: str, coordinates: str) -> None:
    nothing, scales = np.zeros(0, np.float32), np.array([1, 1, 2, 1.5], np.float32)
    settings = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check(one_node("Resize", (1, 2, 3, 4), nothing, scales, **settings), reader)


def test_padding_by_the_size_is_split_as_the_mode_says() -> None:
    x = Value("x", np.dtype(np.float32), (None, 1, 6))
    for mode, pads in (("SAME_UPPER", ((0,), (1,))), ("SAME_LOWER", ((1,), (0,))), ("VALID", ((0,), (0,)))):
        op = Operation("Conv", "c", 11, (x,), (x,), {"auto_pad": mode, "strides": (2,)})
        area = window_of(op, (3,), (6,))
        assert (area.begin, area.end) == pads


def test_elements_that_count_in_partial_windows() -> None:
    window = Window((3,), (2,), (1,), (1,), (1,)).round_up((6,))
    assert (window.begin, window.end, window.steps((6,))) == ((1,), (2,), (4,))
    assert window.counts((6,), None).tolist() == [2, 3, 3, 1]
    assert window.counts((6,), (1,)).tolist() == [3, 3, 3, 2]


@pytest.mark.parametrize(
    ("mode", "expected"), [("edge", [0, 0, 1, 2, 2]), ("wrap", [2, 0, 1, 2, 0]), ("reflect", [1, 0, 1, 2, 1])]
)
def test_repeated_elements(mode: str, expected: list[int]) -> None:
    assert repeated_places(3, 1, 1, mode).tolist() == expected
    assert repeated_places(5, -1, -2, mode).tolist() == [1, 2]
