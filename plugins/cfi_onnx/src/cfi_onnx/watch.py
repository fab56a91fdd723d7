"""Ends a pass that takes too long or too much memory, from a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cfi_core.errors import InputError
from cfi_onnx.limits import MEMORY, SECONDS

_PAUSE = 0.02
_STRETCH = 1.5
"""On a machine that others use, a pass may take so many times as long, if it computed less than half of the time."""

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass
class Watched:
    """A pass that runs.

    Attributes:
        stop: Ends it, as soon as may be; may be called again.
        seconds: That it may take.
        memory: Bytes by which the process may grow; None if it is not looked at.
        error: Why it was ended.
    """

    stop: Callable[[], None]
    seconds: float
    memory: int | None
    begun: float = field(default_factory=time.monotonic)
    computed: float = field(default_factory=time.process_time)
    resident: int = field(default_factory=lambda: resident())
    error: InputError | None = None

    def look(self) -> None:
        """Ends it, if it passes a limit."""
        if self.error is None:
            self.error = self._excess()
        if self.error is not None:
            self.stop()

    def _excess(self) -> InputError | None:
        passed = time.monotonic() - self.begun
        if passed > self.seconds:
            computed = time.process_time() - self.computed
            if computed > self.seconds / 2 or passed > _STRETCH * self.seconds:
                return SECONDS.error(f"The model was ended after {passed:.0f} s", 10 * round(self.seconds))
        if self.memory is not None and resident() - self.resident > self.memory:
            return MEMORY.error(f"The model was ended when it had taken {resident() - self.resident:,} bytes")
        return None


def resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


class _Guard:
    """The thread, which sleeps while nothing runs. A child process after a fork starts its own."""

    def __init__(self) -> None:
        self._runs: list[Watched] = []
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, run: Watched) -> None:
        with self._change:
            self._runs.append(run)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="cfi-onnx-guard", daemon=True)
                self._thread.start()
            self._change.notify()

    def remove(self, run: Watched) -> None:
        with self._change:
            self._runs.remove(run)

    def _watch(self) -> None:
        while True:
            with self._change:
                while not self._runs:
                    self._change.wait()
                for run in self._runs:
                    run.look()
            time.sleep(_PAUSE)


_guard = _Guard()


def _renew() -> None:
    global _guard
    _guard = _Guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def watch_run(stop: Callable[[], None], seconds: float, memory: int | None = None) -> Iterator[Watched]:
    """Ends what runs inside when it takes too long, or the process grows too much.

    Args:
        stop: Ends it, from another thread.
        seconds: That it may take.
        memory: Bytes by which the process may grow.

    Raises:
        InputError: It was ended.
    """
    run, guard = Watched(stop, seconds, memory), _guard
    guard.add(run)
    try:
        yield run
    except BaseException as error:
        if run.error is not None:
            raise run.error from error
        raise
    finally:
        guard.remove(run)
    if run.error is not None:
        raise run.error
