"""The examples of docs/pictures.md are run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "pictures.md"


@pytest.mark.filterwarnings("ignore::cfi_core.CFIWarning")
def test_its_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "pictures.md", "exec"), given)
    assert {path.name for path in tmp_path.iterdir()} == {"scan.gif", "making.gif", "methods.png"}
