"""A pass that a model has made by itself is handed to whoever would make the very same one, and to nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.framework import Recorded, recorded_pass

INPUTS = np.array([[1.0, -0.0], [2.0, 3.0]], np.float32)
RESULTS = np.array([[1.0], [2.0]], np.float32)


def recorded() -> Recorded:
    return Recorded(np.asarray, [INPUTS], RESULTS, [RESULTS], lambda cotangents, wanted: (cotangents[0],))


def test_nothing_is_handed_outside() -> None:
    one = recorded()
    assert recorded_pass([INPUTS]) is None
    with one.handed():
        found = recorded_pass([INPUTS.copy()])
        assert found is not None
        assert found[0][0] is RESULTS
        assert found[1]([RESULTS], [True]) == (RESULTS,)
    assert recorded_pass([INPUTS]) is None
    assert (one.taken, one.missed) == (1, 0)


@pytest.mark.parametrize(
    "other",
    [
        [INPUTS + np.float32(1e-7)],
        [np.abs(INPUTS)],  # another sign of zero
        [INPUTS[:1]],
        [INPUTS.astype(np.float64)],
        [INPUTS, INPUTS],
        [],
    ],
)
def test_other_values_get_nothing_which_is_counted(other: list[np.ndarray]) -> None:
    one = recorded()
    with one.handed():
        assert recorded_pass(other) is None
    assert (one.taken, one.missed) == (0, 1)


def test_what_went_in_may_change_afterwards() -> None:
    values = INPUTS.copy()
    one = Recorded(np.asarray, [values], RESULTS, [RESULTS], lambda cotangents, wanted: ())
    values += 1
    with one.handed():
        assert recorded_pass([INPUTS]) is not None
        assert recorded_pass([values]) is None


def test_it_is_gone_afterwards() -> None:
    one = recorded()
    with one.handed():
        pass
    with one.handed():
        assert recorded_pass([INPUTS]) is None
