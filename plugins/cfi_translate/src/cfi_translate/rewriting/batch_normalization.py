"""A factor for each channel, with a summand before or behind it where there is one, is a batch normalisation.

Exporters of TensorFlow write it so; rules and layer maps want the layer back.
"""

from __future__ import annotations

import numpy as np

from cfi_translate.program import Operation, Value, constant
from cfi_translate.rewriting.editor import ProgramEditor, operation
from cfi_translate.rewriting.matching import per_channel


def scale_to_batch_normalization(first: Operation, editor: ProgramEditor) -> None:
    """`x · a + b`, `(x + b) · a` or `x · a`."""
    scale, shift = per_channel(first, "Mul", "Div"), per_channel(first, "Add", "Sub")
    if scale is not None:
        follower = editor.only_user(first.output, "Add", "Sub")
        behind = per_channel(follower, "Add", "Sub")
        if follower is not None and behind is not None and behind[0] is first.output:
            _replace(follower, scale[0], scale[1], behind[1], editor)
        else:
            _replace(first, scale[0], scale[1], np.zeros_like(scale[1]), editor)
    elif shift is not None:
        follower = editor.only_user(first.output, "Mul", "Div")
        behind = per_channel(follower, "Mul", "Div")
        if follower is not None and behind is not None and behind[0] is first.output:
            _replace(follower, shift[0], behind[1], shift[1] * behind[1], editor)


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
