"""Whoever waits sees what is going on: in a terminal, and nowhere else unless it is asked for."""

from __future__ import annotations

import errno
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import progress
from cfi_core.registry import Registry
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

HEAD = """
import os, sys, threading, time
import numpy as np
import cfi_core as cfi
from cfi_core import progress
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Print

progress.DELAY, progress._EVERY = {delay}, 0.05
generator = np.random.default_rng(0)
model = Print(generator.normal(size=(4, 3)), generator.normal(size=(2, 4)))
passes = 0

def each():
    global passes
    passes += 1

def explain(number, seconds, each=each, **arguments):
    own = {{"passes": number, "seconds": seconds, "each": each}}
    with use_plugins(fake, fake.slow_plugin):
        return cfi.attribute(model, "press_slowly", inputs=np.ones((1, 5, 5, 3)), exec_args=own, **arguments)
"""
SEEN = re.compile(r"running press_slowly of press: +(\d+)%\|[^|]*\| (\d+)/40 passes \[00:\d\d<(00:\d\d|\?)\]")
COLUMNS = 80


def script(body: str, delay: float = 0.1) -> list[str]:
    return [sys.executable, "-c", HEAD.format(delay=delay) + body]


def in_terminal(command: list[str], react: Callable[[str, subprocess.Popen[bytes]], None] | None = None) -> str:
    """What a command writes to a terminal of 80 columns, standard output included."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "24"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=lead_terminal, close_fds=True
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
            if react is not None:
                react(written.decode(errors="replace"), process)
    except OSError as error:  # how a terminal ends on Linux
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(ours)
        process.wait(30)
    return written.decode()


def lead_terminal() -> None:
    """Makes the terminal that of the process, so that ^C interrupts it."""
    import fcntl
    import struct
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))


def screen(written: str) -> list[str]:
    """What is left to be seen, of a terminal that wraps long lines and knows how to erase the rest of one."""
    lines, column = [""], 0
    for sign in re.findall(r"\x1b\[K|.", written, re.DOTALL):
        if sign == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif sign == "\r":
            column = 0
        elif sign == "\n":
            lines.append("")
        else:
            if column == COLUMNS:
                lines.append("")
                column = 0
            lines[-1] = lines[-1].ljust(column)[:column] + sign + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_how_far_it_is_and_is_clean_afterwards() -> None:
    written = in_terminal(script("explain(40, 0.02)\nprint('done')\n"))
    seen = [(int(percent), int(done), left) for percent, done, left in SEEN.findall(written)]
    assert len(seen) >= 3
    assert all(abs(percent - 100 * done / 40) <= 0.5 for percent, done, _ in seen)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert any(left != "?" for _, _, left in seen)
    assert screen(written)[:1] == ["done"]


def test_nothing_is_shown_of_a_call_that_takes_no_two_seconds() -> None:
    assert progress.DELAY == 2.0
    assert screen(in_terminal(script("explain(10, 0.01)\n", progress.DELAY))) == [""]
    assert "running" in in_terminal(script("explain(13, 0.2)\n", progress.DELAY))


@pytest.mark.parametrize("asked", [None, False])
def test_a_pipe_stays_empty(asked: bool | None) -> None:
    found = subprocess.run(script(f"explain(20, 0.02, progress={asked})\n"), capture_output=True, check=True, text=True)
    assert (found.stdout, found.stderr) == ("", "")


def test_a_pipe_gets_it_where_it_is_asked_for() -> None:
    found = subprocess.run(script("explain(40, 0.02, progress=True)\n"), capture_output=True, check=True, text=True)
    assert found.stdout == ""
    assert SEEN.search(found.stderr)


@pytest.mark.parametrize("asked", ["progress=False", "**({} if os.environ.update(TERM='dumb') else {})"])
def test_it_can_be_switched_off_in_a_terminal(asked: str) -> None:
    assert in_terminal(script(f"explain(20, 0.02, {asked})\n")) == ""


def test_other_threads_show_nothing_of_themselves() -> None:
    body = "thread = threading.Thread(target=explain, args=(20, 0.05))\nthread.start()\nthread.join()\n"
    assert in_terminal(script(body)) == ""


def test_a_part_that_never_ticks_shows_up() -> None:
    body = "with progress.show(), progress.phase('importing the world'):\n    time.sleep(0.5)\n"
    written = in_terminal(script(body))
    assert "importing the world [00:0" in written
    assert screen(written) == [""]


def test_what_it_does_is_told_part_by_part() -> None:
    body = (
        "with progress.show(), progress.phase('outer'):\n"
        "    with progress.phase('inner', 4, 'masks'):\n"
        "        for _ in range(4):\n            time.sleep(0.1)\n            progress.tick()\n"
        "    time.sleep(0.3)\n"
    )
    written = in_terminal(script(body))
    assert re.search(r"inner: +75%\|.*\| 3/4 masks", written)
    assert written.index("inner") < written.index("outer [")
    assert screen(written) == [""]


def test_an_error_finds_a_clean_line() -> None:
    body = "def fail():\n    each()\n    if passes == 20:\n        raise OSError('jammed')\nexplain(40, 0.02, fail)\n"
    written = in_terminal(script(body))
    assert SEEN.search(written)
    assert screen(written)[0] == "Traceback (most recent call last):"
    assert not [line for line in screen(written) if line.startswith("running press_slowly")]


def test_a_warning_finds_a_clean_line_and_the_line_goes_on() -> None:
    body = (
        "from cfi_core.errors import ModelWarning, warn\n"
        "def tell():\n    each()\n    if passes == 15:\n        warn('look here', ModelWarning)\n"
        "explain(40, 0.02, tell)\n"
    )
    written = in_terminal(script(body))
    at = written.index("ModelWarning: look here")
    assert SEEN.search(written[:at])
    assert SEEN.search(written[at:])
    assert not [line for line in screen(written) if "running" in line]


@pytest.mark.parametrize("by_key", [True, False], ids=["key", "signal"])
def test_ctrl_c_is_answered_within_a_pass(by_key: bool) -> None:
    body = (
        "import signal\n"
        "def interrupt(*_):\n    global at\n    at = passes\n    raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "try:\n    explain(400, 0.02)\n"
        "except KeyboardInterrupt:\n"
        "    print('after', passes - at, [thread.name for thread in threading.enumerate()], flush=True)\n"
    )
    sent = []

    def react(written: str, process: subprocess.Popen[bytes]) -> None:
        if "passes [" in written and not sent:
            sent.append(os.kill(process.pid, signal.SIGINT))

    written = type_interrupt(script(body)) if by_key else in_terminal(script(body), react)
    assert screen(written)[0] == "after 0 ['MainThread']"


def type_interrupt(command: list[str]) -> str:
    """Types ^C, which a terminal shows, too."""
    child, ours = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS=str(COLUMNS))
        os.execv(command[0], command)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    written, typed = b"", False
    try:
        while part := os.read(ours, 4096):
            written += part
            if b"passes [" in written and not typed:
                typed = bool(os.write(ours, b"\x03"))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    os.waitpid(child, 0)
    os.close(ours)
    assert b"^C" in written
    return written.decode()


# within this process


@pytest.fixture
def registry() -> Iterator[Registry]:
    with use_plugins(fake, fake.slow_plugin) as current:
        yield current


def slowly(model: Painting, images: np.ndarray, each: Callable[[], None], **more: Any) -> Any:
    own = {"passes": 2, "seconds": 0.0, "each": each}
    return cfi.attribute(model, "press_slowly", inputs=images, exec_args=own, **more)


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cfi progress"]


def test_there_is_a_thread_while_something_is_shown_and_none_otherwise(painting: Painting, images: np.ndarray) -> None:
    during: list[list[str]] = []
    for asked in (None, False, True):
        slowly(painting, images, lambda: during.append(names_of_threads()), progress=asked)
        assert not names_of_threads()
    assert during[:4] == [[], [], [], []]
    assert during[4:] == [["cfi progress"], ["cfi progress"]]


def test_tqdm_is_imported_when_something_is_shown_and_leaves_no_thread_behind() -> None:
    body = (
        "explain(2, 0.01)\nexplain(2, 0.01, progress=True)\nprint('tqdm' in sys.modules)\n"
        "explain(20, 0.03, progress=True)\n"
        "import tqdm\nprint(tqdm.tqdm.monitor, threading.active_count(), 'multiprocessing' in sys.modules)\n"
    )
    found = subprocess.run(script(body), capture_output=True, check=True, text=True)
    assert found.stdout.split("\n")[:2] == ["False", "None 1 False"]


def test_calls_within_a_call_share_its_line(painting: Painting, images: np.ndarray) -> None:
    seen: list[int] = []

    def nested() -> None:
        slowly(painting, images, lambda: seen.append(len(names_of_threads())), progress=True)
        slowly(painting, images, lambda: seen.append(int(progress.is_shown())), progress=False)

    slowly(painting, images, nested, progress=True)
    assert seen == [1, 1, 0, 0] * 2
    assert not names_of_threads()


def test_of_two_threads_one_has_the_line() -> None:
    meet, seen = threading.Barrier(2, timeout=20), []

    def show() -> None:
        with progress.show(True), progress.phase("waiting"):
            meet.wait()
            seen.append((len(names_of_threads()), progress.is_shown()))
            meet.wait()

    other = threading.Thread(target=show)
    other.start()
    show()
    other.join()
    assert sorted(seen) == [(1, False), (1, True)]
    assert not names_of_threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_waits_for_nobody(painting: Painting, images: np.ndarray) -> None:
    codes = []

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads, of which the child has none
            child = os.fork()
        if child == 0:
            with progress.aside(), progress.phase("of the child"):
                progress.tick()
            os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    slowly(painting, images, fork, progress=True)
    assert codes == [7, 7]


def test_a_stream_that_fails_disturbs_nothing(
    painting: Painting, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def write(self, text: str) -> int:
            raise OSError("gone")

        def flush(self) -> None:
            raise OSError("gone")

    monkeypatch.setattr(progress, "DELAY", 0.01)
    monkeypatch.setattr(sys, "stderr", Failing())
    slowly(painting, images, lambda: time.sleep(0.1), progress=True)
    monkeypatch.setattr(sys, "stderr", None)
    slowly(painting, images, lambda: time.sleep(0.1))


@pytest.mark.parametrize("wrong", [1, 0, "yes", 2.5])
def test_anything_else_is_refused(painting: Painting, images: np.ndarray, wrong: Any) -> None:
    for call in (
        lambda: cfi.attribute(painting, "press_gradient", inputs=images, target=1, progress=wrong),
        lambda: cfi.plan(painting, "press_gradient", inputs=images, target=1, progress=wrong),
        lambda: cfi.translate(painting, "print", inputs=images, progress=wrong),
    ):
        with pytest.raises(cfi.ArgumentError, match="progress="):
            call()


def test_every_call_takes_it(painting: Painting, images: np.ndarray) -> None:
    assert "gradient" in str(cfi.plan(painting, "press_gradient", inputs=images, target=1, progress=True))
    assert cfi.translate(painting, "print", inputs=images, progress=True).certificate.faithful
    pending = cfi.attribute(painting, "press_layer", inputs=images, progress=True)
    assert cfi.finish_execution_with_layer(pending, "mix", progress=True).layer == "mix"


# the log


def test_the_log_tells_route_translation_and_seconds(
    painting: Painting, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            cfi.attribute(painting, "press_gradient", inputs=images, target=1)
    assert {record.name for record in caplog.records} == {"cfi_core"}  # of which the fake plugin is a part
    assert progress.logger_of("cfi_captum.run:run") is logging.getLogger("cfi_captum")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "press_gradient of press: paint → print (paint2print): " in told[0]
    assert "paint2print: made anew" in told
    assert any(re.fullmatch(r"press_gradient: \d+\.\d\d s, with \{'scale': 1\.0\}", one) for one in told)
    assert "paint2print: what an earlier call made is taken" in told
    timed = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    for what in ("translating to print (paint2print)", "certifying", "running press_gradient of press"):
        assert any(re.fullmatch(rf"{re.escape(what)}: \d+\.\d\d s", one) for one in timed), what


def test_the_log_tells_what_failed(images: np.ndarray, registry: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = Painting(np.ones((4, 3)), np.ones((5, 4)), refuses=True)
    with caplog.at_level(logging.INFO, "cfi_core"), pytest.raises(cfi.TranslationError):
        cfi.attribute(model, "press_gradient", inputs=images, target=1)
    assert "paint → print (paint2print) failed: paint2print has no rule for this painting" in caplog.text


def test_nothing_is_logged_where_nobody_asks(tmp_path: Path) -> None:
    body = "import logging\nexplain(1, 0)\nlog = logging.getLogger('cfi_core')\n"
    body += "print(logging.root.handlers, log.level, [type(one).__name__ for one in log.handlers])\n"
    found = subprocess.run(script(body), capture_output=True, check=True, text=True)
    assert (found.stdout, found.stderr) == ("[] 0 ['NullHandler']\n", "")
