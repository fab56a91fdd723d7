"""Turns: who goes on beside whom, and that nobody waits for somebody who waits for him."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import process, registry, turns
from cfi_core.checking import purity
from cfi_core.silence import without_output, without_warnings
from cfi_core.testing import use_plugins
from cfi_core.translation import store
from cfi_core.turns import Lock, Needs, Turn, aside, current, hold_alone, keep_random

WAIT = 20


def needs(alone: str = "", shared: str = "") -> Needs:
    return Needs(frozenset(alone.split()), frozenset(shared.split()))


def threads(*tasks: Callable[[], Any]) -> None:
    """Runs them at once; fails where one does not end, or fails."""
    failures: list[BaseException] = []

    def run(task: Callable[[], Any]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    running = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(WAIT)
        assert not thread.is_alive(), "threads wait for each other"
    if failures:
        raise failures[0]


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        (needs("random"), needs("random"), True),
        (needs("random"), needs(shared="random"), True),
        (needs(shared="random"), needs(shared="random"), False),
        (needs("torch.relu"), needs(shared="torch"), True),  # who uses torch uses its functions
        (needs("torch"), needs("torch.relu"), True),
        (needs("torch.relu"), needs(shared="torchvision tensorflow"), False),
        (needs("model-1", "torch"), needs("model-2", "torch"), False),
        (needs("model-1", "torch"), needs("model-1", "torch"), True),
    ],
)
def test_who_excludes_whom(one: Needs, other: Needs, excluded: bool) -> None:
    assert one.excludes(other) is other.excludes(one) is excluded


def test_those_who_only_use_a_thing_are_inside_together() -> None:
    both = threading.Barrier(2)

    def use() -> None:
        with Turn(needs(shared="torch")).take():
            both.wait(WAIT)

    threads(use, use)


def test_whoever_changes_a_thing_is_alone() -> None:
    inside, most = [], []

    def change() -> None:
        for _ in range(50):
            with Turn(needs("random", "numpy")).take():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads(*[change] * 4)
    assert set(most) == {1}


def test_two_that_want_what_the_other_has_go_on() -> None:
    """Each gives up all that it has while it waits for more."""
    both = threading.Barrier(2)

    def take(first: str, second: str) -> None:
        with Turn(needs(first)).take() as turn:
            both.wait(WAIT)
            with turn.extend(needs(second)):
                pass

    threads(lambda: take("a", "b"), lambda: take("b", "a"))


def test_while_a_function_of_the_users_runs_nothing_is_held() -> None:
    def other() -> None:
        with Turn(needs("random torch")).take():
            done.set()

    def explained(value: int) -> int:
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert done.wait(WAIT)
        return value + 1

    done = threading.Event()
    with Turn(needs("random", "torch")).take():
        assert aside(explained)(1) == 2
    assert aside(explained) is explained, "outside of a call there is nothing to give up"


def test_a_turn_inside_a_turn_has_what_the_outer_has() -> None:
    with Turn(needs("a")).take() as outer, Turn(needs("b")).take() as inner:
        assert inner.needs == needs("a b") and current() is inner
        with inner.aside(), Turn(needs("a")).take():
            pass
    assert current() is None and outer.needs == needs("a")


def test_what_is_put_back_is_there_whenever_others_go_on() -> None:
    state = ["users"]
    with Turn(needs("random")).take() as turn:
        turn.on_enter, turn.on_leave = lambda: state.append("own"), lambda: state.append("users")
        turn.leave()
        turn.enter()
        with turn.aside():
            assert state[-1] == "users"
        assert state[-1] == "own"
    assert state[-1] == "users"


def test_an_interrupted_turn_is_over() -> None:
    with pytest.raises(KeyboardInterrupt), Turn(needs("a")).take():
        raise KeyboardInterrupt
    threads(lambda: Turn(needs("a")).take().__enter__())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_waits_for_nobody() -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with Turn(needs("random")).take():
            inside.set()
            leave.wait(WAIT)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    inside.wait(WAIT)
    child = os.fork()
    if not child:
        with Turn(needs("random")).take():
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    leave.set()
    thread.join(WAIT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_no_lock_that_another_thread_has_stays_behind_in_a_forked_process() -> None:
    """Whatever is locked: the registry, kept conversions, what was found of models, watched generators, and what
    plugins lock."""
    places = [(registry, "_lock"), (store, "_lock"), (purity, "_lock"), (process, "_watching")]
    assert all(isinstance(getattr(module, name), Lock) for module, name in places)
    locks = [Lock(), *(getattr(module, name) for module, name in places)]
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            process._watchers.append(threading.get_ident())
            inside.set()
            leave.wait(WAIT)
            process._watchers.remove(threading.get_ident())

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    inside.wait(WAIT)
    own = Lock()
    with own:
        child = os.fork()
        if not child:
            signal.alarm(WAIT)  # ends it where it waits
            with ExitStack() as stack:
                for lock in (own, *locks):
                    stack.enter_context(lock)
                os._exit(8 if process._watchers else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    leave.set()
    thread.join(WAIT)


def test_what_a_library_draws_from_pythons_generator_is_put_back() -> None:
    before = random.getstate()
    with Turn(needs()).take(), keep_random():
        random.random()
    assert random.getstate() == before
    with hold_alone("anything"):
        assert current() is None


# what libraries say


def test_warnings_are_kept_back_in_this_thread_alone() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with without_warnings("quiet"):
            warnings.warn("quiet, please", stacklevel=1)
            warnings.warn("loud", stacklevel=1)
            threads(lambda: warnings.warn("quiet elsewhere", stacklevel=1))
        assert warnings.filters == filters
    assert [str(one.message) for one in caught] == ["loud", "quiet elsewhere"]


def test_filters_of_threads_that_leave_in_another_order_are_all_gone() -> None:
    filters = list(warnings.filters)
    first, second = without_warnings("a"), without_warnings("b")
    first.__enter__()
    threads(second.__enter__)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert warnings.filters == filters


def test_output_is_dropped_in_this_thread_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with without_output("stdout"):
        print("mine")
        threads(lambda: print("another's"))
    print("after")
    assert capsys.readouterr().out == "another's\nafter\n"


# calls


def drawing(x: np.ndarray) -> np.ndarray:
    """A model that draws from numpy's generator and from Python's."""
    return x.sum(1, keepdims=True) + np.random.normal(size=(len(x), 1)) + random.random()


def test_a_model_that_draws_leaves_the_generators_as_they_were() -> None:
    x = np.zeros((2, 3))
    with use_plugins():
        before = random.getstate(), str(np.random.get_state())
        with pytest.raises(cfi.CFIError):
            cfi.translate(drawing, "torch", inputs=x)
        assert cfi.layers(drawing, inputs=x) == []
        assert (random.getstate(), str(np.random.get_state())) == before


def test_who_is_interrupted_while_waiting_stands_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with Turn(needs("a")).take():
        waiting = Turn(needs("a"))
        monkeypatch.setattr(turns._change, "wait", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            waiting.enter()
        assert waiting not in turns._line
        monkeypatch.undo()
    threads(lambda: Turn(needs("a")).take().__enter__())


def test_what_a_forked_process_does_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as no coverage is told of another: nobody else's turn is left, and no lock of others."""
    lock, mine = Lock(), Lock()
    threads(lock.__enter__)
    former, others = turns._change, Turn(needs("b"))
    monkeypatch.setattr(turns, "_change", former)
    monkeypatch.setattr(turns, "_line", [])
    with Turn(needs("a")).take() as own, mine:
        turns._line.insert(0, others)
        turns._start_anew()
        turns._renew_locks()
        assert turns._line == [own] and turns._change is not former
        threads(lock.__enter__)  # it is free again
        ended = []
        thread = threading.Thread(target=lambda: ended.append(mine._held.acquire(blocking=False)))
        thread.start()
        thread.join(WAIT)
        assert ended == [False], "who asks keeps the locks that it has"
