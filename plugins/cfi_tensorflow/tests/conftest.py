"""Lets the tests find what they share."""

from __future__ import annotations

import sys
from pathlib import Path

# The helper module `tensorflow_checks` lies beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(Path(__file__).parent))
