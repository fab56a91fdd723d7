"""How much memory the process has taken, and how much it may take: where the system tells it (Linux)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_EVERY = 0.002
"""Seconds between two looks."""
_STATM, _MEMINFO = Path("/proc/self/statm"), Path("/proc/meminfo")
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def taken() -> int | None:
    """Bytes of the process that lie in memory; None where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def available() -> int | None:
    """Bytes that it may take besides, by the machine and by its control group; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        found = [int(lines["MemAvailable"].split()[0]) * 1024]
    except (OSError, ValueError, KeyError):
        return None
    for most, current in _LIMITS:
        try:
            found.append(int(Path(most).read_text()) - int(Path(current).read_text()))
        except (OSError, ValueError):  # there is no such group, or it has no limit ("max")
            continue
    return max(min(found), 0)


class Peak:
    """Watches, inside, how much memory the process takes; a thread looks at it, so that nothing is reset.

    Attributes:
        growth: By how many bytes the most was more than what was taken at the beginning; None where nobody tells.
    """

    def __init__(self) -> None:
        self.growth: int | None = None
        self._most = self._begun = taken() or 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="cfi memory")

    def __enter__(self) -> Peak:
        if self._begun:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._begun:
            self._over.set()
            self._thread.join()
            self.growth = self._most - self._begun

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            self._most = max(self._most, taken() or 0)
