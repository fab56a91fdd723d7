"""Step 4 of a call whose question is known: another batch of the same kind, of the same unchanged model.

What a batch can have wrong by itself is looked at (types, shapes, target, baselines, what is like the inputs). What was
found of the model (whether it is a function of each sample, its layers, where it ends) is known from a batch before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.checking import check_like, draw_seed, sort_arguments
from cfi_core.checking.forecast import Forecast
from cfi_core.checking.inputs import read_inputs
from cfi_core.checking.targets import PREDICTED, resolve_target
from cfi_core.features import name_features
from cfi_core.framework import map_structure
from cfi_core.records import Arguments, Call, Inputs
from cfi_core.registry import Registry


def is_plain(call: Call) -> bool:
    """Whether other batches can be checked by what this call found.

    Not so where something is made of the inputs themselves (names, tables, tokens, held values, a model in another
    precision, a target function that is part of the model), and where the model is no function of each sample alone.
    """
    plan, original, purity = call.plan, call.original, call.purity
    made = original.names or original.table or original.coded or original.embedding or original.function is not None
    special = made or plan.arguments.unpacked or call.users or call.precision or plan.embeddings
    is_function = purity.by_sample and not purity.writes and not purity.warning
    floats = all(array.dtype.kind == "f" for array in call.inputs.arrays)
    alone = call.target is None or call.target.function is None
    found = call.named is None or len(call.named) == 1
    rows = all(array.shape[:1] == (call.inputs.samples,) for array in call.output_arrays)
    return not special and is_function and floats and alone and found and rows and not call.inputs.held


def check_batch(registry: Registry, known: Call, arguments: Arguments, forecast: Forecast) -> Call | None:
    """The call for another batch; None if that is of another kind, and has to be checked in full.

    Outputs are not known (NaN), but where the target is made of them: then the forecast tells them.

    Raises:
        ArgumentError: Inputs, target, baselines or own arguments do not fit.
    """
    plan = replace(known.plan, arguments=_sort(known, arguments))
    if plan.explains_target != known.plan.explains_target or callable(plan.arguments.target):
        return None
    inputs = read_inputs(registry, known.original, plan.arguments.inputs)
    if _kind(inputs) != _kind(known.inputs) or not all(np.isfinite(array).all() for array in inputs.arrays):
        return None
    outputs = _outputs(known, inputs)
    if _names_prediction(plan.arguments.target):
        outputs = forecast.outputs(inputs, plan.arguments.batch_size)
    found = (
        resolve_target(registry, known.original, plan.arguments.target, outputs, inputs.samples)
        if plan.explains_target
        else None
    )
    if found is not None and (found.path or found.target.function is not None):
        return None
    check_like(registry, plan, inputs)
    return replace(
        known,
        plan=plan,
        inputs=inputs,
        outputs=outputs,
        target=found.target if found else None,
        named=(found.target,) if found else None,
        words=found.words if found else "",
        layer_shapes=_layer_shapes(known, inputs),
        seed=draw_seed() if arguments.seed is None else arguments.seed,
        seconds=perf_counter() - arguments.started,
        features=name_features(known.original, plan.arguments.inputs, plan.arguments.feature_names, inputs.arrays),
        in_full=False,
    )


def _sort(known: Call, arguments: Arguments) -> Arguments:
    """The arguments in the uniform words, for the model of the known call."""
    sorted_ = sort_arguments(arguments, known.plan.method)
    return replace(sorted_, model=known.plan.arguments.model, called=known.plan.arguments.called)


def _kind(inputs: Inputs) -> list[Any]:
    return [(array.shape[1:], array.dtype) for array in inputs.arrays]


def _outputs(known: Call, inputs: Inputs) -> Any:
    """What the model gives for so many samples, as far as shapes and types tell."""
    return map_structure(lambda one: np.full((inputs.samples, *one.shape[1:]), np.nan, one.dtype), known.outputs)


def _names_prediction(target: Any) -> bool:
    if isinstance(target, np.ndarray):
        return target.dtype.kind in "UO"
    if isinstance(target, list | tuple):
        return any(map(_names_prediction, target))
    return isinstance(target, str) and target == PREDICTED


def _layer_shapes(known: Call, inputs: Inputs) -> Mapping[str, tuple[int, ...]]:
    """Those of the known call, with as many rows for each sample."""
    count = known.inputs.samples
    return MappingProxyType(
        {name: (shape[0] * inputs.samples // count, *shape[1:]) for name, shape in known.layer_shapes.items()}
    )
