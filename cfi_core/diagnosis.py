"""Why a step failed that had no reason to: what can be asked of the user's model once something has failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from cfi_core.errors import CFIError, MethodError, NoGradientError, TargetError, TranslationError
from cfi_core.records import Call
from cfi_core.specs import Need

_GRADIENTS = frozenset({Need.INPUT_GRADIENT, Need.LAYER_GRADIENT, Need.MODULES})


@contextmanager
def tell_what_is_missing(call: Call) -> Iterator[None]:
    """Replaces the error of a step by one that says what the model lacks, where that is why the step failed.

    Raises:
        NoGradientError: The method differentiates, and the model has no gradient there.
        MethodError: The model takes exactly the number of samples that it was given.
    """
    try:
        yield
    except (MethodError, TargetError, TranslationError) as error:
        found = None
        with suppress(Exception):  # of the user's model: then its first error stands
            found = _missing_gradient(call) or _one_number_of_samples(call, error)
        if found is None:
            raise
        raise found from error


def _missing_gradient(call: Call) -> CFIError | None:
    adapter, method = call.original.adapter, call.plan.method
    if not _GRADIENTS & method.needs:
        return None
    twin = adapter.twin(call.original.model)
    layers = call.plan.layers if Need.INPUT_GRADIENT not in method.needs else ()
    lost = adapter.missing_gradient(twin, call.inputs.passed, layers)
    if not lost:
        return None
    where = f"layer {', '.join(map(repr, layers))}" if layers else "its inputs"
    return NoGradientError(
        f"No gradient leads from the model's outputs to {where}, and {method.key} needs one: {lost}. Use a method that "
        f"only runs the model, such as feature_ablation, occlusion, lime, kernel_shap or shapley_value_sampling."
    )


def _one_number_of_samples(call: Call, error: Exception) -> CFIError | None:
    count = call.inputs.samples
    if not call.inputs.given or _failure(call, count) is not None:
        return None
    refusal = _failure(call, count + 1)
    if refusal is None or not _said(refusal) & _said(error):
        return None
    return MethodError(
        f"The model takes exactly {count} samples, as something in it was built for that number (by tracing or "
        f"exporting it, or in its code), and {call.plan.method.key} runs it on others. Make the model anew with a free "
        f"number of samples (the exporter's dynamic shapes; in code, sizes taken from the input), or choose a method "
        f"that runs it on these samples alone, such as saliency or occlusion."
    )


def _failure(call: Call, count: int) -> Exception | None:
    """How the model fails on that many samples, if it does."""
    adapter, model = call.original.adapter, call.original.model
    tensors: list[Any] = []
    for array in (*call.inputs.arrays, *call.inputs.held_arrays):
        has_samples = array.shape[:1] == (call.inputs.samples,)
        rows = np.resize(array, (count, *array.shape[1:])) if has_samples else array
        tensors.append(adapter.tensor(rows, model))
    try:
        adapter.outputs(adapter.twin(model), tensors)
    except Exception as error:  # noqa: BLE001 - the user's model may refuse in any way
        return error
    return None


def _said(error: BaseException | None) -> set[tuple[type, str]]:
    """What an error and its causes say, without numbers: a model says the same of whatever number of samples."""
    said = set()
    while error is not None:
        said.add((type(error), re.sub(r"\d+", "…", str(error))))
        error = error.__cause__
    return said
