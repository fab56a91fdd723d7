"""Models made to grow without end are refused by the converters, soon, by an error of CFI's."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SECONDS, MEBIBYTES = 20, 1024  # on an idle machine none takes 10 s; others may be slower
CONVERTERS = ("onnx_torch", "onnx_keras")


def _node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(one), name) for name, one in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        weights,
    )
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10, functions=list(functions))


def _functions(depth: int, calls: int = 2) -> list[onnx.FunctionProto]:
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    made = []
    for i in range(depth):
        kind, domain = (f"f{i + 1}", "f") if i + 1 < depth else ("Relu", "")
        names = ["a", *(f"b{j}" for j in range(calls - 1)), "c"]
        nodes = [helper.make_node(kind, [one], [other], domain=domain) for one, other in itertools.pairwise(names)]
        made.append(helper.make_function("f", f"f{i}", ["a"], ["c"], nodes, sets))
    return made


def _doubled(times: int, start: str, axis: int) -> list[onnx.NodeProto]:
    names = [start, *(f"v{i}" for i in range(times))]
    pairs = itertools.pairwise(names)
    return [_node("Concat", f"{one} {one}", other, axis=axis) for one, other in pairs]


def _branches(depth: int) -> onnx.NodeProto:
    inner = _node("Relu", "x", "z0")
    for level in range(1, depth + 1):
        result = [helper.make_tensor_value_info(f"z{level - 1}", TensorProto.FLOAT, None)]
        branch = helper.make_graph([inner], "branch", [], result)
        inner = _node("If", "c", f"z{level}", then_branch=branch, else_branch=branch)
        del inner.attribute[1].g.node[:]
        inner.attribute[1].g.node.append(_node("Relu", "x", f"z{level - 1}"))
    return inner


def _loop() -> onnx.NodeProto:
    boolean = helper.make_tensor_value_info
    body = helper.make_graph(
        [_node("Identity", "again", "more"), _node("Relu", "s", "t")],
        "body",
        [boolean("i", TensorProto.INT64, []), boolean("again", TensorProto.BOOL, []), boolean("s", 1, None)],
        [boolean("more", TensorProto.BOOL, []), boolean("t", 1, None)],
    )
    return helper.make_node("Loop", ["m", "", "x"], ["y"], body=body)


_CALL = helper.make_node("f0", ["x"], ["y"], domain="f")
_SUM = [_node("ReduceSum", "z", "r"), _node("Add", "x r", "y")]
_ROIS = {"roi": np.zeros(0, np.float32)}

CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "loop": lambda: _model([_loop()], {"m": np.array(2**62)}),
    "functions that double": lambda: _model([_CALL], functions=_functions(20)),
    "functions that double sixty times": lambda: _model([_CALL], functions=_functions(60)),
    "functions of many calls": lambda: _model([_CALL], functions=_functions(4, 100)),
    "branches on a constant": lambda: _model([_branches(25), _node("Identity", "z25", "y")], {"c": np.array(True)}),
    "concat": lambda: _model([*_doubled(40, "x", 1), _node("Relu", "v39", "y")]),
    "concat of constants": lambda: _model(
        [*_doubled(40, "c", 0), _node("ReduceSum", "v39", "r"), _node("Add", "x r", "y")], {"c": np.ones(1, np.float32)}
    ),
    "list of sizes that doubles": lambda: _model(
        [_node("Shape", "x", "s"), *_doubled(40, "s", 0), _node("Reshape", "x v39", "y")]
    ),
    "constant of shape": lambda: _model([_node("ConstantOfShape", "s", "z"), *_SUM], {"s": np.array([2**31])}),
    "shape from the samples": lambda: _model(
        [_node("Shape", "x", "s"), _node("Mul", "s many", "t"), _node("ConstantOfShape", "t", "z"), *_SUM],
        {"many": np.array([2**14, 2**14])},
    ),
    "expand": lambda: _model([_node("Expand", "x s", "z"), *_SUM], {"s": np.array([2**30, 1, 4])}),
    "tile": lambda: _model([_node("Tile", "x s", "z"), *_SUM], {"s": np.array([1, 2**30])}),
    "range": lambda: _model(
        [_node("Range", "a b d", "z"), *_SUM], {"a": np.float32(0), "b": np.float32(2e9), "d": np.float32(1)}
    ),
    "pad": lambda: _model([_node("Pad", "x p", "z"), *_SUM], {"p": np.array([0, 0, 0, 2**30])}),
    "resize": lambda: _model([_node("Resize", "x roi s", "z"), *_SUM], {**_ROIS, "s": np.array([1, 2e8], np.float32)}),
    "resize of a constant": lambda: _model(
        [_node("Resize", "c roi s", "z", mode="cubic"), *_SUM],
        {**_ROIS, "c": np.ones((4, 4), np.float32), "s": np.array([2000, 2000], np.float32)},
    ),
    "outer product": lambda: _model(
        [_node("ConstantOfShape", "s", "a"), _node("Transpose", "a", "b"), _node("MatMul", "a b", "z"), *_SUM],
        {"s": np.array([2**17, 1])},
    ),
    "products of constants": lambda: _model(
        [
            _node("ConstantOfShape", "s", "p0"),
            *(_node("MatMul", f"p{i} p{i}", f"p{i + 1}") for i in range(50)),
            _node("ReduceSum", "p50", "r"),
            _node("Add", "x r", "y"),
        ],
        {"s": np.array([2048, 2048])},
    ),
    "nodes": lambda: _model(
        [
            _node("Relu", one, other)
            for one, other in zip(["x", *map(str, range(60_000))], [*map(str, range(60_000)), "y"], strict=True)
        ]
    ),
    "weight of another size": lambda: _with(dims=[2**20], raw_data=b"0" * 16),
    "weight of negative size": lambda: _with(dims=[-4], raw_data=b"0" * 16),
    "weight of overflowing size": lambda: _with(dims=[2**62 + 1, 4], raw_data=b"0" * 16),
}


def _with(**fields: Any) -> onnx.ModelProto:
    model = _model([_node("Add", "x w", "y")])
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, **fields))
    return model


def _status(key: str) -> int:
    """Mebibytes, as Linux tells them; 0 elsewhere."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(key)), 0)


def _use(converter: str) -> None:
    """Converts all of them, and says what comes of each."""
    from importlib import import_module

    from cfi_core.errors import CFIError

    convert = import_module(f"cfi_translate.{converter}").convert
    x = np.ones((2, 4), np.float32)
    convert(_model([_node("Relu", "x", "y")]), (x,))
    for name, build in CASES.items():
        model = build()
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")
        before, begun, computed = _status("VmRSS"), time.monotonic(), time.process_time()
        try:
            convert(model, (x,))
            kind, message = "served", ""
        except BaseException as error:  # noqa: BLE001 - the test tells which may come
            kind = "CFIError" if isinstance(error, CFIError) else type(error).__name__
            message = str(error)
        seconds = min(time.monotonic() - begun, time.process_time() - computed)
        found = {"name": name, "kind": kind, "message": message, "seconds": seconds}
        print(json.dumps({**found, "mebibytes": _status("VmHWM") - before}), flush=True)


@pytest.fixture(scope="module", params=CONVERTERS)
def reports(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    environment = {**os.environ, "CFI_ONNX_SECONDS": "2"}
    command = [sys.executable, __file__, request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            output, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {one["name"]: one for one in lines}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_model(reports: dict[str, dict[str, Any]], name: str) -> None:
    assert name in reports, "it, or a model before it, hung or killed the process"
    found = reports[name]
    # Of constants that take long a converter may make layers instead.
    assert found["kind"] in ("CFIError", *(["served"] if "constant" in name else [])), found["message"]
    assert found["seconds"] < SECONDS
    assert found["mebibytes"] < MEBIBYTES


if __name__ == "__main__":
    _use(sys.argv[1])
