"""Want of memory is told from other errors, by what ONNX Runtime says."""

from __future__ import annotations

from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from cfi_onnx.adapter import OnnxAdapter


def test_what_onnx_runtime_says_for_want_of_memory() -> None:
    adapter = OnnxAdapter()
    assert adapter.is_out_of_memory(
        Fail("[ONNXRuntimeError] : Failed to allocate memory for requested buffer of size 8")
    )
    assert adapter.is_out_of_memory(MemoryError())
    assert not adapter.is_out_of_memory(Fail("[ONNXRuntimeError] : Got invalid dimensions"))
    assert not adapter.is_out_of_memory(ValueError("out of memory"))
