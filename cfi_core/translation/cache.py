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

_CAPACITY = 8  # an entry may hold on to the model that it was made of

_Made = TypeVar("_Made")


# What was made, with the digest of the samples that it was measured on last; an entry goes when its model goes.
cache: OrderedDict[Key, tuple[Any, str]] = OrderedDict()
_lock = RLock()


def forget_translations() -> None:
    """Empties the cache of conversions and bridges."""
    with _lock:
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
    hashed = xxhash.xxh3_128()
    for array in (*arrays, *outputs):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    digest = hashed.hexdigest()
    with _lock:
        found, former = cache.get(key, (None, ""))
        if found is not None:
            cache.move_to_end(key)
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
        _keep(key, model, (made, digest))
    return made


def _keep(key: Key, model: Any, entry: tuple[Any, str]) -> None:
    with _lock:
        # A model whose weights have changed will not come back to its former content: one entry for each
        # model, route and shape is enough.
        is_new = key not in cache
        for former in [other for other in cache if other[1:] == key[1:]]:
            del cache[former]
        cache[key] = entry
        while len(cache) > _CAPACITY:
            cache.popitem(last=False)
    if is_new and _identity(model):
        weakref.finalize(model, _forget, key).atexit = False


def _forget(key: Key) -> None:
    with _lock:
        cache.pop(key, None)


def _identity(model: Any) -> int:
    """The object's identity; 0 for an object that cannot be watched (a protobuf message), known by content alone."""
    try:
        weakref.ref(model)
    except TypeError:
        return 0
    return id(model)
