"""What is written where: the answer, and nothing else, to stdout; everything said on the way to stderr.

Colours and tables with lines are for people: in a pipe there is plain text. Names come from models and files, so what
could steer a terminal in them is shown, not sent.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

_WIDTH = 100
_ARGUMENTS = re.compile(
    r"(?<![\w.-])(target|layer|neuron|baselines|toolset|translator|head|defaults|seed)=(?=([\w'\"(\[]?))"
)
_OWN = re.compile(r"\b(init|exec)_args=\{'(\w+)': ([^{}]*)\}")
_METHODS, _LAYERS = re.compile(r"cfi\.methods\('(\w+)'\)"), re.compile(r"cfi\.layers\(model\)")


def clean(text: object) -> str:
    r"""Text without control characters, which are written out (`\x1b`) instead; new lines and tabs stay."""
    shown = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(
        one if one in "\n\t" or one.isprintable() else one.encode("unicode_escape").decode() for one in shown
    )


def in_options(text: object) -> str:
    """A message of the library, its arguments as options of the command; a line of Python stays one."""
    told = _LAYERS.sub("cfi layers MODEL", _METHODS.sub(r"cfi methods \1", str(text)))
    told = _OWN.sub(r'--\1 "\2=\3"', told)
    if "cfi." in told:
        return told
    return _ARGUMENTS.sub(lambda found: f"--{found[1]}{' ' * bool(found[2])}", told)


def say(text: object) -> None:
    """A word on the way, to stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def answer(text: object) -> None:
    """The answer, or a part of it, to stdout."""
    print(clean(text), flush=True)


def answer_json(value: Any) -> None:
    """The answer as JSON; what JSON cannot hold as its `repr`, what is no number as null."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def answer_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table: with colours in a terminal, else as columns of plain text, of which nothing is cut off."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        for row in (headings, *cells):
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold cyan", pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", style="bold" if number == 0 else None)
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def wrap(text: object, indent: str = "") -> str:
    """Paragraphs in lines of the terminal's width, at the most a hundred characters; as they are in a pipe."""
    if not sys.stderr.isatty():
        return clean(text)
    width = min(_WIDTH, os.get_terminal_size(sys.stderr.fileno()).columns)
    lines = clean(text).splitlines()
    return "\n".join(textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False) for line in lines)


def open_streams() -> None:
    """Makes sure that there are streams to write to, and that no letter is one too many for them."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # where the caller has closed one of the three
        continue
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def aside() -> Iterator[None]:
    """Whatever libraries print meanwhile, by whatever way, goes to stderr, so that stdout holds the answer alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # what C code has printed and kept back
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def quiet() -> Iterator[None]:
    """What compiled code writes to stderr by itself (TensorFlow's logs, before they can be set) is not shown."""
    sys.stderr.flush()
    kept, nowhere, shown = os.dup(2), os.open(os.devnull, os.O_WRONLY), sys.stderr
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = shown
        os.dup2(kept, 2)
        os.close(kept)


def plain(value: Any) -> Any:
    """A value in the types of JSON."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(entry) for entry in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return str(value) if isinstance(value, Path) else repr(value)
