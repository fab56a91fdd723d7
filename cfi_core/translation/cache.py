"""What was made of models in this process, kept for the next call."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import Any, TypeVar

import numpy as np
import xxhash

from cfi_core.errors import UnfaithfulTranslationError
from cfi_core.framework.axes import Arrays
from cfi_core.records import Original

Key = tuple[str, int, tuple[str, ...], tuple[tuple[tuple[int, ...], str], ...]]
"""Content, object, way of translation, shapes and types of the inputs."""

_CAPACITY = 8

_Made = TypeVar("_Made")


class Cache:
    """What was made of models in this process, by the models' content; an entry goes when its model goes.

    At most `_CAPACITY` entries are kept, because an entry may hold on to the model that it was made of.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[Any, str]] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Key) -> tuple[Any, str]:
        """The entry, and the digest of the samples that it was measured on last; None and nothing if there is none."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key, (None, ""))

    def put(self, key: Key, model: Any, made: Any, digest: str) -> None:
        """Keeps an entry made of the model."""
        with self._lock:
            # A model whose weights have changed will not come back to its former content: one entry for each
            # model, route and shape is enough.
            is_new = key not in self._entries
            for former in [other for other in self._entries if other[1:] == key[1:]]:
                del self._entries[former]
            self._entries[key] = made, digest
            while len(self._entries) > _CAPACITY:
                self._entries.popitem(last=False)
        if is_new and _identity(model):
            weakref.finalize(model, self._forget, key).atexit = False

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def _forget(self, key: Key) -> None:
        with self._lock:
            self._entries.pop(key, None)


cache = Cache()


def forget_translations() -> None:
    """Empties the cache of conversions and bridges."""
    cache.clear()


def kept(
    original: Original,
    names: tuple[str, ...],
    arrays: Arrays,
    outputs: Arrays,
    make: Callable[[], _Made],
    measure_again: Callable[[_Made], _Made],
) -> _Made:
    """What an earlier call made of the same unchanged model in the same way (`names`); otherwise what `make` gives.

    If that call had other inputs and outputs than these, what it made is measured again on these.
    """
    adapter, model = original.adapter, original.model
    signature = tuple((array.shape[1:], array.dtype.str) for array in arrays)
    key = (adapter.fingerprint(model), _identity(model), names, signature)
    digest = _digest_of((*arrays, *outputs))
    found, former = cache.get(key)
    if former == digest:
        return found
    made = None
    if found is not None:
        # Unfaithful: something about the model has changed that its fingerprint does not show, but its outputs do.
        with suppress(UnfaithfulTranslationError):
            made = measure_again(found)
    if made is None:
        made = make()
    if found is not None or adapter.fingerprint(model) == key[0]:  # another one each time for what cannot be seen
        cache.put(key, model, made, digest)
    return made


def _digest_of(arrays: Arrays) -> str:
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _identity(model: Any) -> int:
    """The object's identity; 0 for an object that cannot be watched (a protobuf message), known by content alone."""
    try:
        weakref.ref(model)
    except TypeError:
        return 0
    return id(model)
