"""A toolset of plain gradients for the tests, because this plugin brings none; unexpected warnings are errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent

# The helper modules lie beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(HERE))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)  # a test's own marks win


@pytest.fixture(autouse=True)
def _plain_toolset() -> Iterator[None]:
    import plain_toolset

    from cfi_core.testing import use_plugins

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with use_plugins(plain_toolset, with_installed=True):
        yield
    torch.set_num_threads(threads)
