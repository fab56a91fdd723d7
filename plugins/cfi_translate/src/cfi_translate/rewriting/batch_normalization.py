"""A factor for each channel, with a summand before or behind it where there is one, is a batch normalisation.

Exporters of TensorFlow write it so; rules and layer maps want the layer back.
"""

from __future__ import annotations

import numpy as np

from cfi_translate.program import Operation, Value, constant
from cfi_translate.rewriting.editor import ProgramEditor, operation
from cfi_translate.rewriting.matching import per_channel


def scale_to_batch_normalization(factor: Operation, editor: ProgramEditor) -> None:
    """`x · a + b`, `(x + b) · a` or `x · a`."""
    scale = per_channel(factor, "Mul", "Div")
    if scale is None:
        return
    data, scales = scale
    behind, before = editor.only_user(factor.output, "Add", "Sub"), editor.maker(data, "Add", "Sub")
    shift = per_channel(behind, "Add", "Sub")
    if behind is not None and shift is not None and shift[0] is factor.output:
        _replace(behind, data, scales, shift[1], editor)
        return
    shift = per_channel(before, "Add", "Sub")
    if before is not None and shift is not None and editor.only_within([before], factor):
        _replace(factor, shift[0], scales, shift[1] * scales, editor)
        return
    _replace(factor, data, scales, np.zeros_like(scales), editor)


def shift_to_batch_normalization(shift: Operation, editor: ProgramEditor) -> None:
    """`x + b`, for readers that have no other layer for it."""
    found = per_channel(shift, "Add", "Sub")
    if found is not None:
        _replace(shift, found[0], np.ones_like(found[1]), found[1], editor)


def _replace(last: Operation, data: Value, scale: np.ndarray, shift: np.ndarray, editor: ProgramEditor) -> None:
    if scale.size < 2:
        return  # one number for all is no normalisation
    parts = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "variance": np.ones_like(scale)}
    inputs = [data, *(constant(f"{last.name}.{name}", array) for name, array in parts.items())]
    editor.replace(last, operation("BatchNormalization", last, inputs, epsilon=0.0))
