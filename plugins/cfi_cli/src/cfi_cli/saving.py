"""Translated models as files of their own framework: written, loaded again, and compared, before they are kept.

`.keras` and `.onnx` are loaded without running code of the file; `.pt2` (torch.export) needs `--trust`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.errors import FOREIGN, summary
from cfi_core.framework import flatten
from cfi_core.registry import registry

_APART = 1e-6  # relative, of what the file gives and what was written: the same arithmetic, in another order at most


@dataclass(frozen=True)
class Format:
    """How models of a framework are kept in files."""

    suffix: str
    write: Callable[[Any, Path, Sequence[Any]], None]
    read: Callable[[Path], Any]
    runs_code: bool = False


def save_model(model: Any, framework: str, path: Path, arrays: Sequence[np.ndarray]) -> str:
    """Writes a model, loads it again, and compares what it gives.

    Args:
        model: Of that framework.
        framework: Its name.
        path: Whose suffix must be that of the framework's files.
        arrays: Inputs, in the axes of the model.

    Returns:
        What has to be known to load it; empty if there is nothing.

    Raises:
        ArgumentError: The suffix is that of other files.
        TranslationError: It cannot be written, or what is loaded gives something else; then there is no file.
    """
    check_path(framework, path)
    kind, adapter = FORMATS[framework], adapter_for(registry(), framework)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        kind.write(model, part, [adapter.tensor(array, model) for array in arrays])
        expected, given = (_outputs(adapter, one, arrays) for one in (model, kind.read(part)))
        if not _same(expected, given):
            raise cfi.TranslationError(f"{path} would compute something else than the model, and was not written.")
        part.replace(path)
    except cfi.CFIError:
        raise
    except FOREIGN as error:
        raise cfi.TranslationError(
            f"The model cannot be written as {path} and loaded again ({summary(error)})."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return _told(model, path)


def check_path(framework: str, path: Path) -> None:
    """Refuses a path whose suffix is not that of the framework's files, before anything is translated.

    Raises:
        ArgumentError: It is not.
    """
    if framework not in FORMATS:
        raise cfi.ArgumentError(f"Models of {framework} cannot be written; those of {', '.join(FORMATS)} can.")
    if path.suffix.lower() != (suffix := FORMATS[framework].suffix):
        raise cfi.ArgumentError(f"-o {path}: models of {framework} are written to {suffix} files.")


def _told(model: Any, path: Path) -> str:
    own = {type(one).__module__ for one in getattr(model, "layers", ()) if type(one).__module__.startswith("cfi_")}
    if path.suffix == ".keras" and own:
        return f"to load it elsewhere, import {', '.join(sorted(own))} first"
    needs_trust = any(kind.runs_code and kind.suffix == path.suffix for kind in FORMATS.values())
    return "to load it, cfi needs --trust" if needs_trust else ""


def _outputs(adapter: Any, model: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    loaded = adapter.load(model)
    return flatten(adapter.outputs(adapter.twin(loaded), [adapter.tensor(array, loaded) for array in arrays]))


def _same(expected: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> bool:
    if [one.shape for one in expected] != [one.shape for one in given]:
        return False
    sizes = [max(float(np.abs(one).max(initial=0)), 1e-30) for one in expected]
    return all(
        np.allclose(one, other, rtol=0, atol=_APART * size, equal_nan=True)
        for one, other, size in zip(expected, given, sizes, strict=True)
    )


def _write_keras(model: Any, path: Path, tensors: Sequence[Any]) -> None:
    model.save(path)


def _read_keras(path: Path) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _write_torch(model: Any, path: Path, tensors: Sequence[Any]) -> None:
    """For any number of samples, where torch can tell that the model takes any."""
    import torch

    several = tuple(
        torch.cat([one, one]) if len(one) == 1 else one for one in tensors
    )  # of one sample, it would hold one
    sizes = tuple({0: torch.export.Dim.AUTO} for _ in several)
    torch.export.save(torch.export.export(model.eval(), several, dynamic_shapes=sizes), path)


def _read_torch(path: Path) -> Any:
    import torch

    return torch.export.load(path).module()


def _write_onnx(model: Any, path: Path, tensors: Sequence[Any]) -> None:
    import onnx

    onnx.save(getattr(model, "proto", model), path)


FORMATS: Mapping[str, Format] = {
    "tensorflow": Format(".keras", _write_keras, _read_keras),
    "torch": Format(".pt2", _write_torch, _read_torch, runs_code=True),
    "onnx": Format(".onnx", _write_onnx, str),
}
