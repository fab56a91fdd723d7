"""What was made of models in this process, kept for the next call."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from threading import RLock
from typing import Any

import numpy as np
import xxhash

from cfi_core.framework.axes import Arrays

Key = tuple[str, int, tuple[str, ...], tuple[tuple[tuple[int, ...], str], ...]]

_CAPACITY = 8


class Cache:
    """What was made of models in this process, by the models' content; an entry goes when its model goes.

    At most `_CAPACITY` entries are kept, because an entry may hold on to the model that it was made of.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, Any] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Key) -> Any:
        """The entry, if there is one."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, model: Any, value: Any) -> None:
        """Keeps an entry made of the model."""
        with self._lock:
            # A model whose weights have changed will not come back to its former content: one entry for each
            # model, route and shape is enough.
            is_new = key not in self._entries
            for former in [other for other in self._entries if other[1:] == key[1:]]:
                del self._entries[former]
            self._entries[key] = value
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


def cache_key(fingerprint: str, model: Any, names: tuple[str, ...], arrays: Arrays) -> Key:
    """What must be equal for a kept entry to serve: content, object, way of translation, shapes and types."""
    signature = tuple((array.shape[1:], array.dtype.str) for array in arrays)
    return (fingerprint, _identity(model), names, signature)


def digest_of(arrays: Arrays) -> str:
    """Of inputs and outputs: a model that has changed unnoticed gives itself away by its outputs."""
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


cache = Cache()


def forget_translations() -> None:
    """Empties the cache of conversions and bridges."""
    cache.clear()
