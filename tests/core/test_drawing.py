"""What a thread calls while it is watched, and which names speak of drawing random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

import numpy as np
import pytest

from cfi_core.drawing import DrawWatch

GENERATOR = np.random.default_rng(0)


def add(x: float) -> float:
    return x + abs(x)


def dropout(x: float) -> float:
    return x


def inside(x: float) -> float:
    return GENERATOR.standard_normal() * x


@pytest.mark.parametrize(
    ("called", "draws"),
    [(lambda: add(1.0), False), (lambda: dropout(1.0), True), (lambda: inside(1.0), True), (random.random, True)],
)
def test_calls_inside_are_seen_by_their_names_and_by_what_their_code_speaks_of(called: Callable[[], Any], draws: bool):
    with DrawWatch() as watch:
        called()
    assert watch.seen is draws
    assert sys.getprofile() is None


def test_calls_outside_are_not_seen():
    dropout(1.0)
    with DrawWatch() as watch:
        add(1.0)
    dropout(1.0)
    assert not watch.seen


def test_where_somebody_else_watches_anything_may_have_been_drawn():
    def other(*_: Any) -> None: ...

    before = sys.getprofile()
    sys.setprofile(other)
    try:
        with DrawWatch() as watch:
            add(1.0)
        assert watch.seen and sys.getprofile() is other
    finally:
        sys.setprofile(before)


def frame_of(function: Callable[[float], Any], module: str) -> FrameType:
    """A frame in which the code of a function runs, as code of a module."""
    kept: list[FrameType] = []
    vars_there = {"__name__": module, "GENERATOR": GENERATOR, "abs": abs}

    def keep(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is function.__code__:
            kept.append(frame)

    before = sys.getprofile()
    sys.setprofile(keep)
    try:
        FunctionType(function.__code__, vars_there)(1.0)
    finally:
        sys.setprofile(before)
    return kept[0]


def test_what_an_interpreter_tells_of_calls_is_read_so():
    """Told by hand: no tool that counts lines sees what runs while a call is being told of."""
    for function, module, draws in [
        (add, "models", False),
        (dropout, "models", True),
        (inside, "models", True),
        (dropout, "cfi_core.running", False),  # it runs models, and its names say nothing of them
    ]:
        watch, frame = DrawWatch(), frame_of(function, module)
        watch._see(frame, "return", None)
        assert not watch.seen
        watch._see(frame, "call", None)
        watch._see(frame, "call", None)
        assert watch.seen is draws
    watch, frame = DrawWatch(), frame_of(add, "models")
    watch._see(frame, "c_call", abs)
    assert not watch.seen
    watch._see(frame, "c_call", GENERATOR.shuffle)
    watch._see(frame, "c_call", abs)
    assert watch.seen
