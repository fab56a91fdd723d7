"""Makes every warning of an unexpected kind an error in the tests of this plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cfi_torchray import library, licence

assert library.common  # it imports TorchRay without what that says while it is imported
HERE = Path(__file__).parent

# The helper modules lie beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(HERE))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(autouse=True)
def _seeded_and_serial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread: the models are so small that several would only wait for each other on a busy machine."""
    monkeypatch.setattr(licence, "_told", ["in an earlier test"])
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
