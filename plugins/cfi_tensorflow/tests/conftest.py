"""Lets the tests find what they share."""

from __future__ import annotations

import sys
from pathlib import Path

from cfi_core.coexistence import load_safely

load_safely()  # tests of other plugins may run in the same process

# The helper module `tensorflow_checks` lies beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(Path(__file__).parent))
