"""The certificate sees faults of the kinds that converters make."""

from __future__ import annotations

import pytest
from planted_faults import KERAS_SOURCES, TORCH_SOURCES, Outcome, outcomes

# The first of each list take a minute or less.
QUICK = [("torch", name) for name in TORCH_SOURCES[:3]] + [("keras", name) for name in KERAS_SOURCES[:4]]


def missed(found: list[Outcome]) -> list[str]:
    return [f"{one.model}: {one.fault.kind} at {one.fault.place} ({one.size:.1e})" for one in found if not one.caught]


@pytest.mark.parametrize(
    ("side", "name", "least"), [("torch", "two inputs, two outputs", 8), ("keras", "segmentation", 12)]
)
def test_one_of_each_kind_is_caught(side: str, name: str, least: int) -> None:
    found = list(outcomes(side, name, 1))
    assert len(found) >= least and not missed(found)


@pytest.mark.zoo
def test_of_two_hundred_at_least_99_in_100_are_caught() -> None:
    found = [one for side, name in QUICK for one in outcomes(side, name, 6)]
    assert len(found) >= 200
    assert len(missed(found)) <= len(found) / 100, missed(found)
