"""The catalogue in core is what its generator writes from the plugins of this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "catalogue.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
