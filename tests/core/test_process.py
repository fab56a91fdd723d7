"""The global generators after a first pass: what the model drew is given back, what other threads drew is not."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cfi_core import process
from cfi_core.specs import Need, Role, TranslatorSpec
from cfi_core.testing import use_plugins
from cfi_core.turns import current

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


def test_outside_of_a_call_nothing_is_taken(no_plugins):
    before = states()
    step = TranslatorSpec(name="a2b", source="a", target="b", cost=1, implementation="c:d", preserves=frozenset(Need))
    assert process.first_pass(no_plugins, lambda: 7) == 7
    with process.generators(no_plugins, None) as seeded:
        assert seeded is False
    with process.take_conversion_turn(no_plugins, step):
        assert current() is None
    assert states() == before


def test_a_generator_that_another_thread_goes_on_drawing_from_moves_by_itself(no_plugins):
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(0.0005):
            random.random()

    thread = threading.Thread(target=draw, daemon=True)
    assert not process._moves_by_itself(no_plugins, "Python")
    thread.start()
    process._PATIENCE = WAIT  # put back by the fixture
    try:
        assert process._moves_by_itself(no_plugins, "Python")
    finally:
        stop.set()
        thread.join(WAIT)


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({"a": 1}, False),
        ({"a": [1, {"b": abs}]}, True),
        ({"a": (abs,)}, True),
        ({"score": abs}, False),
        ({"a": {"b": [2]}}, False),
    ],
)
def test_functions_among_arguments_are_seen(own, found):
    method = SimpleNamespace(roles={"score": Role.OWN_TARGET})
    assert process._brings_functions(SimpleNamespace(init_args={}, exec_args=own, method=method)) is found


def test_calls_on_models_that_are_known_by_their_contents_take_turns():
    class Slotted:
        __slots__ = ()

    class Held:
        pass

    adapter = SimpleNamespace(shared_parts=lambda model: (model,))
    for model, marks in ((Slotted(), "models of f"), (held := Held(), f"model {id(held)}")):
        original = SimpleNamespace(model=model, adapter=adapter, framework="f")
        assert list(process._marks(original, translated=True)) == [f"model {id(model)}", marks]
        assert list(process._marks(original, translated=False)) == [f"model {id(model)}"]


def test_in_a_forked_process_nobody_else_watches(monkeypatch):
    own = threading.get_ident()
    monkeypatch.setattr(process, "_watchers", [own, own + 1])
    process._start_anew()
    assert process._watchers == [own]
