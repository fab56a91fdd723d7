"""What a run says while it runs: a line with an estimate where somebody looks; elsewhere, now and then, some text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic

from cfi_core.progress import aside, is_shown, phase, show, tick

EVERY = 60.0
"""Seconds between two lines of text, in a log."""

_speaks: ContextVar[bool] = ContextVar("cfi_scale_speaks", default=False)


def say(text: str) -> None:
    """A line on the standard error, if the run speaks at all."""
    if _speaks.get():
        with aside():
            print(text, file=sys.stderr, flush=True)


@contextmanager
def speaking(progress: bool) -> Iterator[None]:
    """A run inside of which `say` is heard, or not."""
    token = _speaks.set(progress)
    try:
        yield
    finally:
        _speaks.reset(token)


@dataclass(eq=False)
class Meter:
    """How far a run is.

    Attributes:
        total: Samples that are left at its beginning; None where nobody knows.
        done: Samples that are behind it.
    """

    total: int | None
    done: int = 0
    _started: float = field(default_factory=monotonic)
    _told: float = field(default_factory=monotonic)

    def move(self, samples: int) -> None:
        """So many samples more."""
        self.done += samples
        tick(samples)
        if not is_shown() and monotonic() - self._told >= EVERY:
            self._told = monotonic()
            say(self.line())

    def line(self) -> str:
        """How far it is and how long it will take, in words."""
        passed = monotonic() - self._started
        if self.total is None:
            return f"{self.done:,} samples in {clock(passed)}"
        left = passed / self.done * (self.total - self.done) if self.done else 0
        return f"{self.done:,} of {self.total:,} samples in {clock(passed)}, about {clock(left)} left"


@contextmanager
def metered(total: int | None, there: int, progress: bool) -> Iterator[Meter]:
    """A line of progress for so many samples, besides those that were there."""
    what = "explaining" + (f" ({there:,} are there)" if there else "")
    with show(None if progress else False), phase(what, total, "samples"):
        yield Meter(total)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as far as there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
