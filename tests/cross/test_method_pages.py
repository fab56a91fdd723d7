"""The pages of methods are what their generator writes from the toolsets that are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_they_are_up_to_date():
    command = [sys.executable, ROOT / "tools" / "method_pages.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
