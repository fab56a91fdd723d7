"""What a writer leaves in a folder: one file, which holds the attribution."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.attribution import Attribution, Outlets
from cfi_core.registry import registry
from cfi_core.testing.conformance.plotter import DRAWN, made_up
from cfi_core.testing.conformance.samples import raises
from cfi_core.testing.conformance.traces import keep_process


class WriterConformance:
    """A writer, on attributions that are made up.

    Attributes:
        suffix: Of the files that it writes.
        forms: Which of `cfi_core.testing.conformance.plotter.DRAWN` it writes.
    """

    suffix: ClassVar[str]
    forms: ClassVar[tuple[str, ...]] = tuple(DRAWN)

    def read(self, path: Path) -> tuple[np.ndarray, ...] | None:
        """The values that a file holds, read without the plugin; None for pictures, which hold none."""
        return None

    def attributions(self) -> list[Attribution]:
        """What it is tested on: by default made-up ones of each form."""
        return [made_up(form) for form in self.forms]

    def write(self, attribution: Attribution, folder: str) -> Path:
        """Writes a file into the folder, as users do."""
        known = registry().writers
        assert self.suffix in known, f"no plugin writes {self.suffix!r} files; there are {sorted(known)}"
        object.__setattr__(attribution, "outlets", Outlets(registry().plotters, known))
        return attribution.save(Path(folder, f"one{self.suffix}"))

    def test_it_writes_one_file_that_holds_the_values(self) -> None:
        """To the last bit, where the format holds values; and nothing beside it."""
        for attribution in self.attributions():
            with TemporaryDirectory() as folder:
                path = self.write(attribution, folder)
                assert [*Path(folder).iterdir()] == [path] and path.stat().st_size > 0
                read = self.read(path)
            for found, (values, dims) in zip(read or (), attribution.parts if read else (), strict=True):
                np.testing.assert_array_equal(found, values, err_msg=f"{self.suffix}, axes {dims}")

    def test_a_second_file_is_like_the_first_and_takes_its_place(self) -> None:
        """To the last byte."""
        for attribution in self.attributions():
            with TemporaryDirectory() as folder:
                first, second = (self.write(attribution, folder).read_bytes() for _ in range(2))
            assert first == second, f"{self.suffix} files of one attribution differ"

    def test_it_leaves_everything_as_it_was(self) -> None:
        """The attribution and the process."""
        for attribution in self.attributions():
            before = [values.copy() for values, _ in attribution.parts]
            with TemporaryDirectory() as folder:
                self.write(attribution, folder)
                with keep_process(f"the writer of {self.suffix}"):
                    self.write(attribution, folder)
            for (values, _), expected in zip(attribution.parts, before, strict=True):
                np.testing.assert_array_equal(values, expected, err_msg=f"writing {self.suffix} changed the values")

    def test_an_unknown_option_is_refused(self) -> None:
        """With an error of CFI's, and without a file: a slip of the pen must not be overlooked."""
        known = registry().writers
        attribution = self.attributions()[0]
        object.__setattr__(attribution, "outlets", Outlets(registry().plotters, known))
        with TemporaryDirectory() as folder:
            with raises(cfi.CFIError, f"the writer of {self.suffix}, given an option that it does not have,"):
                attribution.save(Path(folder, f"one{self.suffix}"), no_option_of_this_name=1)
            assert not [*Path(folder).iterdir()], f"the writer of {self.suffix} leaves a file when it refuses an option"

    def test_a_folder_that_is_not_there_is_told(self) -> None:
        """As Python tells it."""
        with TemporaryDirectory() as folder, raises(OSError, f"the writer of {self.suffix}"):
            self.write(self.attributions()[0], f"{folder}/none")
