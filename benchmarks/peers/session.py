"""The tests of a library as pytest runs them: in which order, how long, and what is kept of each on disk."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tally import Row, Tally, report

SEED = 0


class TooLong(BaseException):
    """A test took longer than allowed; what takes any exception for an answer must not take this one."""


@dataclass(frozen=True)
class Line:
    """What is kept of one test.

    Attributes:
        test: Name.
        routes: That its calls went over.
        result: What pytest says of the test itself, in one word.
        seconds: That it took, with the calls repeated.
        calls: Rows of the tally.
    """

    test: str
    routes: Sequence[str]
    result: str
    seconds: float
    calls: Sequence[Row]


class Log:
    """A file with one line of JSON for each test that has ended, so that a run goes on where it was stopped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        whole = _whole(path) if path and path.exists() else []
        self.lines = [_read(text) for text in whole]
        if path and whole:
            path.write_text("".join(whole))

    def add(self, line: Line) -> None:
        self.lines.append(line)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(line)) + "\n")

    def has(self, test: str, routes: Sequence[str]) -> bool:
        """Whether the test has run over all these routes."""
        return set(routes) <= {route for line in self.lines if line.test == test for route in line.routes}


def _whole(path: Path) -> list[str]:
    """The lines of a log, without one that was being written when the run was killed."""
    return [text for text in path.read_text().splitlines(keepends=True) if text.endswith("\n")]


def _read(text: str) -> Line:
    line = json.loads(text)
    return Line(**{**line, "calls": [Row(**row) for row in line["calls"]]})


class Session:
    """A plugin of pytest: leaves out what the log has, ends what takes too long, and logs each test.

    Attributes:
        collected: How many tests there are, those of the log among them.
    """

    def __init__(self, tally: Tally, log: Log, routes: Sequence[str], limit: float) -> None:
        self.tally = tally
        self.log = log
        self.routes = routes
        self.limit = limit
        self.collected = 0
        self._result = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.collected = len(items)
        done = {line.test for line in self.log.lines}
        items[:] = [
            item for item in various(items) if item.nodeid not in done or not self.log.has(item.nodeid, self.routes)
        ]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self.tally.begin(item.nodeid)
        self._result, began = "passed", time.perf_counter()
        ended = yield
        seconds = round(time.perf_counter() - began, 2)
        self.log.add(Line(item.nodeid, self.routes, self._result, seconds, self.tally.rows))
        return ended

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[Any]:
        before = signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed and self._result != "too long":
            self._result = report.outcome

    def rows(self) -> list[Row]:
        """Those of the log, over the routes asked for."""
        return [row for line in self.log.lines for row in line.calls if row.route in self.routes]

    def told(self) -> str:
        """How many tests ran and how they ended, and what came of their calls."""
        results = Counter({line.test: line.result for line in self.log.lines}.values())
        ended = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
        return f"{results.total()} of {self.collected} tests ran: {ended}\n\n{report(self.rows())}"

    def _end(self, *_: object) -> NoReturn:
        self._result = "too long"
        raise TooLong


def various(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """In a seeded order in which those come first that bring a test function or a parameter's value not seen yet."""
    seen: set[object] = set()
    ordered = list(items)
    random.Random(SEED).shuffle(ordered)

    def known(item: pytest.Item) -> bool:
        function = item.nodeid.partition("[")[0]
        chosen: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
        brought = {(function,), *((function, name, id(value)) for name, value in chosen.items())}
        is_known = brought <= seen
        seen.update(brought)
        return is_known

    return sorted(ordered, key=known)
