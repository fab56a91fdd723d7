"""What a file or folder is, told by a look at its bytes and names: nothing in it is run, and little of it is read."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from cfi_core.errors import ModelFileError, brief

_HEAD = 64
_ARCHIVE = b"PK\x03\x04"

_MOST_DIRECTORY = 2**22
"""Bytes of an archive's directory, which is read at once and takes many times that in memory: some 60,000 members."""

_MOST_NAMES = 20_000
"""Of a folder that are looked at."""

_SMALL, _PACKED = 2**24, 8
"""A file larger than that takes at least this part of its size on any disk."""

_ELSEWHERE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")
"""What an archive that somebody packed by hand may call its members, so that they are put somewhere else."""

_TO_LOOK = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""A pipe that is opened to be read waits for somebody who writes, unless told not to."""


@dataclass(frozen=True)
class Contents:
    """What is seen of a file or folder.

    Attributes:
        head: The first bytes of a file.
        members: Names in an archive (zip), or in the folder.
        folder: Whether it is one.
        size: Of the file, in bytes.
    """

    head: bytes = b""
    members: tuple[str, ...] = ()
    folder: bool = False
    size: int = 0

    def __str__(self) -> str:
        names = ", ".join(map(repr, map(brief, self.members[:4]))) + (", …" if len(self.members) > 4 else "")
        if self.folder:
            return f"a folder of {names}" if names else "an empty folder"
        if self.members:
            return f"a zip archive of {names}"
        return f"{self.size:,} bytes that begin with {self.head[:12]!r}"


def look_into(path: Path) -> Contents:
    """Says what is at a path.

    Raises:
        ModelFileError: There is nothing, or no plain file or folder; it is empty, cannot be opened, or is an archive
            that is broken or names members that lie elsewhere.
    """
    shown = brief(str(path))
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                return Contents(members=tuple(one.name for one in islice(entries, _MOST_NAMES)), folder=True)
        _require_plain(path.stat(), shown)  # opening a device can do something
        file = os.fdopen(os.open(path, _TO_LOOK), "rb")
    except FileNotFoundError:
        raise ModelFileError(f"There is no file {shown!r}. {_near(path)}") from None
    except (OSError, ValueError) as error:  # too long, a circle of links, a zero byte, no permission
        raise ModelFileError(f"{shown!r} cannot be opened ({getattr(error, 'strerror', None) or error}).") from error
    with file:
        status = os.fstat(file.fileno())
        _require_plain(status, shown)
        if not status.st_size:
            raise ModelFileError(f"{shown!r} is empty.")
        if status.st_size > max(_SMALL, _PACKED * getattr(status, "st_blocks", status.st_size) * 512):
            raise ModelFileError(f"{shown!r} is full of holes: of its {status.st_size:,} bytes the disk holds few.")
        head = file.read(_HEAD)
    members: tuple[str, ...] = ()
    if head.startswith(_ARCHIVE):
        with open_archive(path) as archive:
            members = tuple(archive.namelist())
    return Contents(head, members, size=status.st_size)


def _require_plain(status: os.stat_result, shown: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{shown!r} is no plain file but a pipe, socket or device. Pass the path of a file.")


def _near(path: Path) -> str:
    """What may have been meant, by the names that are there."""
    parent = path.parent
    if not parent.is_dir():
        return f"There is no folder {brief(str(parent))!r} either; paths begin at {os.getcwd()!r}."
    with os.scandir(parent) as entries:
        names = [one.name for one in islice(entries, _MOST_NAMES)]
    folded = {name.lower(): name for name in names}
    near = [folded[name] for name in get_close_matches(path.name.lower(), folded, n=3)]
    same = [name for name in names if path.stem and Path(name).stem == path.stem and name not in near]
    if meant := (near + same)[:3]:
        return f"In that folder there is {' and '.join(map(repr, meant))}."
    return f"Nothing in {os.path.abspath(parent)!r} has a name like it."


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive, after a look at its directory; members are read by name, and never put anywhere.

    Raises:
        ModelFileError: It is broken, has a directory of many megabytes, or members of one name, of names that lie
            elsewhere, or encrypted ones.
    """
    shown = brief(str(path))
    try:
        with path.open("rb") as file, zipfile.ZipFile(bounded := _Bounded(file)) as archive:
            bounded.most = None
            if trouble := _trouble(archive.infolist()):
                raise ModelFileError(f"{shown!r} is a zip archive {trouble}, which no framework writes.")
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{shown!r} begins like a zip archive and is a broken or truncated one ({brief(str(error))}). Get the file "
            f"again."
        ) from error


def _trouble(members: list[zipfile.ZipInfo]) -> str:
    (name, number), *_ = Counter(one.filename for one in members).most_common(1) or [("", 0)]
    if number > 1:
        return f"with {number} members called {brief(name)!r}"
    for one in members:
        # `orig_filename` is what stands there, before a zero byte and what follows it are left out.
        if _ELSEWHERE.search(one.orig_filename):
            return f"with the member {brief(one.orig_filename)!r}, which lies outside of it"
        if one.flag_bits & 1:
            return f"with the encrypted member {brief(one.filename)!r}"
    return ""


class _Bounded:
    """A file of which nothing large is read at once: zipfile reads the directory so, however large it claims to be."""

    def __init__(self, file: Any) -> None:
        self.most: int | None = _MOST_DIRECTORY
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        left = max(0, self._size - self._file.tell())
        if self.most is not None and min(left, left if size < 0 else size) > self.most:
            raise zipfile.BadZipFile("its directory is too large")
        return bytes(self._file.read(size))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        return int(self._file.seek(offset, whence))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
