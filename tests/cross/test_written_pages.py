"""Pages that are written from what is installed are what their generators write: of methods, and of commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("tool", ["method_pages.py", "command_page.py"])
def test_they_are_up_to_date(tool):
    command = [sys.executable, TOOLS / tool, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
