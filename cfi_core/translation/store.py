"""Conversions on disk, for later processes: only where the user asks for it.

An entry is a folder with the converted model, as its framework saves models, and what core knows of it. Its name is a
hash of all that it was made of: the content of the original, the translators, shapes and types of the inputs, and the
versions of everything involved. Nothing read from there is believed: certificate and layer map are measured anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
from pathlib import Path

import xxhash
from packaging.requirements import Requirement

from cfi_core.contract import Converted
from cfi_core.errors import ArgumentError, TranslationWarning, warn
from cfi_core.framework.axes import Arrays
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.records import Route
from cfi_core.registry import Registry
from cfi_core.requirements import version_of

_NOTES, _MODEL = "translation.json", "model"


class Store:
    """Conversions in the files of one folder, which nobody else may write to: models of torch are kept as pickles."""

    def __init__(self, folder: Path) -> None:
        try:
            folder = folder.expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (OSError, RuntimeError, ValueError) as error:
            raise ArgumentError(f"{folder} cannot be a folder of translations: {error}.") from error
        if sys.platform != "win32":
            status = folder.stat()
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ArgumentError(
                    f"{folder} cannot be a folder of translations: others may write to it, and whoever can write a "
                    f"model there can run code in your processes. Choose a folder of your own (chmod go-w {folder})."
                )
        self.folder = folder

    def get(self, key: str, adapter: FrameworkAdapter) -> Converted | None:
        """The entry, if there is one that can be read."""
        try:
            notes = json.loads((self.folder / key / _NOTES).read_text())
            model = adapter.restore(self.folder / key / _MODEL)
            return Converted(model, notes["input_axes"], notes["output_axes"])
        except Exception:  # noqa: BLE001 - files may be damaged in any way, or not there; the model is converted anew
            return None

    def put(self, key: str, adapter: FrameworkAdapter, made: Converted) -> None:
        """Writes an entry, whole or not at all; warns if it cannot be written."""
        if not adapter.can_save:
            return
        notes = {"input_axes": made.input_axes, "output_axes": made.output_axes}
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as folder:
                entry = Path(folder) / key
                entry.mkdir()
                adapter.save(made.model, entry / _MODEL)
                (entry / _NOTES).write_text(json.dumps(notes, indent=1))
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / key).replace(Path(folder) / "former")
                try:
                    entry.rename(self.folder / key)
                except OSError:
                    if not (self.folder / key).is_dir():  # otherwise another process was quicker
                        raise
        except Exception as error:  # noqa: BLE001 - disks fill up, and a model may refuse to be saved in any way
            warn(
                f"The conversion could not be kept in {self.folder} ({type(error).__name__}: {error}). Free the disk, "
                f"choose another folder, or stop with cfi.keep_translations(None).",
                TranslationWarning,
            )


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
    and functions, ONNX models). Nothing is ever removed from the folder.

    Args:
        folder: Made if it is not there; nobody else may write to it. None keeps no more. The environment variable
            `CFI_TRANSLATIONS` names one from the start.

    Raises:
        ArgumentError: The folder cannot be made, or others may write to it.
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
