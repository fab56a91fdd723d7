"""What a row of the table is, and how one is run."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is downloaded

import numpy as np

import cfi_core as cfi

WITHIN = 1e-5
"""The largest difference, relative to the largest value, of an answer that counts as the same."""

Values = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """One call of CFI on a model.

    Attributes:
        explain: The call as a person would write it: a lambda that holds nothing else.
        by_hand: Gives the values that it must give: from the toolset called directly on a wrapper made by hand, or
            from the derivatives or outputs of the model's own framework; None for what has to be refused.
        within: How far the two may be apart, relative to the largest value.
        law: Why no answer can exist; empty where one has to.
        error: What is raised then.
    """

    explain: Callable[[], Any]
    by_hand: Callable[[], Values] | None
    within: float = WITHIN
    law: str = ""
    error: type[cfi.CFIError] = cfi.CFIError


def answer(explain: Callable[[], Any], by_hand: Callable[[], Values], within: float = WITHIN) -> Call:
    """A call that has to give what is computed by hand."""
    return Call(explain, by_hand, within)


def refusal(explain: Callable[[], Any], error: type[cfi.CFIError], law: str) -> Call:
    """A call that has to be refused, because of a law."""
    return Call(explain, None, law=law, error=error)


@dataclass(frozen=True)
class Row:
    """A model, with the calls that explain it.

    Attributes:
        name: What the model is, in words.
        calls: Makes the model and gives the calls.
        requires: Packages that it needs besides the frameworks.
        quick: Whether `make test` runs it, whose environment `all` has what it requires.
        environment: Variables that the process must have from its start.
    """

    name: str
    calls: Callable[[], Iterable[Call]]
    requires: tuple[str, ...] = ()
    quick: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The module that it stands in."""
        return self.calls.__module__.rpartition(".")[2]

    @property
    def missing(self) -> list[str]:
        """What it requires and is not installed."""
        return [name for name in self.requires if find_spec(name) is None]


ROWS: list[Row] = []


def row(
    name: str, *requires: str, quick: bool = False, environment: Mapping[str, str] | None = None
) -> Callable[[Callable[[], Iterable[Call]]], Callable[[], Iterable[Call]]]:
    """Puts a model into the table."""

    def enter(calls: Callable[[], Iterable[Call]]) -> Callable[[], Iterable[Call]]:
        ROWS.append(Row(name, calls, requires, quick, environment or {}))
        return calls

    return enter


@dataclass(frozen=True)
class Line:
    """What came of one call.

    Attributes:
        model: The name of its row.
        written: The call, on one line.
        route: The translators on the way; empty where it was refused or failed.
        outcome: The difference, or the reason of a refusal, or the error.
        failed: Whether it is not as it has to be.
        warned: What CFI warned of.
    """

    model: str
    written: str
    route: str
    outcome: str
    failed: bool
    warned: tuple[str, ...] = ()


def run_row(wanted: Row) -> Iterable[Line]:
    """Runs the calls of one row, each to its end whatever the others do."""
    if missing := wanted.missing:
        yield Line(wanted.name, "", "", f"not installed: {', '.join(missing)}", True)
        return
    try:
        calls = list(wanted.calls())
    except Exception as error:  # noqa: BLE001 - any library may fail to make its model, and the other rows go on
        yield Line(wanted.name, "", "", f"the model cannot be made: {shorten(error)}", True)
        return
    for call in calls:
        yield run_call(wanted.name, call)
        gc.collect()


def run_call(model: str, call: Call) -> Line:
    """Runs one call and compares it."""
    written = write(call.explain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", cfi.CFIWarning)
        try:
            found = call.explain()
        except cfi.CFIError as error:
            lawful = bool(call.law) and isinstance(error, call.error)
            outcome = f"refused: {call.law}" if lawful else shorten(error)
            return Line(model, written, "", outcome, not lawful)
        except Exception as error:  # noqa: BLE001 - an untyped error is what the table has to show
            return Line(model, written, "", f"UNTYPED {shorten(error)}", True)
    warned = tuple(str(one.message) for one in caught if issubclass(one.category, cfi.CFIWarning))
    route = " ".join(found.route) or "native"
    if call.by_hand is None:
        return Line(model, written, route, f"answered, but {call.law}", True, warned)
    try:
        apart = compare(found, call.by_hand())
    except Exception as error:  # noqa: BLE001 - by hand, libraries may fail too
        return Line(model, written, route, f"by hand: {shorten(error)}", True, warned)
    failed = not apart <= call.within
    outcome = f"{apart:.0e}" if apart else "0"
    if failed and not warned:
        outcome = f"SILENTLY WRONG: {outcome}"
    return Line(model, written, route, outcome, failed, warned)


def compare(found: cfi.Attribution, by_hand: Values) -> float:
    """The largest difference, relative to the largest value that was computed by hand."""
    if isinstance(found, cfi.PendingLayer):
        raise cfi.LayerError("the call waits for a layer")
    if isinstance(by_hand, Mapping):
        if set(found.values) != set(by_hand):
            raise ValueError(f"the values are of {set(found.values)} and not of {set(by_hand)}")
        expected = [by_hand[name] for name in found.values]
    else:
        expected = [by_hand] if isinstance(by_hand, np.ndarray) else list(by_hand)
    values = [np.asarray(part, np.float64) for part, _ in found.parts]
    expected = [np.asarray(part, np.float64) for part in expected]
    if (shapes := [part.shape for part in values]) != (own := [part.shape for part in expected]):
        raise ValueError(f"values of {shapes} and not of {own}")
    scale = max(float(np.abs(part).max()) for part in expected)
    if not 0 < scale < np.inf:
        raise ValueError("what was computed by hand is zero or no number everywhere, which compares nothing")
    return max(float(np.abs(one - other).max()) for one, other in zip(values, expected, strict=True)) / scale


def write(explain: Callable[[], Any]) -> str:
    """The call as it stands in the source, on one line."""
    line = explain.__code__.co_firstlineno
    found = [node for node in _lambdas(inspect.getfile(explain)) if node.lineno == line]
    return ast.unparse(found[0].body)


@cache
def _lambdas(file: str) -> list[ast.Lambda]:
    with open(file) as source:
        return [node for node in ast.walk(ast.parse(source.read())) if isinstance(node, ast.Lambda)]


def shorten(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def seed(number: int = 0) -> np.random.Generator:
    """Seeds the frameworks that are there, so that every run has the same models."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(number)
    return np.random.default_rng(number)
