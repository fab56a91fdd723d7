"""What the user's model predicts for the samples of a call: a class each, with its name where the model knows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfi_core.records import Call


def predict(call: Call) -> tuple[dict[str, Any], ...] | None:
    """The class with the largest value of the explained output, for each sample.

    None where the output is not one value for each of several classes: a regression, a single score, pixels, tokens.

    Returns:
        For each sample `class` (its index), `name` (None: the model knows none), `value`, and `kind`: `"probability"`
        where the values of every sample are non-negative and sum to one, else `"output"`, the number as the model
        gives it. No softmax is applied that the model has not.
    """
    if call.original.function is not None or not call.output_arrays:
        return None
    scores = np.asarray(call.output_arrays[call.output])
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        return None
    names = call.original.adapter.class_names(call.original.model)
    known = names if names is not None and len(names) == scores.shape[1] else None
    kind = "probability" if _are_probabilities(scores) else "output"
    return tuple(
        {
            "class": int(best),
            "name": None if known is None else str(known[best]),
            "value": float(row[best]),
            "kind": kind,
        }
        for row, best in zip(scores, scores.argmax(1), strict=True)
    )


def _are_probabilities(scores: np.ndarray) -> bool:
    return scores.min() >= 0 and np.allclose(scores.sum(1, dtype=np.float64), 1, atol=1e-3)
