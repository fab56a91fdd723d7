"""The global generators after a first pass: what the model drew is given back, what other threads drew is not."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from cfi_core import process
from cfi_core.testing import use_plugins

WAIT = 20


class Beside:
    """Another thread, which draws once from Python's generator when it is asked for the first time."""

    def __init__(self) -> None:
        self.asked, self.drawn = threading.Event(), threading.Event()
        threading.Thread(target=self._draw, daemon=True).start()

    def _draw(self) -> None:
        self.asked.wait(WAIT)
        random.random()
        self.drawn.set()

    def go(self) -> None:
        self.asked.set()
        assert self.drawn.wait(WAIT)


def states() -> tuple[Any, str]:
    return random.getstate(), repr(np.random.get_state())


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "_PATIENCE", 0.02)
    with use_plugins() as registry:
        yield registry


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_a_failing_pass_drew_is_given_back(no_plugins, error):
    def run() -> None:
        np.random.random()
        raise error("no such table")

    before = states()
    with process.keep_process(no_plugins), pytest.raises(error, match="no such table"):
        process.first_pass(no_plugins, run)
    assert states() == before


def test_what_another_thread_drew_beside_a_failing_pass_stays(no_plugins):
    beside = Beside()

    def run() -> None:
        beside.go()
        raise ValueError("no such table")

    random.seed(0)
    with process.keep_process(no_plugins), pytest.raises(ValueError, match="no such table"):
        process.first_pass(no_plugins, run)
    after = random.random()
    random.seed(0)
    random.random()
    assert after == random.random(), "the thread's number was drawn a second time"


def test_what_another_thread_draws_from_another_generator_stays(no_plugins):
    beside = Beside()

    def run() -> float:
        beside.go()
        return np.random.random()

    random.seed(0)
    before = repr(np.random.get_state())
    with process.keep_process(no_plugins):
        process.first_pass(no_plugins, run)
    assert repr(np.random.get_state()) == before
    after = random.random()
    random.seed(0)
    random.random()
    assert after == random.random()


def test_a_pass_that_is_interrupted_runs_once(no_plugins):
    passes = []

    def run() -> None:
        passes.append(random.random())
        raise KeyboardInterrupt

    before = states()
    with process.keep_process(no_plugins), pytest.raises(KeyboardInterrupt):
        process.first_pass(no_plugins, run)
    assert len(passes) == 1 and states() == before
