"""Who goes on beside whom: what a call has to itself for a while, and what it shares with all who only use it.

Things are named (`"random"`, `"torch"`, `"torch.relu"`). A call has all that it needs or nothing: it never waits while
it holds something that another call waits for, so no two calls wait for each other. Calls that exclude each other go in
the order in which they came. While a function of the user's runs that may wait for other calls, the call has nothing.
"""

from __future__ import annotations

import functools
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Needs:
    """Things that a call changes for the whole process (or a model that it marks), and things that it only uses."""

    alone: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.alone | other.alone, self.shared | other.shared)

    def excludes(self, other: Needs) -> bool:
        """Whether no two calls may have these and those at the same time."""
        return _meet(self.alone, other.alone | other.shared) or _meet(other.alone, self.shared)


def _meet(some: frozenset[str], others: frozenset[str]) -> bool:
    """Whether a thing is among both, or a part of one: who uses `"torch"` uses `"torch.relu"`."""
    return any(
        f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.") for one in some for other in others
    )


class Turn:
    """The turn of one call, which its thread takes, changes and ends.

    Attributes:
        needs: What it has while it is not aside.
        generators: Whether the global generators are the call's own while it has them.
        seeds: Whether the call's model seeds them whenever it is run.
        on_leave: Called before it gives up what it has, to put things back as others expect them.
        on_enter: Called when it has got it again.
    """

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.generators = self.seeds = False
        self.on_enter: Callable[[], None] = _nothing
        self.on_leave: Callable[[], None] = _nothing
        self._aside = 0

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Takes it, beside what the same thread has already, and ends it."""
        outer = current()
        if outer is not None:
            outer.leave()
            self.needs |= outer.needs if not outer._aside else Needs()
        _of_thread.turn = self
        try:
            self.enter()
            yield self
        finally:
            self.leave()
            _of_thread.turn = outer
            if outer is not None:
                outer.enter()

    @contextmanager
    def extend(self, more: Needs) -> Iterator[None]:
        """With more than before, for a while."""
        former = self.needs
        try:
            self.change(former | more)
            yield
        finally:
            self.change(former)

    def change(self, needs: Needs) -> None:
        """With something else from now on."""
        if needs != self.needs:
            self.leave()
            self.needs = needs
            self.enter()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Without anything, so that whoever is waited for inside can go on."""
        with _change:
            self._aside += 1
            first = self._aside == 1
        if first:
            self._give_up()
        try:
            yield
        finally:
            with _change:
                self._aside -= 1
                last = not self._aside
            if last:
                self._wait()

    def enter(self) -> None:
        """Waits until nobody who came before excludes it."""
        if not self._aside:
            self._wait()

    def leave(self) -> None:
        """Gives up what it has, if it has anything."""
        if not self._aside:
            self._give_up()

    def _wait(self) -> None:
        with _change:
            _line.append(self)
            try:
                while any(other.needs.excludes(self.needs) for other in _line[: _line.index(self)]):
                    _change.wait()
            except BaseException:
                self._step_out()
                raise
        self.on_enter()

    def _give_up(self) -> None:
        if self in _line:
            self.on_leave()
            with _change:
                self._step_out()

    def _step_out(self) -> None:
        if self in _line:
            _line.remove(self)
            _change.notify_all()


def current() -> Turn | None:
    """The turn that this thread has taken last."""
    turn: Turn | None = getattr(_of_thread, "turn", None)
    return turn


@contextmanager
def hold_alone(*things: str) -> Iterator[None]:
    """For plugins: has things to itself for a while that are changed for the whole process."""
    turn = current()
    if turn is None:
        yield
        return
    with turn.extend(Needs(frozenset(things))):
        yield


@contextmanager
def keep_random() -> Iterator[None]:
    """For plugins whose library draws from Python's generator: Keras does, a seed for every initializer it makes."""
    with hold_alone("random"):
        state = random.getstate()
        try:
            yield
        finally:
            random.setstate(state)


def aside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's function as it is to be called during the turn that this thread has now: aside of it."""
    turn = current()
    if turn is None:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with turn.aside():
            return function(*args, **kwargs)

    return call


def _nothing() -> None:
    """What there is to do for a turn that changes nothing."""


class Lock:
    """A lock of one thread, which may take it several times; free in a forked process, where no other thread is.

    A plain lock that another thread holds at the moment of a fork stays held in the child, for ever.
    """

    def __init__(self) -> None:
        self._held = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()

    def renew(self) -> None:
        """Frees it, unless the thread that asks has it."""
        if self._held.acquire(blocking=False):
            self._held.release()
        else:
            self._held = threading.RLock()


def _renew_locks() -> None:
    for lock in list(_locks):
        lock.renew()


def _start_anew() -> None:
    """In a forked process there is one thread: nobody else's turn ends there."""
    global _change
    _change = threading.Condition(threading.RLock())
    _line[:] = [turn for turn in [current()] if turn is not None and turn in _line]


_change = threading.Condition(threading.RLock())
# In the order in which they came: one goes on as soon as none in front of it excludes it.
_line: list[Turn] = []
_of_thread = threading.local()
_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def at_fork(start_anew: Callable[[], None]) -> None:
    """Has something done in every process that is forked from this one, before anything else there goes on."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=start_anew)


at_fork(_start_anew)
at_fork(_renew_locks)
