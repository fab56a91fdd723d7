"""What is going on, for whoever waits for it: one line on the standard error, and words in the log.

A call says what it does (`phase`), of how many steps that is (`steps`) and how far it is (`tick`). That changes a few
numbers. A thread of the call's own looks at them and draws, from two seconds after the call has begun, so that a line
appears where nothing ticks too (an import, an export), and an interrupt never meets a line that is half drawn. The
thread ends with the call, and its line with it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any, TextIO

DELAY = 2.0
"""Seconds after which a call that still runs shows a line."""
_ERASE = "\r\x1b[K"
_NOT_YET = 1e-9  # seconds: a bar is drawn when it is told what to show
_EVERY = 0.25
"""Seconds between two drawings of it."""


@dataclass(eq=False)
class Phase:
    """A part of a call that takes its time.

    Attributes:
        what: In words, as "translating to tensorflow".
        total: How many steps it has; None where that is not known.
        unit: What the steps are, in the plural.
        share: How many samples of the model's passes are one step; 0 where steps are told one by one.
        ticks: Steps that were told.
        passes: Passes of the model.
        samples: Samples of all of them.
        started: In the seconds of `time.perf_counter`.
    """

    what: str
    total: int | None = None
    unit: str = ""
    share: int = 0
    ticks: int = 0
    passes: int = 0
    samples: int = 0
    started: float = field(default_factory=perf_counter)

    @property
    def done(self) -> tuple[int, str]:
        """How many of what are behind it: steps where their number is known or their name, or else passes."""
        if self.unit:
            count = self.samples // self.share if self.share else self.ticks
            # A method may run the model once more than its steps.
            return (count if self.total is None else min(count, self.total)), self.unit
        return self.passes, "pass" if self.passes == 1 else "passes"


@contextmanager
def show(progress: bool | None = None) -> Iterator[None]:
    """Shows what is reported inside, in this thread.

    Args:
        progress: Whether to; None: where somebody looks, which is a terminal or a Jupyter kernel behind `sys.stderr`,
            in the main thread. One call at a time has a line, and calls that it makes share it.
    """
    if _line.get() is not None and progress is not False:
        yield
        return
    line = _Line(sys.stderr) if (somebody_looks() if progress is None else progress) else None
    token = _line.set(line)
    try:
        if line is not None and not line.begin():
            _line.set(None)
        yield
    finally:
        _line.reset(token)
        if line is not None:
            line.end()


def somebody_looks() -> bool:
    """Whether this thread's standard error is looked at."""
    return threading.current_thread() is threading.main_thread() and (_in_terminal() or _in_notebook())


@contextmanager
def phase(what: str, total: int | None = None, unit: str = "") -> Iterator[Phase]:
    """What is done inside, in words; the log has its seconds. Phases lie within each other: the innermost is shown."""
    made, line = Phase(what, total, unit), _line.get()
    if line is not None:
        line.phases.append(made)
    try:
        yield made
    finally:
        if line is not None:
            line.phases.remove(made)
        _log.debug("%s: %.2f s", what, perf_counter() - made.started)


def steps(total: int | None, unit: str, *, share: int = 0) -> None:
    """Says of how many steps the present phase is.

    Args:
        total: None where nobody knows.
        unit: What they are, in the plural, such as "masks".
        share: How many samples that go through the model are one step, as adapters count them (`count`); 0 where each
            step is told by `tick`.
    """
    if (present := _present()) is not None:
        present.total, present.unit, present.share = total, unit, share
        present.ticks, present.passes, present.samples = 0, 0, 0
        present.started = perf_counter()  # what was done before says nothing of how long the steps take


def tick(number: int = 1) -> None:
    """So many steps of the present phase are done."""
    if (present := _present()) is not None:
        present.ticks += number


def count(samples: int) -> None:
    """A pass of the model with so many samples is done."""
    if (present := _present()) is not None:
        present.passes += 1
        present.samples += samples


def is_shown() -> bool:
    """Whether anything comes of what is reported in this thread."""
    return _line.get() is not None


@contextmanager
def aside() -> Iterator[None]:
    """Takes the line away while something else is written."""
    line = _line.get()
    if line is None or line.process != os.getpid():
        yield
        return
    with line.lock:
        line.clear()
        yield


def logger_of(reference: str) -> logging.Logger:
    """The logger of a package: the one that a module, or `"module:attribute"`, belongs to.

    What CFI has to say to somebody in particular it warns of; here is told, to whoever asks, how a call goes.
    """
    found = logging.getLogger(reference.partition(":")[0].partition(".")[0])
    if not found.handlers:
        found.addHandler(logging.NullHandler())
    return found


def _present() -> Phase | None:
    line = _line.get()
    return line.phases[-1] if line is not None and line.phases else None


def _in_terminal() -> bool:
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _in_notebook() -> bool:
    """Whether what is written goes to the front end of a Jupyter kernel."""
    stream = getattr(sys.modules.get("ipykernel.iostream"), "OutStream", None)
    return stream is not None and isinstance(sys.stderr, stream)


class _Line:
    """The line of one call, and the thread that draws it.

    Attributes:
        phases: Those that the call is in, the innermost last.
        lock: Held while anything is written.
        process: That the thread runs in: a process that was forked has none.
    """

    def __init__(self, stream: TextIO) -> None:
        self.phases: list[Phase] = []
        self.lock = threading.RLock()
        self.process = os.getpid()
        self._stream = stream
        self._over = threading.Event()
        self._is_shown = False
        self._pen: _Pen | None = None
        run = copy_context().run  # a notebook knows by the context which cell is meant
        self._thread = threading.Thread(target=run, args=(self._look,), name="cfi progress", daemon=True)

    def begin(self) -> bool:
        """Whether it is the only one, and can be drawn."""
        self._is_shown = _only_one.acquire(blocking=False)
        if self._is_shown:
            with suppress(RuntimeError):  # where no further thread can be had
                self._thread.start()
        return self._is_shown

    def end(self) -> None:
        """Nothing of it is left."""
        self._over.set()
        if not self._is_shown:
            return
        try:
            if self._thread.ident is not None and self.process == os.getpid():
                self._thread.join()
        finally:
            _only_one.release()

    def clear(self) -> None:
        """Takes it away, until it is drawn again."""
        if self._pen is not None:
            self._pen.clear()

    def _look(self) -> None:
        over = self._over.wait(DELAY)
        # A stream may be closed meanwhile, or fail in any way: that must not disturb the call.
        with suppress(Exception):
            while not over:
                with self.lock:
                    self._draw()
                over = self._over.wait(_EVERY)
        with suppress(Exception), self.lock:
            if self._pen is not None:
                self._pen.end()

    def _draw(self) -> None:
        for present in self.phases[-1:]:
            self._pen = self._pen or _pen_for(self._stream)
            self._pen.draw(present)


class _Pen:
    """Draws on a line of text, which the next phase overwrites."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._drawn: Phase | None = None

    def draw(self, one: Phase) -> None:
        """As far as the phase is."""
        if one is not self._drawn:
            self.clear()
            self._bar, self._drawn = self.make_bar(), one
        _set(self._bar, one)
        self._bar.refresh()

    def clear(self) -> None:
        """Nothing is left of the line."""
        bar, self._bar, self._drawn = self._bar, None, None
        if bar is not None:
            bar.close()
            if self._stream.isatty():
                self._stream.write(_ERASE)  # what the terminal has written there itself: ^C
                self._stream.flush()

    end = clear

    def make_bar(self) -> Any:
        """One of tqdm, without the thread of its own, nor a lock of processes."""
        from tqdm.std import tqdm

        bar = _own(tqdm)(leave=False, file=self._stream, dynamic_ncols=True, smoothing=0, delay=_NOT_YET)
        if bar.dynamic_ncols:
            bar.dynamic_ncols = partial(_width, bar.dynamic_ncols)
        return bar


class _NotebookPen(_Pen):
    """Draws on one widget, which is replaced by nothing at the end: in files that are saved, too."""

    _handle: Any = None

    def draw(self, one: Phase) -> None:
        from tqdm import notebook

        self._bar = self._bar or _own(notebook.tqdm)(total=1, leave=False, display=False, smoothing=0)
        _set(self._bar, one)
        self._bar.container.children[1].max = one.total or 1
        self._bar.refresh()
        self._handle = self._handle or notebook.display(self._bar.container, display_id=True)

    def clear(self) -> None:
        """What else is written goes elsewhere."""

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar.container.close()
            self._handle.update({}, raw=True)  # an empty text would be a blank line


def _pen_for(stream: TextIO) -> _Pen:
    return (_NotebookPen if _in_notebook() and find_spec("ipywidgets") is not None else _Pen)(stream)


def _own(kind: Any) -> Any:
    from tqdm.std import tqdm

    lock = vars(tqdm).get("_lock") or threading.RLock()
    return type("Bar", (kind,), {"monitor_interval": 0, "_lock": lock})


def _set(bar: Any, one: Phase) -> None:
    """Has it show a phase."""
    bar.total, (bar.n, bar.unit), bar.desc = one.total, one.done, one.what
    bar.start_t = bar._time() - (perf_counter() - one.started)
    if one.total:
        bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]"
    else:
        bar.bar_format = "{desc}: {n_fmt} {unit} [{elapsed}]{bar}" if bar.n else "{desc} [{elapsed}]{bar}"


def _width(measure: Callable[[TextIO], tuple[int | None, int | None]], stream: TextIO) -> tuple[int | None, int | None]:
    """Of the terminal, less the place where it writes ^C: a line that it breaks there cannot be taken away."""
    columns, rows = measure(stream)
    return None if columns is None else columns - len("^C"), rows


_log = logger_of(__name__)
_line: ContextVar[_Line | None] = ContextVar("cfi_core_line", default=None)
_only_one = threading.Lock()
