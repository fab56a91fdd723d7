"""What stands in for methods of objects, and what is left of it afterwards."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cfi_core.framework.stand_ins import stand_in


class Part:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __setattr__(self, name: str, value: Any) -> None:
        if callable(value):
            raise TypeError("tracked")
        super().__setattr__(name, value)

    def run(self, value: int, *, add: int = 0) -> int:
        """Times the factor."""
        return self.factor * value + add


def test_calls_are_made_by_another():
    one, two, seen = Part(2), Part(3), []

    def around(name, call):
        seen.append(name)
        return call() + 100

    with stand_in([("one", one), ("two", two)], ("run", "missing"), around):
        assert one.run(5) == 110
        assert two.run(5, add=1) == 116
        assert one.run.__doc__ == "Times the factor."
    assert seen == ["one", "two"]
    assert vars(one) == {"factor": 2}
    assert (one.run(5), two.run(5)) == (10, 15)


def test_what_an_object_had_of_its_own_comes_back_even_after_an_error():
    part = Part(2)
    vars(part)["run"] = own = lambda value: -value
    twice = [("part", part), ("again", part)]  # one around the other
    with stand_in(twice, ("run",), lambda name, call: (name, call())):
        assert part.run(4) == ("again", ("part", -4))
    assert vars(part)["run"] is own
    with pytest.raises(ZeroDivisionError), stand_in(twice, ("run",), lambda name, call: 1 / 0):
        part.run(4)
    assert vars(part)["run"] is own


def test_other_threads_are_left_alone():
    part, found = Part(2), []
    with stand_in([("part", part)], ("run",), lambda name, call: "caught"):
        other = threading.Thread(target=lambda: found.append(part.run(4, add=1)))
        other.start()
        other.join()
        assert part.run(4) == "caught"
    assert found == [9]
