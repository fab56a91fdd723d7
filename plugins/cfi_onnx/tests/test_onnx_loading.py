"""`.onnx` files by `cfi.load_model`: as they are, under their limits, whoever trusts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_files import CASES

from cfi_core.testing.conformance import ModelFileConformance, assert_refused

# Refused when they are read; what shows only while a model runs is refused then (test_hostile_files.py).
_BEGIN = ("fifo", "link_to_", "directory", "terabyte", "gigabytes", "garbage", "empty_file", "weight_", "data_")
_HARMLESS = ("without_a_length", "link_to_a_secret")
READ = [name for name in CASES if name.startswith(_BEGIN) and not name.endswith(_HARMLESS)]


class TestOnnxFiles(ModelFileConformance):
    framework, format, suffix = "onnx", "an ONNX model", ".onnx"

    def make_model(self) -> onnx.ModelProto:
        weight = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [onnx.helper.make_tensor_value_info("x", 1, ["n", 5])],
            [onnx.helper.make_tensor_value_info("y", 1, ["n", 4])],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)

    def write(self, model: Any, path: Path) -> None:
        onnx.save(model, path)


def test_the_error_is_the_one_that_names_the_limit(tmp_path, monkeypatch):
    onnx.save(TestOnnxFiles().make_model(), tmp_path / "a.onnx")
    monkeypatch.setenv("CFI_ONNX_NODES", "0")
    for trust in (False, True):
        assert "CFI_ONNX_NODES" in str(assert_refused(tmp_path / "a.onnx", trust=trust))


@pytest.mark.parametrize("name", READ)
def test_files_from_strangers_are_refused_as_everywhere(tmp_path, name):
    assert_refused(CASES[name](tmp_path), trust=True)


def test_a_pickle_of_that_name_is_none(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x80\x04cposix\nsystem\n")
    assert "holds a pickle" in str(assert_refused(tmp_path / "a.onnx"))
