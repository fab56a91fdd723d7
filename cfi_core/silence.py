"""What libraries say that nobody can act on, kept from the user in the thread that runs the library."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


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


@contextmanager
def keep_filters() -> Iterator[None]:
    """Takes out again the filters that libraries add for the whole process when they are imported inside."""
    filters: Any = warnings.filters
    before, modules = list(filters), len(sys.modules)
    try:
        yield
    finally:
        if len(sys.modules) != modules:  # otherwise it was another thread of the user's that added some
            filters = warnings.filters
            known = {id(entry) for entry in before}
            filters[:] = [one for one in filters if id(one) in known or isinstance(one[1], _OfThisThread)]


class _OfThisThread:
    """Stands for a compiled pattern in a filter, and matches in the thread alone that made it.

    Libraries that hand the filters on to workers of theirs (scikit-learn) read the pattern, or pickle it: there it
    matches nothing.
    """

    pattern, flags = "(?!)", 0

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._matches = [re.compile(pattern, re.IGNORECASE).match for pattern in patterns]
        self._thread = threading.get_ident()

    def match(self, text: str) -> bool:
        """Whether a warning with this message is meant."""
        return threading.get_ident() == self._thread and any(match(text) for match in self._matches)

    def __reduce__(self) -> tuple[Any, ...]:
        return re.compile, (self.pattern, self.flags)


@contextmanager
def without_output(name: str) -> Iterator[None]:
    """Drops what this thread writes to `"stdout"` or `"stderr"` inside; one thread at a time may be inside."""
    stream: TextIO = getattr(sys, name)
    setattr(sys, name, _WithoutThisThread(stream))
    try:
        yield
    finally:
        setattr(sys, name, stream)


class _WithoutThisThread:
    """Stands for a stream, and hands on what other threads write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        """Drops it, or hands it on."""
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
