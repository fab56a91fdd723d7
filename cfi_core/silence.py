"""Warnings of libraries that nobody can act on, kept from the user in the thread that runs the library."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_warnings(*messages: str, action: str = "ignore") -> Iterator[None]:
    """Filters, inside and in this thread alone, warnings whose messages begin as one of these patterns; or all.

    `warnings.catch_warnings` exchanges the filters of the whole process: of two threads inside, the one that leaves
    last leaves the filters of the other behind.
    """
    added: Any = (action, _OfThisThread(messages or ("",)), Warning, None, 0)
    warnings.filters.insert(0, added)  # type: ignore[attr-defined]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        filters: Any = warnings.filters
        # By identity: the same filter may be there for another thread.
        for place in [place for place, entry in enumerate(filters) if entry is added]:
            del filters[place]
        warnings._filters_mutated()  # type: ignore[attr-defined]


class _OfThisThread:
    """Stands for a compiled pattern in a filter, and matches in the thread alone that made it."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._matches = [re.compile(pattern, re.IGNORECASE).match for pattern in patterns]
        self._thread = threading.get_ident()

    def match(self, text: str) -> bool:
        """Whether a warning with this message is meant."""
        return threading.get_ident() == self._thread and any(match(text) for match in self._matches)
