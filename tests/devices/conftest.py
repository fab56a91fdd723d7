"""Tests on the device that CFI_TEST_DEVICE names: the CPU in `make test`, a GPU in `tox run -e gpu`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cfi_core.coexistence import load_safely

load_safely()

import torch  # noqa: E402 - tests of other plugins may run in the same process

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "plugins" / "cfi_captum" / "tests"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error::cfi_core.CFIWarning"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(os.environ.get("CFI_TEST_DEVICE", "cpu"))


@pytest.fixture(autouse=True)
def _exact_products() -> None:
    """TensorFloat-32 rounds to 10 bits, which is not what these tests are about."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
