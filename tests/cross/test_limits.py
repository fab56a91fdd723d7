"""What two plugins bound by one environment variable, they bound alike."""

from __future__ import annotations

from cfi_core.framework import Limit
from cfi_onnx import limits as of_files
from cfi_translate import limits as of_converters


def test_one_variable_has_one_default():
    files, converters = (
        {one.variable: one for one in vars(module).values() if isinstance(one, Limit)}
        for module in (of_files, of_converters)
    )
    assert len(converters) == 4
    assert {name: files[name] for name in converters} == converters
