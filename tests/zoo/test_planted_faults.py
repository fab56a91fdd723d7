"""A call tells of faults in a conversion that change the attribution asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from adversary import wrapped
from fault_models import CASES
from planted_faults import HARMLESS, HIDDEN, Outcome, outcomes, outcomes_of, shortcomings, table

QUICK = {
    ("torch", "unequal columns"): ("gradient", "one output column"),
    ("tensorflow", "row"): ("outputs", "gradient wrong", "inputs clipped"),
}
"""Cases of either direction that take seconds, and beginnings of the kinds that are planted there."""


@pytest.mark.parametrize(("side", "name"), QUICK)
def test_what_an_adversary_plants_is_told(side: str, name: str) -> None:
    case = next(one for one in CASES if (one.side, one.name) == (side, name))
    faults = [one for one in wrapped(case) if one.kind.startswith(QUICK[side, name])]
    found = list(outcomes_of(case, faults))
    assert sum(one.is_effective for one in found) >= 10
    assert not [str(one) for one in found if one.is_missed]


@cache
def everything() -> Sequence[Outcome]:
    return list(outcomes())


@pytest.mark.zoo
def test_there_are_four_hundred_of_thirty_kinds_each_on_four_models_of_both_directions() -> None:
    kinds: dict[str, set[tuple[str, str]]] = {}
    for one in everything():
        kinds.setdefault(one.fault.kind, set()).add((one.case.side, one.case.name))
    assert len(kinds) >= 30
    assert len({id(one.fault) for one in everything()}) >= 400
    few = {kind: where for kind, where in kinds.items() if len(where) < 4 or len({side for side, _ in where}) < 2}
    assert not few


@pytest.mark.zoo
def test_99_in_100_are_told_and_9_in_10_of_each_kind() -> None:
    assert not shortcomings(everything()), table(everything())


def test_a_faithful_conversion_is_not_refused() -> None:
    """The judge itself: without a fault every call gives what the toolset gives natively."""
    for case in (one for one in CASES if (one.side, one.name) in QUICK):
        assert all(one.change <= 1e-5 and not one.told for one in outcomes_of(case, [HARMLESS, HIDDEN]))
