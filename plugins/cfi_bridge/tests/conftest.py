"""Loads both frameworks in an order that they survive, and keeps them to one thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfi_core.coexistence import load_safely

load_safely()

import torch  # noqa: E402 - what comes first is loaded first

# The helper module `hand_made` lies beside the tests; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _serial() -> Iterator[None]:
    """One thread: the models are so small that several would only wait for each other on a busy machine."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
