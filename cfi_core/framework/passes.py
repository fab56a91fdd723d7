"""What the passes of a run have fed to a model and got from it: some samples of some passes, chosen by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cfi_core.progress import count

OF_FIRST, OF_OTHERS = 8, 4  # samples of a pass that are kept
DRAWN = 18  # passes that are kept besides the first, the largest and the last


@dataclass(eq=False)
class Pass:
    """Samples of one forward pass, in the axes of the model.

    Attributes:
        samples: How many the whole pass had.
        rows: Positions of those that are kept.
        inputs: What went in.
        outputs: What came out, by position; without those that the pass did not ask for.
        cotangents: What was sent back from each output, if anything was.
        gradients: What came back at each input, if anything was asked for there.
        activations: What took the place of what layers had computed, by the position of the layer that is watched.
        at_layers: What came back at these activations, if anything was asked for there.
        changed: Whether something else than what can be seen was done to the pass: then it tells nothing.
        held: Constants of the model that stand for further inputs, each with one row.
        types: Of the inputs that the user's model takes as whole numbers, by position.
    """

    samples: int
    rows: np.ndarray
    inputs: list[np.ndarray] = field(default_factory=list)
    outputs: dict[int, np.ndarray] = field(default_factory=dict)
    cotangents: dict[int, np.ndarray] = field(default_factory=dict)
    gradients: dict[int, np.ndarray] = field(default_factory=dict)
    activations: dict[int, np.ndarray] = field(default_factory=dict)
    at_layers: dict[int, np.ndarray] = field(default_factory=dict)
    changed: bool = False
    held: tuple[np.ndarray, ...] = ()
    types: Mapping[int, np.dtype[Any]] = field(default_factory=dict)

    def complete(self) -> Pass:
        """As the user's model would be asked: with what is held among the inputs, whole numbers as such."""
        if not self.held and not self.types:
            return self
        own = [one.astype(self.types[i]) if i in self.types else one for i, one in enumerate(self.inputs)]
        rows = (np.repeat(value, len(self.rows), axis=0) if value.shape[:1] == (1,) else value for value in self.held)
        gradients = {i: one for i, one in self.gradients.items() if i not in self.types}
        return replace(self, inputs=[*own, *rows], gradients=gradients, held=(), types={})


class Passes:
    """Chooses which samples of which passes an adapter keeps (`FrameworkAdapter.watch_passes`).

    Kept are the first pass, the largest, the last and some others; of each the last sample, those with the largest and
    the smallest value, and some others, in this order.

    Attributes:
        count: Passes so far.
        samples: Samples of all of them.
        held: Constants that stand for further inputs of the model in the passes to come, each with one row.
        types: Of inputs that are floating point numbers there, and whole ones to the user's model, by position.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._first: Pass | None = None
        self._largest: Pass | None = None
        self._last: Pass | None = None
        self._drawn: list[Pass] = []
        self.count = self.samples = 0
        self.held: tuple[np.ndarray, ...] = ()
        self.types: Mapping[int, np.dtype[Any]] = {}

    def open(self, samples: int, also: Sequence[int] = ()) -> Pass:
        """The record of the pass that begins, to be filled in.

        Args:
            samples: How many it has.
            also: Positions of samples to keep in any case: those with the largest and the smallest value.
        """
        most = min(samples, OF_OTHERS if self.count else OF_FIRST)
        others = self._generator.choice(samples - 1, most - 1, replace=False)
        rows = dict.fromkeys((samples - 1, *also, *map(int, others)))
        made = Pass(samples, np.array([*rows]), held=self.held, types=self.types)
        self.count, self.samples = self.count + 1, self.samples + samples
        count(samples)
        self._first, self._last = self._first or made, made
        if self._largest is None or samples > self._largest.samples:
            self._largest = made
        place = len(self._drawn) if len(self._drawn) < DRAWN else int(self._generator.integers(self.count))
        self._drawn[place : place + 1] = [made] if place < DRAWN else self._drawn[place : place + 1]
        return made

    def records(self) -> list[Pass]:
        """Those that tell something, the first, largest and last in front."""
        found = dict.fromkeys(one for one in (self._first, self._largest, self._last, *self._drawn) if one is not None)
        return [one.complete() for one in found if one.inputs and one.outputs and not one.changed]
