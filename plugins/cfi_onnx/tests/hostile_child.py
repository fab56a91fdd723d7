"""Loads and runs hostile files, many in one process, with a line of JSON on each: `hostile_child.py MODE NAME…`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hostile_files import CASES

from cfi_core.errors import CFIError
from cfi_onnx import runner
from cfi_onnx.adapter import OnnxAdapter

ADAPTER = OnnxAdapter()


def _status(key: str) -> int:
    """Mebibytes, as Linux tells them; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(key)), 0)


def bounded_address_space() -> None:
    """Whatever a file does, the machine that tests it is safe."""
    if sys.platform == "linux":
        import resource

        most = _status("VmSize") * 2**20 + 4 * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def forward(path: Path) -> None:
    """Loads the model and runs it on two samples."""
    model = ADAPTER.load(path)
    inputs = [
        np.ones([size if size and size < 100 else 2 for size in shape], np.float32)
        for shape in ADAPTER.input_shapes(model) or ()
    ]
    ADAPTER.outputs(model, inputs)


def measured(build: Callable[[Path], Path], use: Callable[[Path], None]) -> dict[str, Any]:
    """What comes of using a file, and what it takes: seconds, and mebibytes above those held before."""
    with tempfile.TemporaryDirectory() as name:
        path = build(Path(name))
        files = sorted(os.walk(name))
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # begins the highest mark anew
        before, begun, computed = _status("VmRSS"), time.monotonic(), time.process_time()
        try:
            use(path)
            kind, message = "served", ""
        except BaseException as error:  # noqa: BLE001 - the test tells which may come
            kind = "CFIError" if isinstance(error, CFIError) else type(error).__name__
            message = f"{type(error).__name__}: {error}"
        return {
            "kind": kind,
            "message": message,
            "seconds": time.monotonic() - begun,
            "computed": time.process_time() - computed,
            "mebibytes": _status("VmHWM") - before,
            "unchanged": sorted(os.walk(name)) == files,
        }


def report(cases: dict[str, Callable[[Path], Path]], names: list[str], use: Callable[[Path], None]) -> None:
    """A line for each file."""
    bounded_address_space()
    for name in names:
        print(json.dumps({"name": name, **measured(cases[name], use)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "reference":
        runner.unmet = lambda requirements: list(requirements)
    # What ONNX Runtime and the reference evaluator load for the first time is no file's doing.
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "first",
        [onnx.helper.make_tensor_value_info("x", 1, ["n"])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n"])],
    )
    first = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    ADAPTER.outputs(ADAPTER.load(first), [np.ones(2, np.float32)])
    report(CASES, sys.argv[2:], forward)
