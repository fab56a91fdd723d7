"""Files of models: they give the model back, and those from strangers are refused before they do anything."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.detection import load_original
from cfi_core.framework import flatten
from cfi_core.registry import registry
from cfi_core.specs import ModelFormat
from cfi_core.testing.conformance.samples import SampleConformance

_STATUS, _MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def assert_refused(
    path: Any, *, weights: Any = None, trust: bool = False, seconds: float = 2.0, mebibytes: int = 500
) -> cfi.ModelFileError:
    """Fails unless `cfi.load_model` refuses the file by a `ModelFileError`, and soon.

    Args:
        path: As `cfi.load_model` takes it.
        weights: Likewise.
        trust: Likewise.
        seconds: Of computing that it may take.
        mebibytes: That it may take above what the process holds, where the system tells (Linux).

    Returns:
        The error.
    """
    before, begun = _mebibytes("VmRSS", anew=True), time.process_time()
    try:
        found = cfi.load_model(path, weights=weights, trust=trust)
    except cfi.ModelFileError as error:
        took, held = time.process_time() - begun, _mebibytes("VmHWM") - before
        assert took <= seconds, f"refusing {str(path)[:80]!r} took {took:.1f} seconds of computing"
        assert held <= mebibytes, f"refusing {str(path)[:80]!r} took {held} mebibytes"
        return error
    raise AssertionError(f"{str(path)[:80]!r} is read, and gives {type(found).__name__}")


def _mebibytes(name: str, *, anew: bool = False) -> int:
    """What Linux says that this process holds, or has held at most; 0 elsewhere."""
    try:
        if anew:
            _MARK.write_text("5")  # begins the highest mark anew
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:")), 0)


class ModelFileConformance(SampleConformance):
    """A format of models that a framework declares (`cfi_core.specs.ModelFormat`), on a small model.

    Attributes:
        framework: The framework's name.
        format: The format's name.
        suffix: Of the files that are written, as they are usually called.
    """

    framework: ClassVar[str]
    format: ClassVar[str]
    suffix: ClassVar[str]

    def write(self, model: Any, path: Path) -> None:
        """Writes the model to a file (or folder) of that format."""
        raise NotImplementedError

    def test_its_files_give_the_model_back(self) -> None:
        """With the same outputs, to the last bit; where code could run, for those alone who trust it."""
        inputs = self.make_inputs()
        with TemporaryDirectory() as folder:
            model, path = self._written(folder)
            if self._declared().runs_code:
                assert isinstance(assert_refused(path), cfi.UntrustedFileError), "the error says not what to trust"
                found = cfi.load_model(path, trust=True)
            else:
                found = cfi.load_model(path)
            for one, other in zip(self._outputs(found, inputs), self._outputs(model, inputs), strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{self.format}: another model")

    def test_files_that_end_too_soon_are_refused(self) -> None:
        """By a typed error, trusted or not."""
        with TemporaryDirectory() as folder:
            _, path = self._written(folder)
            if path.is_dir():
                return
            whole = path.read_bytes()
            for part in (0, 1, 9, len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10):
                path.write_bytes(whole[:part])
                assert_refused(path)
                assert_refused(path, trust=True)

    def test_its_files_are_known_by_what_they_hold(self) -> None:
        """Without a suffix too, if the format says how files begin or what is in them."""
        declared = self._declared()
        if not declared.begins and not declared.members:
            return
        with TemporaryDirectory() as folder:
            _, path = self._written(folder)
            path = path.rename(path.with_suffix(""))
            cfi.load_model(path, trust=bool(declared.runs_code))

    def _written(self, folder: str) -> tuple[Any, Path]:
        model, path = self.make_model(), Path(folder, f"model{self.suffix}")
        self.write(model, path)
        return model, path

    def _declared(self) -> ModelFormat:
        formats = {one.name: one for one in registry().frameworks[self.framework].formats}
        assert self.format in formats, f"{self.framework} declares no {self.format!r}; there are {sorted(formats)}"
        return formats[self.format]

    def _outputs(self, model: Any, inputs: np.ndarray) -> list[np.ndarray]:
        original = load_original(registry(), model, inputs)
        adapter = adapter_for(registry(), original.framework)
        return flatten(adapter.outputs(original.model, (adapter.tensor(inputs, original.model),)))
