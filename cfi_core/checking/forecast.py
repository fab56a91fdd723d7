"""What the model predicts for another batch, as cheaply as it can be known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cfi_core.checking.inputs import run_original
from cfi_core.framework import ForesightRunner, map_structure, rows_at_once
from cfi_core.records import Call, Inputs, Prepared

_UNITS = 16
"""Units in the last place of a row's largest output by which its first two lie apart, where rounding cannot decide."""


class Forecast:
    """Outputs for one batch after the other of an unchanged model.

    A bridge is asked for the pass that its run begins with, as long as runs begin with one at the inputs themselves.
    Otherwise the user's model runs, on one twin, compiled where the framework can.
    """

    def __init__(self, call: Call, prepared: Prepared) -> None:
        """Of a known call, whose model every batch has."""
        self._call, made = call, prepared.translation
        whole = made is not None and (made.head is None or not made.head.cut) and not prepared.repair
        self._runner: ForesightRunner | None = made.runner if made is not None and whole else None
        self._twin: Any = None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Inside, a batch is looked at and explained."""
        try:
            yield
        finally:
            if self._runner is not None and not self._runner.release():
                self._runner = None

    def outputs(self, inputs: Inputs, batch_size: Any) -> Any:
        """What the user's model gives, in its structure.

        Raises:
            InputError: The model fails, or gives no numbers.
        """
        ahead = self._look(inputs) if batch_size is None else None
        if ahead is not None:
            return ahead
        native = self._call.plan.route.native
        return run_original(self._call.original, inputs, native=native, twin=self._model(inputs), batch_size=batch_size)

    def _look(self, inputs: Inputs) -> Any | None:
        """What the run's own pass gives, where it leaves no doubt about the class."""
        runner, shapes = self._runner, [array.shape for array in inputs.arrays]
        if runner is None or len(self._call.output_arrays) != 1 or inputs.samples > rows_at_once(shapes, 1):
            return None
        found = runner.look(inputs.tensors)
        if found is None or len(found) != 1:
            return None
        scores = np.array(self._call.original.adapter.to_numpy(found[0]))
        known = self._call.output_arrays[0]
        if scores.shape != (inputs.samples, *known.shape[1:]) or scores.dtype != known.dtype or not _is_clear(scores):
            return None
        return map_structure(lambda _: scores, self._call.outputs)

    def _model(self, inputs: Inputs) -> Any:
        """A twin of the user's model, or what stands for it."""
        if self._twin is None:
            adapter = self._call.original.adapter
            twin = adapter.twin(self._call.original.model)
            self._twin = adapter.compiled(twin, inputs.passed) or twin
        return self._twin


def _is_clear(scores: np.ndarray) -> bool:
    """Whether of every row it is beyond rounding which of several classes has the largest value."""
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind != "f" or not np.isfinite(scores).all():
        return False
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    return bool((first - second > _UNITS * np.finfo(scores.dtype).eps * np.abs(scores).max(axis=1)).all())
