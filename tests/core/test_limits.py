"""Bounds that the environment raises."""

from __future__ import annotations

import pytest

import cfi_core as cfi
from cfi_core.framework import Limit

NODES = Limit("CFI_TEST_NODES", 50, "nodes")


def test_the_environment_replaces_the_default(monkeypatch: pytest.MonkeyPatch):
    assert NODES.value == 50
    monkeypatch.setenv("CFI_TEST_NODES", "1e3")
    assert NODES.value == 1000


@pytest.mark.parametrize("given", ["many", "inf", ""])
def test_what_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv("CFI_TEST_NODES", given)
    with pytest.raises(cfi.ArgumentError, match=f"CFI_TEST_NODES is {given!r}. Set it to a number of nodes"):
        _ = NODES.value


def test_the_error_names_limit_and_remedy():
    error = NODES.error("It has 70 nodes", 70)
    assert isinstance(error, cfi.InputError)
    assert str(error).startswith("It has 70 nodes; the limit is 50 nodes.") and "raise it to at least 70 by" in str(
        error
    )
    other = NODES.error_of(cfi.TranslationError, "It has 70 nodes")
    assert isinstance(other, cfi.TranslationError) and "raise it by the environment variable CFI_TEST_NODES" in str(
        other
    )
