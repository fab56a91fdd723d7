"""The operator cases of the `onnx` package through our readers: nothing wrong, and never fewer right than before.

`onnx_torch_cases.txt` and `onnx_keras_cases.txt` list the cases that come out right; they may only grow.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_cases import verdicts

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
