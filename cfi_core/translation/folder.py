"""A folder that nobody but its owner can have written to: looked at whenever it is entered.

Names are looked up in the open folder, not by their paths, and what is opened is looked at once it is open: so nothing
can be put in its place between the look and the use. Where the system has no owners and links of this kind (Windows),
only sizes and kinds are looked at.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_HAS_OWNERS = sys.platform != "win32"
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# A pipe that is opened to be read waits for somebody who writes, unless told not to.
_TO_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)

_MOST_LINKS = 40
"""On the way to a folder, as in Linux."""

_SMALL, _PACKED = 2**24, 8
"""A file larger than that takes at least this part of its size on any disk; what takes less is full of holes."""


@contextmanager
def enter(path: Path) -> Iterator[Folder]:
    """Opens a folder, which is made for the user alone where it is not there.

    Raises:
        PermissionError: Somebody else could have written there, or could put another folder in its place.
        OSError: It cannot be made or opened, or is none.
    """
    for one in (*reversed(path.parents), path):
        if not one.exists():
            one.mkdir(mode=0o700, exist_ok=True)
    if _HAS_OWNERS:
        *around, _ = _way(path)
        for one in around:
            _check_on_the_way(one)
    with Folder(path.parent, None).inside(path.name) as folder:
        yield folder


def _way(path: Path) -> Iterator[Path]:
    """All folders and links that the system goes through to get there, the folder itself last."""
    here, rest, links = Path(path.anchor), list(path.parts[1:]), 0
    yield here
    while rest:
        part = rest.pop(0)
        if part == "..":
            here = here.parent
            continue
        yield here / part
        if (here / part).is_symlink() and links < _MOST_LINKS:
            links, target = links + 1, here / Path.readlink(here / part)
            here, rest = Path(target.anchor), [*target.parts[1:], *rest]
        else:
            here /= part


def _check_on_the_way(path: Path) -> None:
    """Whoever owns a folder, or may write to it, can put others in the place of what it holds.

    A folder like `/tmp`, where all may write but only owners rename and remove (sticky), is as good as any: what it
    holds has an owner, too, who is looked at. So is a link of the user's own or of the system's, as `/tmp` itself is on
    macOS: nobody else can make it lead elsewhere.
    """
    status = path.lstat()
    if status.st_uid not in (0, os.getuid()):
        raise PermissionError(f"{path} belongs to another user, who can put anything in its place")
    if not stat.S_ISLNK(status.st_mode) and not status.st_mode & stat.S_ISVTX:
        _refuse_writers(status, path, str(path))


def _require_own(status: os.stat_result, path: Path) -> None:
    if _HAS_OWNERS:
        if status.st_uid != os.getuid():
            raise PermissionError("it belongs to another user. Choose a folder of your own")
        _refuse_writers(status, path, "it")


def _refuse_writers(status: os.stat_result, path: Path, name: str) -> None:
    if status.st_mode & _BY_OTHERS:
        raise PermissionError(
            f"others may write to {name}, and whoever can write there can put another model in the place of yours. "
            f"Choose a folder of your own (chmod go-w {path})"
        )


@dataclass(frozen=True)
class Folder:
    """A folder that was looked at.

    Attributes:
        path: Its path.
        opened: What the system calls it while it is open; None where folders cannot be opened (Windows), and for one
            that was only looked at on the way.
    """

    path: Path
    opened: int | None

    @contextmanager
    def inside(self, name: str) -> Iterator[Folder]:
        """A folder in it.

        Raises:
            PermissionError: It is a link, or somebody else may have written there.
            OSError: There is none.
        """
        path = self.path / name
        if path.is_symlink():  # so that the message is clear: opened, it is refused as well
            raise PermissionError(f"it is a link. Name the folder that it leads to, {path.resolve()}")
        if not _HAS_OWNERS:
            yield Folder(path, None)
            return
        opened = self._open(name, _TO_READ | _FOLDER)
        try:
            _require_own(os.fstat(opened), path)
            yield Folder(path, opened)
        finally:
            os.close(opened)

    def read(self, name: str, most: int) -> bytes:
        """What a file holds.

        Raises:
            PermissionError: It is a link, no plain file, larger than `most` bytes, has a second name or holes, or
                somebody else may have written to it.
            OSError: There is none.
        """
        with os.fdopen(self._open(name, _TO_READ), "rb") as file:
            size = _size(os.fstat(file.fileno()), self.path / name, most)
            data = file.read(size + 1)
        if len(data) != size:
            raise PermissionError(f"{self.path / name} was changed while it was read")
        return data

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        """Puts a folder with files into it, whole or not at all, in the place of whatever is there.

        Raises:
            OSError: It cannot be written.
        """
        new, former = (f".{kind}-{secrets.token_hex(8)}" for kind in ("new", "former"))
        try:
            os.mkdir(self._place(new), 0o700, dir_fd=self.opened)
            with self.inside(new) as entry:
                for file, data in files.items():
                    entry.write(file, data)
            with suppress(FileNotFoundError):
                self._rename(name, former)
            try:
                self._rename(new, name)
            except OSError as error:
                if error.errno not in _TAKEN:  # otherwise another process was quicker
                    raise
        finally:
            for left in (new, former):
                self._remove(left)

    def write(self, name: str, data: bytes) -> None:
        """A new file."""
        with os.fdopen(self._open(name, _TO_WRITE), "wb") as file:
            file.write(data)

    def _place(self, name: str) -> str | Path:
        return self.path / name if self.opened is None else name

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._place(name), flags, 0o600, dir_fd=self.opened)

    def _rename(self, one: str, other: str) -> None:
        os.rename(self._place(one), self._place(other), src_dir_fd=self.opened, dst_dir_fd=self.opened)

    def _remove(self, name: str) -> None:
        """A folder with all that it holds, or whatever else has that name."""
        with suppress(OSError):
            os.unlink(self._place(name), dir_fd=self.opened)
        shutil.rmtree(self._place(name), ignore_errors=True, dir_fd=self.opened)


def _size(status: os.stat_result, path: Path, most: int) -> int:
    """How many bytes a file has, after a look at what it is."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise PermissionError(f"{path} is no plain file, or has two names")
    _require_own(status, path)
    stored = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size > most or status.st_size > max(_SMALL, _PACKED * stored):
        raise PermissionError(f"{path} is larger than a model, or full of holes")
    return status.st_size
