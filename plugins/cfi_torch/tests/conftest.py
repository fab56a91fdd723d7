"""Keeps torch to one thread, and seeds it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cfi_core.coexistence import load_safely

load_safely()

import torch  # noqa: E402 - tests of other plugins may run in the same process


@pytest.fixture(autouse=True)
def _seeded_and_serial() -> Iterator[None]:
    """One thread: the models are so small that several would only wait for each other on a busy machine."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
