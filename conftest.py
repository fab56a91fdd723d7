"""For all tests: they draw few samples and leave baselines out on purpose, so that two warnings are none of theirs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets both pass where other warnings are errors; the tests that are about them expect them."""
    if find_spec("cfi_core") is None:  # as where wheels are tested, which install it elsewhere
        return
    for item in items:
        for name in ("SamplingWarning", "BaselineWarning"):
            item.add_marker(pytest.mark.filterwarnings(f"ignore::cfi_core.errors.{name}"))
