"""What models, functions and classes hold, as a hash."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import operator
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cfi_core.framework import Content, UnseenError, always_new, identity, refuse

FACTOR = 2.0


class Colour(Enum):
    RED = 1
    BLUE = 2


class Configured:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def get_config(self) -> dict[str, float]:
        if self.rate < 0:
            raise ZeroDivisionError
        return {"rate": self.rate}


def content(value: Any, unseen: Callable[[Any], str] = refuse, **settings: Any) -> str:
    held = Content(unseen, **settings)
    held.add(value)
    return held.hexdigest()


def holding(value: Any, default: Any = 0) -> Callable[..., Any]:
    def function(x: Any, by: Any = default) -> Any:
        return x, by, value

    return function


def scaled(x: Any) -> Any:
    return x * FACTOR


PAIRS: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    ("1", 1),
    (b"a", "a"),
    (None, "None"),
    ([1, 2], (1, 2)),
    ([1, [2]], [[1], 2]),
    ([1, 2], [12]),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    ({1, 2}, {1, 3}),
    ({1, 2}, frozenset({1, 2})),
    (np.zeros(4), np.zeros((2, 2))),
    (np.zeros(4), np.zeros(4, np.int64)),
    (np.float32(1), np.float32(2)),
    (np.array([1, "a"], object), np.array([1, "b"], object)),
    (np.zeros(2).dtype, np.zeros(2, np.float32).dtype),
    (Colour.RED, Colour.BLUE),
    (np.tanh, np.sin),
    (math.sin, math.cos),
    (json.dumps, json.loads),
    (str.join, str.split),
    ({"a": 1}.get, {"a": 2}.get),
    (json, math),
    (itertools.chain, itertools.count),
    (operator.add, functools.reduce),
    (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    (holding(1), holding(2)),
    (holding(0, 1), holding(0, 2)),
    (lambda x: x + 1, lambda x: x + 2),
    (lambda x: x.real, lambda x: x.imag),
    (Configured(1.0).get_config.__func__, scaled),
    (Configured(1.0), Configured(2.0)),
    (functools.lru_cache(holding(1)), functools.lru_cache(holding(2))),
    (functools.wraps(scaled)(functools.lru_cache(holding(1))), scaled),
    (property(holding(1)), property(holding(2))),
    (staticmethod(holding(1)), staticmethod(holding(2))),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}"[:30])
def test_different_values_have_different_hashes(pair: tuple[Any, Any]) -> None:
    first, second = (content(value) for value in pair)
    assert first != second
    assert (first, second) == tuple(content(value) for value in pair)


def test_equal_values_have_equal_hashes() -> None:
    assert content([1, {"a": (2.0, "b")}]) == content([1, {"a": (2.0, "b")}])
    assert content(holding([1])) == content(holding([1]))
    assert content({"b", "a", "c"}) == content({"c", "a", "b"})
    assert content(np.arange(6.0).reshape(2, 3).T) == content(np.array([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))


def test_nothing_lies_too_deep() -> None:
    def deep(value: Any) -> Any:
        for _ in range(5000):
            value = [value]
        return value

    assert content(deep(1)) == content(deep(1)) != content(deep(2))


def test_circles_end_and_count() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [1]
    other.append([1, other])
    assert content(one) == content(one) != content(other)

    def recursive(x: Any) -> Any:
        return recursive(x)

    assert content(recursive) == content(recursive)


@pytest.mark.parametrize(
    "value", [object(), Configured(-1.0), ModuleType("of_the_user"), logging.getLogger("of_the_user"), iter([])]
)
def test_what_cannot_be_read(value: Any) -> None:
    with pytest.raises(UnseenError, match=type(value).__qualname__):
        content([value])
    assert content([value], identity) == content([value], identity) != content([object()], identity)
    assert content([value], always_new) != content([value], always_new)


def test_globals_are_followed_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(function: Any, value: Any) -> bool:
        return function is not scaled or isinstance(value, float)

    before, blind = content(lambda x: scaled(x), follow_global=follow), content(scaled)
    assert content(lambda x: scaled(x), follow_global=follow) == before
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert content(lambda x: scaled(x), follow_global=follow) != before
    assert content(scaled) == blind


def test_functions_and_objects_that_are_not_followed_are_known_by_identity() -> None:
    held: list[Any] = [1]
    function = holding(held)
    before = content(function, identity, follow=False)
    held.append(2)
    assert content(function, identity, follow=False) == before != content(holding(held), identity, follow=False)


def test_a_function_of_a_library_counts_by_its_name_and_by_what_it_holds() -> None:
    def of_library(value: Any, name: str = "a") -> Any:
        space: dict[str, Any] = {"__name__": "library.module"}
        exec(f"def make(value):\n def {name}(x): return x, value\n return {name}", space)
        return space["make"](value)

    settings: dict[str, Any] = {"libraries": ["library"]}
    assert content(of_library(1), **settings) == content(of_library(1), **settings)
    assert len({content(of_library(*each), **settings) for each in ((1,), (2,), (1, "b"))}) == 3


def test_the_code_and_values_of_a_class_count() -> None:
    def made(number: int, kind: type = dict) -> type:
        class Made(kind):  # type: ignore[misc] - a class with bases that are given
            factor = number

            def double(self) -> Any:
                return super().__len__() * 2

        return Made

    assert content(made(1)) == content(made(1)) != content(made(2))
    assert content(made(1)) != content(made(1, list))


def test_a_variable_that_has_no_value_yet() -> None:
    def function() -> Any:
        return later

    before = content(function)
    assert before == content(function)
    later = 1
    assert content(function) != before


def test_an_adapter_says_what_its_own_values_consist_of() -> None:
    def parts(value: Any) -> list[Any] | None:
        return ["a logger", np.ones(2), [value.name]] if isinstance(value, logging.Logger) else None

    first, second = (content([logging.getLogger(name)], parts=parts) for name in ("one", "two"))
    assert first != second == content([logging.getLogger("two")], parts=parts)


def test_words_count() -> None:
    held, other = Content(refuse), Content(refuse)
    held.write("one")
    assert held.hexdigest() != other.hexdigest()
    other.write("one")
    assert held.hexdigest() == other.hexdigest()


class Slotted:
    """Cannot be referred to weakly."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("make", [holding, Slotted, Configured])
def test_an_object_at_the_address_of_one_that_is_gone_is_another(make: Callable[[int], Any]) -> None:
    kept = [make(number) for number in range(3)]
    known = [identity(one) for one in kept]
    addresses, marks = set(), []
    for number in range(100):
        one = make(number)
        addresses.add(id(one))
        marks.append(identity(one))
        del one
    assert make is Slotted or len(addresses) < 100, "addresses are given out anew"
    assert len({*marks, *known}) == 103
    assert [identity(one) for one in kept] == known


def test_of_what_cannot_be_watched_no_more_than_some_is_kept() -> None:
    first = Slotted(0)
    mark = identity(first)
    assert identity(first) == mark
    others = [Slotted(number) for number in range(300)]
    assert len({identity(one) for one in others} - {mark}) == 300
    assert identity(first) != mark, "rather unknown than taken for another"
