"""What came of each call: kept while the tests run, and told as a table at the end."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SAME, CLOSE, ROUNDING, DIFFERENT = "same", "within 1e-5", "rounding", "different"
REFUSED, UNTYPED = "refused", "untyped error"
NEITHER, SERVED, NOT_ASKED, REPAIRED = "neither", "CFI alone", "not asked", "repaired"
OUTCOMES = (SAME, CLOSE, ROUNDING, REPAIRED, DIFFERENT, REFUSED, UNTYPED, NEITHER, SERVED, NOT_ASKED)
_CLOSE = 1e-5
_FLOORS = 4
_NOTHING = 1e-12  # the variance of what single precision holds as constant
LEGEND = f"""
{SAME}: to the last bit. {CLOSE}: the largest difference, relative to the largest value (or below {_NOTHING}).
{ROUNDING}: elsewhere, no farther than {_FLOORS} times what the library is from itself when the inputs change in their
last bits, or when it computes in double precision; natively, when it is called again with the same seeds, as
tf-keras-vis's input modifiers draw from generators that take none.
{REPAIRED}: elsewhere, where CFI has rewritten the model for the method's rules, says so (provenance["repaired"]), and
the values add up to what the method promises.
{REFUSED}: by an error of CFI's own. {NEITHER}: both fail, CFI by an error of its own.
{SERVED}: the library fails, CFI gives values. {NOT_ASKED}: what this script cannot say in the other framework."""

_LONGEST_REASON, _LONGEST_SHOWN = 800, 110


@dataclass(frozen=True)
class Row:
    """One call over one route."""

    method: str
    route: str
    outcome: str
    test: str
    reason: str = ""
    apart: float = 0.0


@dataclass
class Tally:
    """The calls of the test that runs.

    Attributes:
        rows: One for each call and route.
        test: Name of the test.
    """

    rows: list[Row] = field(default_factory=list)
    test: str = ""

    def begin(self, test: str) -> None:
        """Starts with the next test."""
        self.rows, self.test = [], test

    def compare(
        self,
        method: str,
        route: str,
        library: Sequence[Any],
        ours: Sequence[Any],
        floor: Callable[[], float],
        *,
        repaired: bool = False,
    ) -> None:
        """Notes how far the values of a call are apart from the library's; `floor` is asked where that is far."""
        problem, apart = difference(library, ours)
        outcome = SAME if apart == 0 else CLOSE
        if problem or apart > _CLOSE:
            is_rounding = not problem and apart <= _FLOORS * floor()
            outcome = ROUNDING if is_rounding else REPAIRED if repaired and not problem else DIFFERENT
        self.rows.append(Row(method, route, outcome, self.test, problem, apart))

    def note(self, method: str, route: str, outcome: str, error: BaseException | None = None) -> None:
        """Notes a call that gave no values to compare."""
        self.rows.append(Row(method, route, outcome, self.test, "" if error is None else reason_of(error)))


def report(rows: Sequence[Row]) -> str:
    """The table, the reasons of refusals by their number, and every difference and untyped error."""
    parts = [_table(rows), LEGEND]
    for outcome in (REFUSED, NEITHER, NOT_ASKED):
        counts = Counter((row.route, row.reason[:_LONGEST_SHOWN]) for row in rows if row.outcome == outcome)
        lines = [f"{count:6}  {route:<10}  {reason}" for (route, reason), count in counts.most_common()]
        parts.append("\n".join([f"\n{outcome}:", *lines]) if lines else "")
    for outcome in (DIFFERENT, UNTYPED):
        lines = [
            f"  {row.route:<10}  {row.method}  {row.reason or f'{row.apart:.1e}'}  {row.test}"
            for row in rows
            if row.outcome == outcome
        ]
        parts.append("\n".join([f"\n{outcome}:", *lines]) if lines else "")
    return "\n".join(filter(None, parts))


def reason_of(error: BaseException) -> str:
    """Type and beginning of the message, without what differs from one model to the next."""
    message = re.sub(r"\s+", " ", str(error))
    message = re.sub(r"\((\d+, ?)*\d*\)|\d+(\.\d+)?(e[+-]?\d+)?", "…", message)
    return f"{type(error).__name__}: {message[:_LONGEST_REASON]}"


def difference(library: Sequence[Any], ours: Sequence[Any]) -> tuple[str, float]:
    """What cannot be compared, in words; and the largest relative difference."""
    if len(library) != len(ours):
        return f"{len(ours)} values for the library's {len(library)}", 0.0
    apart = 0.0
    for theirs, own in zip(map(np.asarray, library), map(np.asarray, ours), strict=True):
        # CFI leaves out the channel axis of a class activation map, where captum keeps it with length one.
        if theirs.shape != own.shape and [n for n in theirs.shape if n != 1] != [n for n in own.shape if n != 1]:
            return f"shape {own.shape} for the library's {theirs.shape}", 0.0
        theirs, own = theirs.astype(np.float64).ravel(), own.astype(np.float64).ravel()
        if (np.isnan(theirs) != np.isnan(own)).any():
            return "NaN at other places", 0.0
        with np.errstate(invalid="ignore"):
            difference = np.where((theirs == own) | np.isnan(theirs), 0, np.abs(theirs - own))
        scale = np.nanmax(np.abs(theirs), initial=0) or 1.0
        most = float(difference.max(initial=0))
        apart = max(apart, min(most / scale, _CLOSE) if most <= _NOTHING else most / scale)
    return "", apart


def _table(rows: Sequence[Row]) -> str:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.method, row.route][row.outcome] += 1
        counts["all", row.route][row.outcome] += 1
    last = sorted(counts, key=lambda key: (key[0] == "all", key))
    head = f"{'method':<28} {'route':<11}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES)
    return "\n".join(
        [head, *(f"{m:<28} {r:<11}" + "".join(f"{counts[m, r][o] or '':>14}" for o in OUTCOMES) for m, r in last)]
    )
