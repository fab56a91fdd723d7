"""An ONNX model run in stages gives what ONNX Runtime gives for the whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfi_core.errors import LayerError, NoGradientError
from cfi_onnx import runner as runners
from cfi_onnx.adapter import OnnxAdapter

ADAPTER = OnnxAdapter()


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    outputs: Sequence[str] = ("y",),
    shape: Sequence[Any] = ("n", 3, 6, 6),
    **declared: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *declared.get("inputs", ())],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=declared.get("ir", 8))
    return made


def residual() -> onnx.ModelProto:
    """y = conv2(relu(conv1(x)) + x) and z, the ReLU itself."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(3, 3, 3, 3)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["z"], "relu"),
        helper.make_node("Add", ["z", "x"], ["s"], "add"),
        helper.make_node("Conv", ["s", "w2"], ["y"], "conv2", pads=[1, 1, 1, 1]),
    ]
    return model(nodes, weights, ("y", "z"))


def runtime(made: onnx.ModelProto, feeds: dict[str, np.ndarray], outputs: Sequence[str] | None = None) -> list:
    """ONNX Runtime alone; further tensors can be asked for and none replaced."""
    whole = onnx.ModelProto()
    whole.CopyFrom(made)
    present = {value.name for value in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs or () if name not in present)
    return onnxruntime.InferenceSession(whole.SerializeToString()).run(outputs, feeds)


def images(samples: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(samples, 3, 6, 6)).astype(np.float32)


@pytest.fixture(params=["onnxruntime", "reference"], autouse=True)
def _evaluator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with and without ONNX Runtime."""
    if request.param == "reference":
        monkeypatch.setattr(runners, "unmet", lambda requirements: list(requirements))


def test_stages_give_what_the_whole_graph_gives() -> None:
    made, x = residual(), images()
    runner = ADAPTER.runner(made, [x], ["add", "conv1"])
    assert runner.layers == ("conv1", "add")
    c1, s, y, z = runtime(made, {"x": x}, ["c1", "s", "y", "z"])
    values = [x, c1, s]
    for stage, expected in enumerate([[c1], [s], [y, z]]):
        results = runner.run(stage, values[: stage + 1])
        for ours, theirs in zip(results, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_replaced_activation_reaches_all_that_read_it() -> None:
    """With the ReLU's output replaced by r: y = conv2(r + x), z = r, for any number of samples."""
    made, x = residual(), images(5)
    runner = ADAPTER.runner(made, [images()], ["relu"])
    r = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    kept = r.copy()
    y, z = runner.run(1, [x, r])
    (expected,) = runtime(_only_conv2(made), {"x": r + x})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(z, r)
    z += 1
    np.testing.assert_array_equal(r, kept)


def _only_conv2(made: onnx.ModelProto) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w2"], ["y"], pads=[1, 1, 1, 1])
    return model([node], {"w2": numpy_helper.to_array(made.graph.initializer[1])})


def test_without_layers_the_one_stage_is_the_model() -> None:
    made, x = residual(), images()
    runner = ADAPTER.runner(made, [x])
    for ours, theirs in zip(runner.run(0, [x]), ADAPTER.outputs(made, [x]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_session_is_made_once_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    session = runners.session
    monkeypatch.setattr(runners, "session", lambda part, *others: made.append(part) or session(part, *others))
    runner = ADAPTER.runner(residual(), [images()], ["relu"])
    before = len(made)
    for _ in range(5):
        runner.run(1, [images(), images()])
    assert len(made) == before
    assert [value.name for value in made[-1].graph.initializer] == ["w2"], "a stage holds only the weights it needs"


def test_subgraphs_read_what_is_replaced() -> None:
    """y = h if sum(x) > 0 else -h, inside an If, with h = 2x replaced."""
    then = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["h"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    nodes = [
        helper.make_node("Add", ["x", "x"], ["h"], "double"),
        helper.make_node("ReduceSum", ["x"], ["total"], "total", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], "positive"),
        helper.make_node("If", ["positive"], ["y"], "choose", then_branch=then, else_branch=other),
    ]
    made = model(nodes, {"zero": np.float32(0)}, shape=("n", 3))
    x = np.ones((2, 3), np.float32)
    runner = ADAPTER.runner(made, [x], ["double"])
    np.testing.assert_array_equal(runner.run(0, [x])[0], 2 * x)
    np.testing.assert_array_equal(runner.run(1, [x, 7 * x])[0], 7 * x)
    np.testing.assert_array_equal(runner.run(1, [-x, 7 * x])[0], -7 * x)
    # What a subgraph reads is computed, although no node of the outer graph asks for it.
    runner = ADAPTER.runner(made, [x], ["total"])
    np.testing.assert_array_equal(runner.run(1, [x, np.array(-1, np.float32)])[0], -2 * x)


def test_a_node_with_several_outputs_is_opened_at_its_first() -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], "split", axis=1),
        helper.make_node("Mul", ["a", "b"], ["y"], "product"),
    ]
    made, x = model(nodes, {}, shape=("n", 4)), np.arange(8, dtype=np.float32).reshape(2, 4)
    runner = ADAPTER.runner(made, [x], ["split"])
    np.testing.assert_array_equal(runner.run(0, [x])[0], x[:, :2])
    np.testing.assert_array_equal(runner.run(1, [x, np.full((2, 2), 10, np.float32)])[0], 10 * x[:, 2:])


def test_integers_and_older_models_that_list_weights_as_inputs() -> None:
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 2])
    table = helper.make_tensor_value_info("table", TensorProto.FLOAT, [5, 3])
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"], "embedding"),
        helper.make_node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        helper.make_node("ArgMax", ["m"], ["i"], "argmax", axis=1),
        helper.make_node("Cast", ["i"], ["f"], "cast", to=1),
        helper.make_node("Mul", ["m", "f"], ["scaled"], "scale"),
        helper.make_node("Add", ["scaled", "x"], ["y"], "add"),
    ]
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    made = model(nodes, {"table": values}, shape=("n", 3), inputs=(tokens, table), ir=3)
    x, ids = np.zeros((2, 3), np.float32), np.array([[0, 1], [2, 4]])
    runner = ADAPTER.runner(made, [x, ids], ["embedding", "argmax"])
    np.testing.assert_array_equal(runner.run(0, [x, ids])[0], values[ids])
    mean = values[ids].mean(1)
    np.testing.assert_array_equal(runner.run(1, [x, ids, values[ids]])[0].ravel(), mean.argmax(1))
    replaced = np.array([[1], [3]])
    np.testing.assert_allclose(runner.run(2, [x, ids, values[ids], replaced])[0], mean * replaced, rtol=1e-6)


def test_what_cannot_be_opened_is_refused_by_name() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], "parts", axis=0),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], "join", axis=0),
    ]
    made, x = model(nodes, {}, shape=("n", 3)), np.ones((2, 3), np.float32)
    with pytest.raises(LayerError, match=r"'parts' \(SplitToSequence\) gives no tensor"):
        ADAPTER.runner(made, [x], ["parts"])
    with pytest.raises(LayerError, match="no node 'nowhere'"):
        ADAPTER.runner(made, [x], ["nowhere"])


def test_gradients_are_refused() -> None:
    made, x = residual(), images()
    runner = ADAPTER.runner(made, [x], ["relu"])
    for asked in (
        lambda: runner.linearize(0, [x]),
        lambda: ADAPTER.vjp(made, [x], [x, x]),
        lambda: ADAPTER.layer_gradients(made, [x], [x, x], ["relu"]),
    ):
        with pytest.raises(NoGradientError, match="Use a perturbation method"):
            asked()


def test_a_softmax_at_the_end_is_cut_off() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["l"], "linear"),
        helper.make_node("Softmax", ["l"], ["y"], "softmax", axis=1),
        helper.make_node("Abs", ["l"], ["other"], "abs"),
    ]
    made = model(nodes, {"w": weight}, ("y", "other"), shape=("n", 3))
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    logits, other = ADAPTER.outputs(ADAPTER.without_softmax(made, [x]), [x])
    np.testing.assert_allclose(logits, x @ weight, rtol=1e-5)
    np.testing.assert_allclose(other, np.abs(x @ weight), rtol=1e-5)
    assert ADAPTER.without_softmax(residual(), [images()]) is None
