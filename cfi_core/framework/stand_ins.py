"""Stands in for methods of objects while a model runs, in one thread: what libraries without hooks are watched by."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Around = Callable[[str, Callable[[], Any]], Any]
"""From an object's name and its call to what the call gives."""


@contextmanager
def stand_in(objects: Sequence[tuple[str, Any]], methods: Sequence[str], around: Around) -> Iterator[None]:
    """Has `around` make each call of these methods, inside; calls in other threads go on as if nothing were there.

    Args:
        objects: With their names.
        methods: Their names; an object may lack some.
        around: See `Around`.
    """
    undo: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
    try:
        for name, one in objects:
            for method in (method for method in methods if hasattr(one, method)):
                own = vars(one)
                undo.append((own, method, {method: own[method]} if method in own else {}))
                # Past the object's __setattr__, which may track what it is given.
                own[method] = _caught(getattr(one, method), name, around)
        yield
    finally:
        for own, method, former in reversed(undo):
            own.pop(method, None)
            own.update(former)


def _caught(call: Callable[..., Any], name: str, around: Around) -> Callable[..., Any]:
    watching = threading.get_ident()

    @functools.wraps(call)
    def call_caught(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != watching:
            return call(*args, **kwargs)
        return around(name, lambda: call(*args, **kwargs))

    return call_caught
