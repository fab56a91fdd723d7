"""What of a model's outputs a call is about: the model is made to end there, so that nothing else of them matters.

A target that names one of several outputs makes the model end in that output: caches, losses and labels beside it are
neither checked nor carried. A target function, over a bridge, makes the model end in what the function gives: it runs
where the model runs, on the model's own tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from cfi_core.batches import run_apart
from cfi_core.boxes import is_detection
from cfi_core.checking.inputs import check_output
from cfi_core.checking.targets import Resolved
from cfi_core.contract import Target
from cfi_core.errors import CFIError, TargetError, summary
from cfi_core.framework import Pick, Several, flatten, is_structure, map_structure
from cfi_core.outputs import leaves_of, main_path
from cfi_core.records import Inputs, Original, Plan
from cfi_core.specs import BatchSize, Head, Role
from cfi_core.targets import NamedTarget, Values


@dataclass(frozen=True)
class Chain:
    """One end behind another."""

    first: Callable[[Any], Any]
    second: Callable[[Any], Any]

    def __call__(self, outputs: Any) -> Any:
        """Through both."""
        return self.second(self.first(outputs))


@dataclass(frozen=True, eq=False)
class Ended:
    """The user's model as the call goes on with it.

    Attributes:
        original: The model; the user's own where nothing was changed.
        outputs: What it gives.
        target: In these outputs.
        end: Where the user's model is to end when it is examined; None: where it does.
        examined: What it gives there.
        by_sample: Whether that belongs to each sample alone, as far as anybody but the user can tell.
    """

    original: Original
    outputs: Any
    target: Target | None
    end: Callable[[Any], Any] | None
    examined: Any
    by_sample: bool = True


def end_at_target(plan: Plan, original: Original, inputs: Inputs, outputs: Any, found: Resolved | None) -> Ended:
    """The model, ending in what the call is about, which is checked.

    Raises:
        InputError: That is no floating point number for each sample, or not finite.
        TargetError: A target function fails, or gives something else than one value for each sample; or the model
            cannot be made to end there.
    """
    if found is None:
        return _without_target(plan, original, inputs, outputs)
    if found.path:
        return _at_output(plan, original, inputs, outputs, found)
    if found.target.function is not None:
        return _at_function(plan, original, inputs, outputs, found.target)
    check_output(outputs, inputs)
    return Ended(original, outputs, found.target, None, outputs)


def _at_output(plan: Plan, original: Original, inputs: Inputs, outputs: Any, found: Resolved) -> Ended:
    end, target = Pick(found.path), found.target
    model = original.adapter.ended_by(original.model, end)
    if model is None:
        if len(found.path) > 1:
            raise TargetError(
                f"A model of {original.framework} cannot be made to end in its output {found.path}. Pass a function of "
                f"its outputs."
            )
        _check_all(outputs, inputs)
        return Ended(original, outputs, replace(target, output=found.path[0]), None, outputs)
    original, outputs = replace(original, model=model), end(outputs)
    if target.function is None:
        check_output(outputs, inputs)
        return Ended(original, outputs, target, end, outputs)
    made = _at_function(plan, original, inputs, outputs, target)
    return replace(made, end=end if made.end is None else Chain(end, made.end))


def _without_target(plan: Plan, original: Original, inputs: Inputs, outputs: Any) -> Ended:
    """All outputs, where all of them are scores of samples; otherwise those that are."""
    end = _end_of_scores(plan, inputs, outputs)
    model = None if end is None else original.adapter.ended_by(original.model, end)
    if end is None or model is None:
        _check_all(outputs, inputs)
        return Ended(original, outputs, None, None, outputs)
    return Ended(replace(original, model=model), end(outputs), None, end, end(outputs))


def _end_of_scores(plan: Plan, inputs: Inputs, outputs: Any) -> Pick | Several | None:
    """None where the outputs can stay as they are; a single score of the toolset's own is one of `logits`."""
    if not is_structure(outputs):
        return None
    scores, main = plan.arguments.of_role(Role.OWN_TARGET, plan.method), main_path(outputs, inputs.samples)
    leaves = leaves_of(outputs)
    fine = tuple(path for path, leaf in leaves if _is_fine(leaf, inputs))
    is_one = bool(scores) and not isinstance(scores[0], list | tuple) and len(leaves) > 1
    if len(fine) == len(leaves) and not (is_one and main == ("logits",)):
        return None
    return Pick(main) if main else Several(fine) if fine else None


def _at_function(plan: Plan, original: Original, inputs: Inputs, outputs: Any, target: Target) -> Ended:
    adapter, function = original.adapter, target.function
    assert function is not None
    leaves = leaves_of(outputs)
    # Of detections the first axis holds boxes, also where there happen to be as many as samples.
    fine = () if is_detection(outputs) else tuple(path for path, leaf in leaves if _is_fine(leaf, inputs))
    # A target that is another one for each sample stays apart, where it can be split (`cfi_core.holding`).
    stays = plan.route.native or (isinstance(function, NamedTarget) and function.samples > 1 and function.is_told)
    if stays and len(fine) == len(leaves) and not (_at_logits(plan) and not plan.route.native):
        _check_all(outputs, inputs)
        return Ended(original, outputs, target, None, outputs)
    cut = adapter.without_softmax(adapter.twin(original.model), inputs.passed) if _at_logits(plan) else None
    end = Values.of(function)
    model = adapter.ended_by(original.model if cut is None else cut, end)
    if model is None:
        _check_all(outputs, inputs)
        return Ended(original, outputs, target, None, outputs)
    values = _run(original, model, inputs, plan.arguments.batch_size)
    is_whole = len(fine) == len(leaves)
    made = Ended(original, outputs, target, None, outputs) if is_whole else _examined(original, outputs, target, fine)
    # Nobody but the user can tell which sample a value belongs to that a function makes of all of them.
    made = made or Ended(original, outputs, target, end, values, by_sample=False)
    if plan.route.bridge:
        place = "the model's output as it is" if cut is None else "the logit: the model's final softmax was left out"
        ended = replace(original, model=model, function=function, function_of=place)
        return replace(made, original=ended, outputs=values, target=Target())
    return made if plan.route.native or is_whole else _for_conversion(made, inputs, Several(fine))


def _examined(original: Original, outputs: Any, target: Target, fine: tuple[Any, ...]) -> Ended | None:
    """What is examined of a model whose outputs are not all scores of samples: those that are, if there are any."""
    end = Several(fine)
    return Ended(original, outputs, target, end, end(outputs)) if fine else None


def _for_conversion(made: Ended, inputs: Inputs, several: Several) -> Ended:
    """With those of the outputs that are scores of samples, which a conversion has."""
    original = made.original
    model = original.adapter.ended_by(original.model, several) if several.paths else None
    if model is None:
        raise TargetError(
            f"The target function takes outputs that cannot be converted (they are no floating point tensors with "
            f"the samples first). Use a toolset that a bridge leads to, or one of {original.framework}."
        )
    outputs = map_structure(lambda leaf: leaf if _is_fine(leaf, inputs) else None, made.outputs)
    return replace(made, original=replace(original, model=model), outputs=outputs)


def _at_logits(plan: Plan) -> bool:
    return plan.route.bridge and plan.arguments.head == Head.LOGIT


def _run(original: Original, model: Any, inputs: Inputs, batch_size: BatchSize) -> np.ndarray:
    """The values of a target function, checked."""
    adapter = original.adapter
    try:
        run = partial(adapter.outputs, adapter.twin(model))
        values = np.asarray(run_apart(adapter, run, inputs.passed, inputs.arrays, batch_size))
    except CFIError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise TargetError(
            f"The target function fails on the outputs of your model ({summary(error)}). It receives them as your "
            f"model gives them: {original.framework} tensors, in the model's own structure."
        ) from error
    if values.shape != (inputs.samples,):
        raise TargetError(
            f"The target function must return one value per sample ({inputs.samples} samples), but returned "
            f"{values.shape}. Reduce all axes but the first."
        )
    check_output(values, inputs)
    return values


def _check_all(outputs: Any, inputs: Inputs) -> None:
    for leaf in flatten(outputs):
        check_output(leaf, inputs)


def _is_fine(leaf: Any, inputs: Inputs) -> bool:
    """Whether these are scores of samples."""
    return bool(np.issubdtype(leaf.dtype, np.floating)) and leaf.shape[:1] == (inputs.samples,)
