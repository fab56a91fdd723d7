"""Which samples of which passes are kept, and which of them are compared."""

import numpy as np
import pytest

from cfi_core.confirming import _choose
from cfi_core.framework import Passes


def run(sizes, seed=0):
    passes = Passes(seed)
    for size in sizes:
        made = passes.open(size, (size // 2, 0))
        made.inputs, made.outputs = [np.zeros((len(made.rows), 1))], {0: np.zeros((len(made.rows), 1))}
    return passes


def test_the_first_the_largest_and_the_last_pass_are_kept_and_others():
    passes = run([4, 5, 90, *[6] * 50, 3])
    first, largest, last, *others = passes.records()
    assert [first.samples, largest.samples, last.samples] == [4, 90, 3]
    assert len(others) >= 15 and passes.count == 54 and passes.samples == 402
    assert len(run([80]).records()) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 8, 80])
def test_of_each_pass_the_last_sample_and_the_extreme_ones_come_first(size):
    (kept,) = run([size]).records()
    assert list(kept.rows[:3]) == list(dict.fromkeys((size - 1, size // 2, 0)))[:3]
    assert len(set(kept.rows)) == len(kept.rows) <= size and kept.rows.max() == size - 1


def test_a_seed_chooses():
    rows = [[tuple(one.rows) for one in run([30] * 60, seed).records()] for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_a_pass_that_was_changed_or_gave_nothing_tells_nothing():
    passes = run([4, 4, 4])
    passes.records()[0].changed = True
    passes.records()[0].outputs.clear()
    assert len(passes.records()) == 1


@pytest.mark.parametrize(("sizes", "most"), [([80], 8), ([4] * 60, 32), ([1] * 60, 8), ([3, 3], 32), ([4, 50, 4], 8)])
def test_what_is_compared_are_no_more_samples_than_there_may_be(sizes, most):
    chosen = _choose(run(sizes).records(), most)
    count = sum(len(rows) for _, rows in chosen)
    available = sum(len(one.rows) for one in run(sizes).records())
    assert count == min(most, available)
    assert all(len(set(rows)) == len(rows) and rows.max() < len(one.rows) for one, rows in chosen)
    if len(sizes) >= 20:
        assert len(chosen) >= min(most, 5)
