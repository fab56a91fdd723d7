"""Makes every warning an error in the tests of this library, and torch the same for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfi_core.coexistence import load_safely

load_safely()

import torch  # noqa: E402 - tests of other plugins may run in the same process

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
