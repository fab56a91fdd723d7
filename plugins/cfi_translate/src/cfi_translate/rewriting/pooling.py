"""A mean or maximum over all of space is global pooling."""

from __future__ import annotations

import numpy as np

from cfi_translate.program import Operation
from cfi_translate.rewriting.editor import ProgramEditor, operation
from cfi_translate.rewriting.matching import reduced_axes

_KINDS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def mean_to_pooling(reduction: Operation, editor: ProgramEditor) -> None:
    """A reduction over all axes behind the channels, which may drop them (`keepdims`).

    Over a single axis that stays, it is a statistic of a normalisation or a softmax rather than pooling.
    """
    kind, data = _KINDS.get(reduction.kind), reduction.input(0)
    if kind is None or data is None or data.shape is None or data.dtype != np.float32:
        return
    rank, keepdims = len(data.shape), reduction.attributes["keepdims"]
    is_pooling = rank in (4, 5) or (rank == 3 and reduction.kind == "ReduceMean" and not keepdims)
    if is_pooling and data.shape[1] is not None and reduced_axes(reduction) == tuple(range(2, rank)):
        editor.replace(reduction, operation(kind, reduction, [data], keepdims=keepdims))
