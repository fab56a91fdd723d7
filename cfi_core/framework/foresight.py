"""Passes that are made before they are asked for, where the runs before have shown that they will be.

A method that opens a layer asks for its activation and then, with the same values, for what follows: two passes of a
model of which one would have given both. And who wants to know the outputs before the run (to see what the model
predicts) can have them from the pass that the run begins with. What was made ahead serves only those who ask with the
same values, which are compared, and is thrown away otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cfi_core.framework.base import Runner, Staged
from cfi_core.framework.recorded import Pullback
from cfi_core.turns import Lock


@dataclass(frozen=True, eq=False)
class _Asked:
    """A stage that was asked for, or will be."""

    values: tuple[Any, ...]
    results: tuple[Any, ...]
    records: bool


class ForesightRunner(Runner):
    """A runner that goes through all stages at once, and before a run begins, where that is what comes."""

    def __init__(self, runner: Runner, same: Callable[[Any, Any], bool]) -> None:
        """Begins as the runner itself.

        Args:
            runner: Runs the model.
            same: Whether two of its tensors hold the same values.
        """
        self.layers = runner.layers
        self._runner, self._same = runner, same
        self._lock = Lock()
        self._ahead: dict[int, tuple[_Asked, Staged]] = {}
        self._asked: list[_Asked] = []  # from the first stage on, each with what the ones before it gave
        self._habit: tuple[bool, ...] = ()  # of each stage, whether a gradient was recorded; empty: not known
        self._missed = False  # whether what was looked at was thrown away

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a stage."""
        return tuple(self._ask(stage, tuple(values), records=False).results)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The results of a stage, and its pullback."""
        found = self._ask(stage, tuple(values), records=True)
        assert found.pullback is not None
        return tuple(found.results), found.pullback

    def settle(self) -> None:
        """Says that many passes will follow."""
        self._runner.settle()

    def look(self, inputs: Sequence[Any]) -> tuple[Any, ...] | None:
        """The outputs for inputs that a run is about to begin with; None as long as no run was seen. Then `release`.

        What is given is memory of the run: to be copied by whoever keeps it.
        """
        habit, self._missed = self._habit, False
        return tuple(self._go_ahead(tuple(inputs), habit).results) if habit else None

    def release(self) -> bool:
        """Ends what `look` began; whether the run has asked for all that was made ahead."""
        with self._lock:
            used, self._ahead, self._asked = not (self._ahead or self._missed), {}, []
        return used

    def _ask(self, stage: int, values: tuple[Any, ...], *, records: bool) -> Staged:
        with self._lock:
            kept, habit = self._ahead.pop(stage, None), self._habit
        if kept is None and stage == 0 < len(self.layers) and habit and habit[0] == records:
            self._go_ahead(values, habit)
            with self._lock:
                kept = self._ahead.pop(stage)
        elif kept is None or not (kept[0].records == records and self._is_same(values, kept[0].values)):
            with self._lock:  # nothing was made for this, and what was made is for something else
                self._habit, self._missed = () if kept else habit, self._missed or bool(self._ahead or kept)
                kept, self._ahead = None, {}
        found = kept[1] if kept is not None else self._runner.make(stage, values, records=records)
        self._note(stage, _Asked(values, tuple(found.results), records))
        return found

    def _go_ahead(self, inputs: tuple[Any, ...], habit: tuple[bool, ...]) -> Staged:
        """Makes all stages, keeps them, and gives the last one."""
        ahead, values = {}, inputs
        for stage, staged in enumerate(self._runner.chain(inputs, habit)):
            ahead[stage] = _Asked(values, tuple(staged.results), habit[stage]), staged
            values = (*values, *staged.results)
        with self._lock:
            self._ahead, self._asked = ahead, []
        return ahead[len(self.layers)][1]

    def _note(self, stage: int, asked: _Asked) -> None:
        """Stages that are asked for one after the other, with what the ones before gave, become the habit."""
        before = self._asked if stage else []
        expected = (*before[-1].values, *before[-1].results) if before else asked.values
        with self._lock:
            if len(before) != stage or not self._is_same(asked.values, expected):
                self._asked, self._habit = [], ()
            elif stage < len(self.layers):
                self._asked = [*before, asked]
            else:
                self._asked, self._habit = [], (*(one.records for one in before), asked.records)

    def _is_same(self, values: Sequence[Any], others: Sequence[Any]) -> bool:
        pairs = zip(values, others, strict=False)
        return len(values) == len(others) and all(one is other or self._same(one, other) for one, other in pairs)
