"""What was made of models, kept for the next call in this process; conversions on disk too, if the user asks for it.

An entry on disk is a folder with the converted model, as its adapter writes models (without code), and what core knows
of it. Its name is a hash of all that it was made of: the content of the original, the translators, shapes and types of
the inputs, and the versions of everything involved. Nothing read from there is believed: certificate and layer map are
made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash
from packaging.requirements import Requirement

from cfi_core.contract import Converted
from cfi_core.errors import FOREIGN, ArgumentError, TranslationWarning, UnfaithfulTranslationError, warn
from cfi_core.framework.axes import Arrays, Permutation
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.progress import logger_of
from cfi_core.records import Original, Route
from cfi_core.reference import forget_references
from cfi_core.registry import Registry
from cfi_core.requirements import version_of
from cfi_core.translation.folder import enter
from cfi_core.turns import Lock

_log = logger_of(__name__)

_NOTES = "translation.json"
_MOST_NOTES = 2**16
"""In bytes; an output takes about twenty."""

Key = tuple[str, int, tuple[str, ...], tuple[tuple[tuple[int, ...], str], ...]]
"""Content, object, way of translation, shapes and types of the inputs."""

_CAPACITY = 8  # an entry may hold on to the model that it was made of

_Made = TypeVar("_Made")

# What was made, with the digest of the samples that it was measured on last; an entry goes when its model goes.
cache: OrderedDict[Key, tuple[Any, str]] = OrderedDict()
_lock = Lock()


def forget_translations() -> None:
    """Empties the cache of conversions and bridges, and of what was compiled to judge them."""
    forget_references()
    with _lock:
        cache.clear()


def recall(
    original: Original,
    names: tuple[str, ...],
    arrays: Arrays,
    outputs: Arrays,
    make: Callable[[], _Made],
    measure_again: Callable[[_Made], _Made],
    complete: Callable[[_Made], _Made] = lambda made: made,
    fingerprint: str = "",
) -> _Made:
    """What an earlier call made of the same unchanged model in the same way (`names`); otherwise what `make` gives.

    If that call had other inputs and outputs than these, what it made is measured again on these. What the calls
    before had no need of, `complete` adds. The fingerprint is the model's, if it has just been taken.
    """
    adapter, model = original.adapter, original.model
    signature = tuple((array.shape[1:], array.dtype.str) for array in arrays)
    key = (fingerprint or adapter.fingerprint(model), _identity(model), names, signature)
    hashed = xxhash.xxh3_128()
    for array in (*arrays, *outputs):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    digest = hashed.hexdigest()
    with _lock:
        found, former = cache.get(key, (None, ""))
        if found is not None:
            cache.move_to_end(key)
    made: _Made | None = None
    if former == digest:
        _log.info("%s: what an earlier call made is taken", ", ".join(names))
        made = complete(found)
        if made is not found:
            _keep(key, model, (made, digest))
        return made
    if found is not None:
        # Unfaithful: something about the model has changed that its fingerprint does not show, but its outputs do.
        with contextlib.suppress(UnfaithfulTranslationError):
            made = complete(measure_again(found))
    is_new = made is None
    _log.info("%s: %s", ", ".join(names), "made anew" if is_new else "what an earlier call made, measured again")
    if made is None:
        made = make()
    if not is_new or adapter.fingerprint(model) == key[0]:  # another one each time for what cannot be seen
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


# on disk


class Store:
    """Conversions in the files of one folder, which hold no code and which nobody else may write to."""

    def __init__(self, folder: Path) -> None:
        try:
            self.folder = folder.expanduser().absolute()
            with enter(self.folder):
                pass
        except (OSError, RuntimeError, ValueError) as error:
            raise ArgumentError(f"{folder} cannot be a folder of translations: {error}.") from error

    def get(self, key: str, adapter: FrameworkAdapter) -> Converted | None:
        """The entry, if there is one that can be read."""
        try:
            with enter(self.folder) as folder, folder.inside(key) as entry:
                notes = json.loads(entry.read(_NOTES, _MOST_NOTES))
                files = {name: entry.read(name, most) for name, most in adapter.file_sizes.items()}
            if notes["of"] != _seal(key, files):
                return None
            inputs, outputs = (tuple(map(_permutation, notes[name])) for name in ("input_axes", "output_axes"))
            return Converted(adapter.restore(files), inputs, outputs)
        except FOREIGN:  # files may be damaged or made up in any way, or not there; the model is converted anew
            return None

    def put(self, key: str, adapter: FrameworkAdapter, made: Converted) -> None:
        """Writes an entry, whole or not at all; warns if it cannot be written."""
        try:
            files = adapter.save(made.model)
            if files is None:
                return
            notes = {"of": _seal(key, files), "input_axes": made.input_axes, "output_axes": made.output_axes}
            with enter(self.folder) as folder:
                folder.put(key, {**files, _NOTES: json.dumps(notes, indent=1).encode()})
        except FOREIGN as error:  # disks fill up, and a model may refuse to be saved in any way
            warn(
                f"The conversion could not be kept in {self.folder} ({type(error).__name__}: {error}). Free the disk, "
                f"choose another folder, or stop with cfi.keep_translations(None).",
                TranslationWarning,
            )


def _seal(key: str, files: Mapping[str, bytes]) -> str:
    """Tells files that were changed, or are those of another entry."""
    digest = hashlib.sha256(key.encode())
    for name in sorted(files):
        digest.update(f";{name};{len(files[name])};".encode())
        digest.update(files[name])
    return digest.hexdigest()


def _permutation(axes: Any) -> Permutation:
    if axes is None:
        return None
    if sorted(axes) != list(range(len(axes))):
        raise ValueError(f"{axes} is no order of axes")
    return tuple(axes)


def store_key(registry: Registry, content: str, route: Route, arrays: Arrays) -> str:
    """What must be equal for an entry to serve."""
    required = [Requirement(one).name for step in route.translators for one in step.requirements]
    parts = (
        content,
        route.names,
        [(array.shape[1:], array.dtype.str) for array in arrays],
        sys.version,
        sorted({(name, version_of(name)) for name in required}),
        sorted(plugin.label for plugin in registry.plugins),
    )
    return xxhash.xxh3_128_hexdigest(repr(parts).encode())


def keep_translations(folder: str | os.PathLike[str] | None) -> None:
    """From now on keeps conversions in a folder, so that a later process need not convert the same model again.

    A conversion from there is measured on the inputs of the call like a new one. Kept are conversions of models whose
    content can be read in full (torch modules that hold no objects of other kinds, Keras graphs of Keras' own layers
    and functions, ONNX models), and which became a model of the framework's own modules, layers and functions. Files
    hold no code; what was changed in them, or put there by somebody else, is not used. Nothing is ever removed from
    the folder.

    Args:
        folder: Made if it is not there; nobody else may write to it, or to a folder around it. None keeps no more. The
            environment variable `CFI_TRANSLATIONS` names one from the start.

    Raises:
        ArgumentError: The folder cannot be made, is a link, or others may write to it or put another in its place.
    """
    global _store
    _store = None if folder is None else Store(Path(folder))


def current_store() -> Store | None:
    """Where conversions are kept, if the user asked for it."""
    if isinstance(_store, str):
        keep_translations(_store or None)
    assert not isinstance(_store, str)
    return _store


_store: Store | str | None = os.environ.get("CFI_TRANSLATIONS", "")
