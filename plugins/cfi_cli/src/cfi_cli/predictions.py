"""What a model says of some samples, for the page: its largest outputs, by the names of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_cli.models import Loaded
from cfi_core.detection import load_original
from cfi_core.framework import flatten
from cfi_core.registry import registry

MOST = 5


@dataclass(frozen=True)
class Prediction:
    """One class of a sample.

    Attributes:
        index: Its place in the output.
        name: What it is called; empty where nobody knows.
        value: The output.
        probability: The output, or its softmax where the outputs are no probabilities.
    """

    index: int
    name: str
    value: float
    probability: float

    @property
    def label(self) -> str:
        """Name and index."""
        return f"{self.name} ({self.index})" if self.name else f"class {self.index}"


def predict(loaded: Loaded, inputs: Any, names: Sequence[str] | None = None) -> tuple[tuple[Prediction, ...], ...]:
    """The largest outputs of each sample, the largest first; empty for a model that is no classifier.

    Args:
        loaded: The model.
        inputs: As for `cfi.attribute`.
        names: Of the classes, where the model knows none.
    """
    original = load_original(registry(), loaded.model, inputs)
    if original.table is not None or not (arrays := _arrays(original, inputs)):
        return ()
    adapter, model = original.adapter, original.model
    outputs = flatten(adapter.outputs(adapter.twin(model), [adapter.tensor(array, model) for array in arrays]))
    scores = np.asarray(outputs[0], np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        return ()
    known = adapter.class_names(model) or names or ()
    named = known if len(known) == scores.shape[1] else ("",) * scores.shape[1]
    shares = scores if is_distribution(scores) else softmax(scores)
    return tuple(
        tuple(
            Prediction(int(i), named[i], float(row[i]), float(share[i])) for i in np.argsort(-row, kind="stable")[:MOST]
        )
        for row, share in zip(scores, shares, strict=True)
    )


def is_distribution(scores: np.ndarray) -> bool:
    """Whether each row is one of probabilities."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Of each row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _arrays(original: Any, inputs: Any) -> list[np.ndarray]:
    """The inputs in the order of the model, where all of them are arrays."""
    if isinstance(inputs, Mapping):
        inputs = [inputs[name] for name in original.names.every] if original.names else []
    given = inputs if isinstance(inputs, tuple | list) else [inputs]
    return list(given) if all(isinstance(one, np.ndarray) for one in given) else []
