"""Makes every warning of an unexpected kind an error in the tests of this plugin."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cfi_core.coexistence import load_safely

HERE = Path(__file__).parent

# The helper module `jax_models` lies beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(HERE))

load_safely()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"))
