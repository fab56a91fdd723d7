"""A pass that a model has made by itself, for whoever would make the very same one inside another framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from cfi_core.framework.axes import Arrays

Pullback = Callable[[Sequence[Any | None], Sequence[bool]], tuple[Any | None, ...]]
"""From a cotangent for each result (None: zero) and a mark for each value whose gradient is wanted to the gradients,
one for each value (None: not wanted, or without influence, or no floating point value). May be called again."""

_handed: ContextVar[Recorded | None] = ContextVar("cfi_core_recorded", default=None)


class Recorded:
    """A pass of a model, its results and the function that carries cotangents of them back to its inputs.

    It is handed to what a bridge runs inside `handed`, once; then it is gone, with what the gradient needs.

    Attributes:
        outputs: What the model gave, as arrays in its own structure.
        taken: How often the pass was asked for.
        missed: How often another one was.
    """

    def __init__(
        self,
        read: Callable[[Any], np.ndarray],
        inputs: Sequence[Any],
        outputs: Any,
        results: Sequence[Any],
        pullback: Pullback,
    ) -> None:
        """Of tensors of the model's framework, in its axes.

        Args:
            read: Makes arrays of them.
            inputs: What went in.
            outputs: What came out.
            results: The same as a flat tuple of tensors.
            pullback: As of `Runner.linearize`.
        """
        self.outputs, self.taken, self.missed = outputs, 0, 0
        self._read = read
        self._arrays: Arrays = [np.array(read(value)) for value in inputs]
        self._results, self._pullback = tuple(results), pullback

    @contextmanager
    def handed(self) -> Iterator[None]:
        """Inside, the pass takes the place of one of a bridged model on the same values; it is gone on leaving."""
        token = _handed.set(self)
        try:
            yield
        finally:
            _handed.reset(token)
            self.forget()

    def forget(self) -> None:
        """Lets go of what the gradient needs."""
        self._results, self._pullback = (), _refuse

    def of(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback] | None:
        """The results and their pullback, if these are the values that went in, to the last bit."""
        pairs = zip(self._arrays, map(self._read, values), strict=False)
        is_same = len(values) == len(self._arrays) and all(map(_is_same, *zip(*pairs, strict=True)))
        if not is_same or not self._results:
            self.missed += 1
            return None
        self.taken += 1
        return self._results, self._pullback


def recorded_pass(values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback] | None:
    """What the model gave by itself for these inputs, if it has, and whoever runs it here may use that."""
    handed = _handed.get()
    return None if handed is None else handed.of(values)


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _refuse(*_: Any) -> Any:
    raise RuntimeError("The pass is gone.")
