"""Passes that are made before they are asked for: only where they were before, and only for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cfi_core.framework import ForesightRunner, Pullback, Runner, Staged


class Squares(Runner):
    """`y = (w x)^2 + x`, opened at `w x`."""

    layers = ("product",)

    def __init__(self) -> None:
        self.weight = 3.0
        self.passes: list[str] = []

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        self.passes.append(f"run {stage}")
        return self._results(stage, values)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        self.passes.append(f"linearize {stage}")
        weight = self.weight

        def pullback(cotangents: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
            (given,) = cotangents
            return (weight * given,) if stage == 0 else (given, 2 * values[1] * given)

        return self._results(stage, values), pullback

    def chain(self, inputs: Sequence[Any], records: Sequence[bool]) -> Sequence[Staged]:
        made = super().chain(inputs, records)
        self.passes[-2:] = ["both"]
        return made

    def _results(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        return (self.weight * values[0],) if stage == 0 else (values[1] ** 2 + values[0],)


@pytest.fixture
def inner() -> Squares:
    return Squares()


@pytest.fixture
def runner(inner: Squares) -> ForesightRunner:
    return ForesightRunner(inner, lambda one, other: bool(np.array_equal(one, other)))


def explain(runner: ForesightRunner, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs, and the gradient at the layer."""
    (activation,) = runner.run(0, (x,))
    (output,), pullback = runner.linearize(1, (x, activation.copy()))
    return output, pullback((np.ones_like(output),), (False, True))[1]


def test_one_pass_serves_both_stages_once_they_were_asked_for_together(inner: Squares, runner: ForesightRunner) -> None:
    for start in (1.0, 2.0, 5.0):
        x = np.array([start, -start])
        output, gradient = explain(runner, x)
        np.testing.assert_array_equal(output, 9 * x**2 + x)
        np.testing.assert_array_equal(gradient, 6 * x)
    assert inner.passes == ["run 0", "linearize 1", "both", "both"]


def test_a_replaced_activation_is_not_served_by_it(inner: Squares, runner: ForesightRunner) -> None:
    x = np.array([1.0])
    explain(runner, x)
    runner.run(0, (x,))
    np.testing.assert_array_equal(runner.run(1, (x, np.array([10.0])))[0], [101.0])
    assert inner.passes[-2:] == ["both", "run 1"]
    runner.run(0, (x,))  # and nothing is made ahead from then on
    np.testing.assert_array_equal(runner.run(1, (x, np.array([0.0])))[0], [1.0])
    assert inner.passes[-2:] == ["run 0", "run 1"]


def test_a_nan_is_the_same_as_nothing(runner: ForesightRunner) -> None:
    explain(runner, np.array([1.0]))
    assert np.isnan(explain(runner, np.array([np.nan]))[0]).all()


def test_what_was_left_over_does_not_serve_a_model_that_has_changed(inner: Squares, runner: ForesightRunner) -> None:
    x = np.array([2.0])
    explain(runner, x)
    (activation,) = runner.run(0, (x,))  # and the second stage, ahead
    inner.weight = 4.0
    (again,), _ = runner.linearize(0, (x,))
    assert (activation, again) == (6.0, 8.0)
    np.testing.assert_array_equal(runner.run(1, (x, activation))[0], [38.0])
    assert inner.passes[-2:] == ["linearize 0", "run 1"]


def test_a_run_begins_with_the_pass_that_was_looked_at(inner: Squares, runner: ForesightRunner) -> None:
    x = np.array([2.0])
    assert runner.look((x,)) is None  # no run was seen
    explain(runner, x)
    looked = runner.look((x,))
    assert looked is not None
    np.testing.assert_array_equal(looked[0], [38.0])
    explain(runner, x.copy())
    assert runner.release()
    assert inner.passes == ["run 0", "linearize 1", "both"]


def test_it_tells_when_a_run_began_otherwise(inner: Squares, runner: ForesightRunner) -> None:
    x = np.array([2.0])
    explain(runner, x)
    runner.look((x,))
    explain(runner, x + 1)
    assert not runner.release()
    runner.look((x,))
    assert not runner.release()
    np.testing.assert_array_equal(explain(runner, x)[0], [38.0])
