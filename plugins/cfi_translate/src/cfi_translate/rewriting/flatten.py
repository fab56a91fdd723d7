"""Joining all axes behind the samples is Flatten."""

from __future__ import annotations

from math import prod

from cfi_translate.program import Operation
from cfi_translate.rewriting.editor import ProgramEditor, operation


def reshape_to_flatten(reshape: Operation, editor: ProgramEditor) -> None:
    """A Reshape (or Squeeze) from any number of samples to the same number of rows."""
    if reshape.kind not in ("Reshape", "Squeeze"):
        return
    source, target = reshape.inputs[0], reshape.output.shape
    if source is None or source.shape is None or target is None:
        return
    sizes = [size for size in source.shape[1:] if size is not None]
    is_free = source.shape[:1] == (None,) and len(sizes) == len(source.shape) - 1 > 0
    if is_free and target == (None, prod(sizes)) and 0 not in sizes:
        editor.replace(reshape, operation("Flatten", reshape, [source], axis=1))
