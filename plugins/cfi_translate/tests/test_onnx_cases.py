"""The operator cases of the `onnx` package through our readers: nothing wrong, and never fewer right than before.

`onnx_torch_cases.txt` and `onnx_keras_cases.txt` list the cases that come out right; they may only grow.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_cases import READERS, verdicts

from cfi_translate import onnx_to_torch

LISTS = {"onnx-torch": "onnx_torch_cases.txt", "onnx-keras": "onnx_keras_cases.txt"}


@pytest.mark.parametrize("part", ["pool", pytest.param("", marks=pytest.mark.zoo)], ids=["some", "all"])
@pytest.mark.parametrize("reader", LISTS)
def test_no_case_is_wrong_and_none_that_was_right_is_lost(reader: str, part: str) -> None:
    listed = {name for name in Path(__file__).with_name(LISTS[reader]).read_text().split() if part in name}
    found = verdicts(reader, part)
    assert {one.case: one.reason for one in found if one.kind == "wrong"} == {}
    right = {one.case for one in found if one.kind == "right"}
    assert len(listed) > 20
    assert sorted(listed - right) == []


@pytest.mark.parametrize("part", ["batchnorm", pytest.param("", marks=pytest.mark.zoo)], ids=["some", "all"])
@pytest.mark.parametrize("reader", READERS)
def test_no_case_is_wrong_that_has_a_certificate(reader: str, part: str) -> None:
    found = verdicts(reader, part, certified=True)
    assert {one.case: one.reason for one in found if one.kind == "wrong"} == {}
    # All of these few are too much for onnx2keras.
    assert any(one.kind == "right" for one in found) or (part and reader == "onnx2keras")


def test_what_another_library_computes_otherwise_has_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where we did not know of it."""
    monkeypatch.setattr(onnx_to_torch, "_find_fault", lambda operation, has_second: None)
    alone = {one.case for one in verdicts("onnx2torch", "resize_downsample_scales") if one.kind == "wrong"}
    certified = {one.case: one for one in verdicts("onnx2torch", "resize_downsample_scales", certified=True)}
    assert len(alone) >= 4
    assert {certified[name].kind for name in alone} == {"refused"}
    assert any("computes something else" in certified[name].reason for name in alone)


@pytest.mark.parametrize("reader", READERS)
def test_a_model_of_one_sample_is_translated(reader: str) -> None:
    found = verdicts(reader, "averagepool_2d_default", certified=True)
    assert [one.kind for one in found] == ["right"]
