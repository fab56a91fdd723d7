"""Whether a thread calls anything that may draw random numbers, while other threads draw all the time."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

# Names of functions that draw, or may; a name too many costs another thread's numbers, in such a case alone.
_DRAWS = re.compile(
    r"rand|dropout|bernoulli|normal$|normal_|uniform|multinomial|exponential|poisson|cauchy|geometric|gamma|beta|binomial"
    r"|shuffle|choice|permut|sample$|rrelu|lstm|gru|rnn|attention|noise|seed|generator"
)
_SEEDS = re.compile(r"seed|setstate|set_\w*state")


class DrawWatch:
    """Sees what functions this thread calls inside, and what names their code speaks of.

    Attributes:
        seen: Whether one of them is a name of drawing; True as well where somebody else watches the calls.
        seeds: Whether one of them is a name of seeding, or somebody else watches.
    """

    def __init__(self) -> None:
        self.seen = self.seeds = False
        self._known: set[Any] = set()

    def __enter__(self) -> DrawWatch:
        self._taken = sys.getprofile() is not None
        if self._taken:
            self.seen = self.seeds = True
        else:
            sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._taken:
            sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            self._note((getattr(called, "__name__", ""),))
        elif event == "call" and frame.f_code not in self._known:
            self._known.add(frame.f_code)
            own = str(frame.f_globals.get("__name__", "")).startswith("cfi_")  # runs models
            self._note(() if own else (frame.f_code.co_name, *frame.f_code.co_names))

    def _note(self, names: tuple[str, ...]) -> None:
        self.seen = self.seen or any(map(_DRAWS.search, names))
        self.seeds = self.seeds or any(map(_SEEDS.search, names))
