"""Files made to hang a process, fill its memory or read its files are refused, soon and by an error that helps."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_files import CASES, SECRET, constant, graph, node, plain, proto, write

from cfi_core.errors import ArgumentError, InputError
from cfi_onnx import limits
from cfi_onnx.adapter import OnnxAdapter

# On an idle machine none takes 10 s (one Resize, which nothing can end, takes 7); others may be slower.
SECONDS, MEBIBYTES = 20, 1024
# Lower limits make the tests quick; these files are used with the defaults.
QUICK = {"CFI_ONNX_SECONDS": "1", "CFI_ONNX_PARTS": "200000"}
PATIENT = ["loop_of_two_to_the_62", "million_dimensions"]
# What the reference evaluator gets to run; the rest is refused when it is loaded, whoever would run it.
RUN = [
    *list(CASES)[list(CASES).index("branches_in_branches") : list(CASES).index("weight_of_negative_size")],
    "pattern_that_takes_forever",
]

# What is odd and harmless, or becomes so by what is left out of it.
SERVED = {
    "truncated",
    "functions_that_double_unused",
    "branches_in_branches",
    "tree_that_is_a_circle",
    "pattern_that_takes_forever",
    "input_of_negative_size",
    "nodes_of_one_name",
    # No more is read than the weight's sizes ask for.
    "data_of_a_terabyte_without_a_length",
    "data_of_three_gigabytes_without_a_length",
}
ADAPTER = OnnxAdapter()


def _report(mode: str, names: list[str], limits: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What a child process says of these files; of those after one that hangs or kills it, nothing."""
    environment = {**os.environ, **limits}
    child = Path(__file__).with_name("hostile_child.py")
    found: dict[str, dict[str, Any]] = {}
    with subprocess.Popen(
        [sys.executable, str(child), mode, *names], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            output, _ = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    for line in output.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            found[one["name"]] = one
    return found


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str], dict[str, Any]]:
    quick = [name for name in CASES if name not in PATIENT]
    found = {}
    for mode, names, lower in (
        ("onnxruntime", quick, QUICK),
        ("onnxruntime", PATIENT, {}),
        ("reference", [name for name in RUN if name in quick], QUICK),
        ("reference", [name for name in RUN if name in PATIENT], {}),
    ):
        found |= {(mode, name): one for name, one in _report(mode, names, lower).items()}
    return found


@pytest.mark.parametrize(
    ("mode", "name"), [*(("onnxruntime", one) for one in CASES), *(("reference", one) for one in RUN)]
)
def test_a_hostile_file(reports: dict[tuple[str, str], dict[str, Any]], mode: str, name: str) -> None:
    assert (mode, name) in reports, "it, or a file before it, hung or killed the process"
    found = reports[mode, name]
    assert found["kind"] in ("CFIError", *(["served"] if name in SERVED else [])), found["message"]
    # On a machine that others use, what was computed tells more than the clock.
    assert min(found["seconds"], found["computed"]) < SECONDS
    assert found["mebibytes"] < MEBIBYTES
    assert SECRET not in found["message"]
    assert len(found["message"]) < 1500
    assert found["unchanged"]


def test_an_error_names_the_limit_what_was_found_and_how_to_raise_it(tmp_path: Path) -> None:
    path = CASES["two_hundred_thousand_nodes"](tmp_path)
    with pytest.raises(InputError, match=r"50,001 nodes or more; the limit is 50,000 nodes.*CFI_ONNX_NODES"):
        ADAPTER.load(path)


def _doubled(times: int) -> onnx.ModelProto:
    names = ["x", *(f"v{i}" for i in range(times))]
    nodes = [node("Concat", f"{one} {one}", other, axis=1) for one, other in itertools.pairwise(names)]
    return proto(graph([*nodes, node("ReduceSum", f"{names[-1]} axes", "y")], [constant("axes", [1])]))


@pytest.mark.parametrize(
    ("variable", "value", "model"),
    [
        ("CFI_ONNX_NODES", 2, _doubled(2)),
        ("CFI_ONNX_STRUCTURE", 2 * 2**20, proto(graph([node("Relu", "x", doc_string="d" * 3 * 2**20)]))),
        ("CFI_ONNX_PARTS", 10, _doubled(2)),
        ("CFI_ONNX_MEMORY", -48 * 2**20, _doubled(3)),
    ],
)
def test_every_limit_can_be_raised(
    variable: str, value: int, model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, x = write(tmp_path, model.SerializeToString()), np.ones((1, 4), np.float32)
    expected = ADAPTER.outputs(ADAPTER.load(path), [x])
    monkeypatch.setenv(variable, str(value))
    with pytest.raises(InputError, match=variable):
        ADAPTER.outputs(ADAPTER.load(path), [x])
    monkeypatch.setenv(variable, "1e12")
    np.testing.assert_array_equal(ADAPTER.outputs(ADAPTER.load(path), [x]), expected)


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFI_ONNX_NODES", "many")
    with pytest.raises(ArgumentError, match="CFI_ONNX_NODES is 'many'"):
        ADAPTER.load(proto(plain()))


def test_models_in_memory_are_bounded_too() -> None:
    many = proto(graph([node("Relu", "x")] * (limits.NODES.default + 1)))
    with pytest.raises(InputError, match="CFI_ONNX_NODES"):
        ADAPTER.load(many)


def test_weights_of_a_model_in_memory_must_be_there() -> None:
    model = proto(graph([node("Add", "x w")]))
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(InputError, match="'w' lies in a file of its own"):
        ADAPTER.load(model)


def _with_weights(size: int) -> onnx.ModelProto:
    """y = x + sum(w), with w of that many ones."""
    weight = constant("w", np.ones(size), np.float32)
    return proto(graph([node("ReduceSum", "w", "s", keepdims=0), node("Add", "x s")], [weight]))


@pytest.mark.parametrize("runtime", [True, False])
def test_honest_weights_in_further_files(tmp_path: Path, runtime: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not runtime:
        monkeypatch.setattr("cfi_onnx.runner.unmet", lambda requirements: list(requirements))
    path = tmp_path / "model.onnx"
    onnx.save(_with_weights(10**6), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.stat().st_size < 10**4
    y = ADAPTER.outputs(ADAPTER.load(path), [np.zeros((2, 4), np.float32)])
    np.testing.assert_array_equal(y, np.full((2, 4), 10**6))
    assert ADAPTER.fingerprint(ADAPTER.load(path)) == ADAPTER.fingerprint(ADAPTER.load(path))


def test_models_larger_than_a_message_run_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of several gigabytes do, whose weights protobuf cannot write in one message."""
    monkeypatch.setattr("cfi_onnx.evaluation._LARGEST_PROTO", 10**6)
    model = ADAPTER.load(write(tmp_path, _with_weights(10**6).SerializeToString()))
    y = ADAPTER.outputs(model, [np.ones((2, 4), np.float32)])
    np.testing.assert_array_equal(y, np.full((2, 4), 10**6 + 1))


def test_honest_loops_and_sizes_from_data_are_served() -> None:
    """y = x doubled as often as x has rows, of a loop; and a range as long as the sum of x."""
    body = onnx.helper.make_graph(
        [node("Identity", "again", "more"), node("Add", "s s", "t")],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None),
        ],
        [
            onnx.helper.make_tensor_value_info("more", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        node("Shape", "x", "rows", start=0, end=1),
        node("Squeeze", "rows", "count"),
        onnx.helper.make_node("Loop", ["count", "", "x"], ["y"], body=body),
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Cast", "sum", "end", to=onnx.TensorProto.INT64),
        node("Range", "none end one", "range"),
        onnx.helper.make_node("Cast", ["range"], ["z"], to=onnx.TensorProto.FLOAT),
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "yz"]
    model = proto(graph(nodes, [constant("none", 0), constant("one", 1)], outputs=outputs))
    for samples in (1, 3, 5):
        y, z = ADAPTER.outputs(ADAPTER.load(model), [np.ones((samples, 4), np.float32)])
        np.testing.assert_array_equal(y, np.full((samples, 4), 2**samples))
        np.testing.assert_array_equal(z, np.arange(4 * samples))
