"""Activation maximization: inputs that raise a class score, a layer's channel or a single neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import ArgumentError, LayerError, TargetError
from cfi_core.progress import steps as expect
from cfi_tfkerasvis.describe import describe
from cfi_tfkerasvis.model import check_inputs, declared_inputs, prepare
from cfi_tfkerasvis.plugin import FITTED, KEEP_STEPS, WORKAROUNDS
from cfi_tfkerasvis.scores import SampleScore, check_dependence, neuron_score, own_samples, own_scores, target_score
from cfi_tfkerasvis.settings import settings
from cfi_tfkerasvis.workarounds import (
    ActivationMaximization,
    Callback,
    Jitter,
    Norm,
    Rotate2D,
    TotalVariation2D,
    fresh_optimizer,
    own_names,
    seeded_modifiers,
)

Range = tuple[float | None, float | None]

MODIFIERS = (Jitter(jitter=4), Rotate2D(degree=1))
REGULARIZERS = (TotalVariation2D(weight=1.0), Norm(weight=0.3, p=1))
"""Those that tf-keras-vis's signature has, for one input, which is an image."""

LIBRARY_WIDTH = 255.0
"""Width of the input range that tf-keras-vis's default step is made for (VGG16 on 0…255)."""


def maximize(request: MethodRequest) -> MethodResult:
    """Runs tf-keras-vis's `ActivationMaximization` for a target, a layer's channel or a neuron.

    Settings that are `FITTED` are tf-keras-vis's, which are made for images of 0…255: the optimizer's step is carried
    to the width of `input_range`, and what fits only images is left out for other inputs. Without `inputs`, and with
    `workarounds`, one input is made for each target, from uniform noise drawn from the request's seed; tf-keras-vis
    itself makes one input whatever the targets, and starts from zeros in a range that has a low bound of 0 alone.

    Raises:
        ArgumentError: `input_range` is missing, or the model does not say how large its inputs are.
        TargetError: Nothing, or more than one thing, says what to maximise.
    """
    own = dict(request.exec_args)
    seed_input = own.pop("seed_input", None)
    declared = declared_inputs(request.model)
    ranges = _ranges(own, len(declared))
    reads_layer = _what(request)
    inputs, origin = _seeds(request, seed_input, declared, ranges)
    samples = check_inputs(declared, inputs)
    training = bool(own.get("training", False))
    layer = request.layer[0] if reads_layer else None
    prepared = prepare(request, layer=layer, probe=inputs, training=training, up_to_layer=reads_layer)
    scores = _scores(request, samples, len(prepared.model.outputs), prepared.layer)
    arguments = _arguments(own, prepared.model, ranges, request)

    tool = ActivationMaximization(prepared.model, model_modifier=list(prepared.modifiers), clone=False)
    check_dependence(tool.model, inputs, scores)
    kept = _Kept(request.init_args.get(KEEP_STEPS) or 0, arguments["steps"], inputs)
    expect(int(arguments["steps"]), "steps", share=samples)
    callbacks = [*tf.nest.flatten(arguments["callbacks"] or []), kept]
    raw = tool(score=list(scores), seed_input=list(inputs), **{**arguments, "callbacks": callbacks})
    values = tuple(np.asarray(value) for value in (raw if isinstance(raw, list | tuple) else [raw]))
    applied = dict(prepared.applied) | {name: describe(value) for name, value in arguments.items()}
    applied["score"] = describe(own["score"]) if "score" in own else ("neuron" if reads_layer else "target")
    applied["seed_input"] = origin
    applied[WORKAROUNDS] = bool(request.init_args[WORKAROUNDS])
    extras = {
        "scores": _evaluate(tool.model, scores, values),
        "initial_scores": _evaluate(tool.model, scores, inputs),
    }
    if kept.steps:
        extras["step_scores"] = np.array([_evaluate(tool.model, scores, images) for images in kept.steps.values()])
    return MethodResult(values=values, axes=Axes.INPUT, extras=extras, applied=applied, steps=kept.steps)


class _Kept(Callback):
    """Keeps some of the images on the way: where it starts, and so many steps behind, evenly spaced up to the last.

    Raises:
        ArgumentError: The number is none, or more than there are steps.
    """

    def __init__(self, number: int, steps: int, start: Sequence[Any]) -> None:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number <= steps:
            raise ArgumentError(f"`{KEEP_STEPS}` must be a number from 0 to the {steps} `steps`, got {number!r}")
        self.wanted = {int(one) for one in np.linspace(steps, 0, number, endpoint=False).round()}
        self.steps = {0: tuple(np.asarray(value) for value in start)} if number else {}

    def __call__(self, i: int, values: Sequence[Any], *_: Any, **__: Any) -> None:
        if i + 1 in self.wanted:
            self.steps[i + 1] = tuple(np.array(value) for value in values)


def _what(request: MethodRequest) -> bool:
    """Whether a layer's activation is maximised; the model's output otherwise."""
    output = request.target is not None or "score" in request.exec_args
    if request.target is not None and "score" in request.exec_args:
        raise TargetError("both `target` and `score` say what is maximised; give one of them")
    if request.neuron is not None and not request.layer:
        raise LayerError("`neuron` needs the `layer` that it is a neuron of")
    if request.layer and output:
        raise TargetError("both the output and a layer are to be maximised; give `target`, or `layer` and `neuron`")
    if len(request.layer) > 1:
        raise LayerError(f"activation_maximization takes one layer, got {len(request.layer)}; call it once for each")
    if request.layer and request.neuron is None:
        raise ArgumentError(
            "`layer` needs `neuron`: a channel (c,), a unit (indices of all axes after the first), or a function of "
            "the layer's output"
        )
    return bool(request.layer)


def _scores(request: MethodRequest, samples: int, outputs: int, layer: Any) -> list[SampleScore]:
    if layer is not None:
        axis = request.layer_channel_axis
        return [neuron_score(request.neuron, samples, -1 if axis is None else axis)]
    if "score" in request.exec_args:
        return own_scores(request.exec_args["score"], samples, outputs)
    return [target_score(request.target, samples)]


# where it starts


def _ranges(own: dict[str, Any], inputs: int) -> tuple[Range, ...]:
    """The range of each input, from the user's `input_range`, which is taken out of the arguments."""
    if "input_range" not in own:
        raise ArgumentError(
            "activation_maximization needs exec_args={'input_range': (low, high)}, the values that the model's inputs "
            "take (tf-keras-vis would assume 0…255); None means unlimited"
        )
    given = own.pop("input_range")
    entries = list(given) if isinstance(given, list) else [given]
    if len(entries) == 1:
        entries *= inputs
    if len(entries) != inputs:
        raise ArgumentError(
            f"`input_range` holds {len(entries)} ranges for {inputs} inputs; give one, or a list of one each"
        )
    return tuple(_range(entry) for entry in entries)


def _range(entry: Any) -> Range:
    if entry is None:
        return (None, None)
    try:
        low, high = (None if bound is None else float(bound) for bound in entry)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"`input_range` holds {entry!r}; give (low, high), or None for unlimited") from error
    if low is not None and high is not None and not low < high:
        raise ArgumentError(f"`input_range` ({low}, {high}) is empty; low must be below high")
    return (low, high)


def _seeds(
    request: MethodRequest, seed_input: Any, declared: Sequence[Any], ranges: Sequence[Range]
) -> tuple[tuple[Any, ...], str]:
    """What the optimisation starts from, and in words where that came from."""
    if request.inputs:
        return tuple(request.inputs), "given"
    if seed_input is not None:
        values = seed_input if isinstance(seed_input, list | tuple) else [seed_input]
        return tuple(tf.convert_to_tensor(value) for value in values), "given"
    for position, tensor in enumerate(declared):
        if None in tuple(tensor.shape)[1:]:
            raise ArgumentError(
                f"input {position} of the model has the open shape {tuple(tensor.shape)}; give `inputs` to start from, "
                "of the size that the result is to have"
            )
    if not request.init_args[WORKAROUNDS]:
        drawn = ActivationMaximization(request.model)._get_seed_inputs(None, list(ranges))
        return tuple(drawn), f"tf-keras-vis's own uniform noise, seed {request.seed}"
    generator = np.random.default_rng(request.seed)
    seeds = []
    for tensor, bounds in zip(declared, ranges, strict=True):
        shape = tuple(tensor.shape)[1:]
        low, high = _noise(bounds)
        noise = generator.uniform(low, high, (_samples(request), *shape))
        seeds.append(tf.convert_to_tensor(noise.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype)))
    return tuple(seeds), f"uniform noise over {[_noise(bounds) for bounds in ranges]}, seed {request.seed}"


def _samples(request: MethodRequest) -> int:
    if request.target is not None and request.target.per_sample:
        return len(request.target.index or ())
    if "score" in request.exec_args:
        return own_samples(request.exec_args["score"])
    return 1


def _noise(bounds: Range) -> tuple[float, float]:
    low, high = bounds
    if low is None:
        return (0.0, 1.0) if high is None else (high - 1.0, high)
    return (low, low + 1.0 if high is None else high)


# how it goes on


def _arguments(own: Mapping[str, Any], model: Any, ranges: Sequence[Range], request: MethodRequest) -> dict[str, Any]:
    """Every argument of the call but score and seed input, so that all of them can be recorded."""
    arguments = settings(ActivationMaximization, own, ("score", "seed_input", "input_range"))
    steps = arguments["steps"]
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ArgumentError(f"`steps` must be a number of 1 or more, got {steps!r}")
    inputs = {tensor.name: tensor for tensor in model.inputs}
    arguments["input_modifiers"] = _modifiers(arguments["input_modifiers"], inputs, request.neuron)
    arguments["regularizers"] = _regularizers(arguments["regularizers"], inputs)
    for name in ("input_modifiers", "regularizers", "activation_modifiers"):
        _check_per_input(name, arguments[name], len(inputs))
    if arguments["optimizer"] == FITTED:
        arguments["optimizer"] = _optimizer(ranges)
    elif arguments["optimizer"] is not None:
        arguments["optimizer"] = fresh_optimizer(arguments["optimizer"])
    arguments["input_modifiers"] = seeded_modifiers(arguments["input_modifiers"], request.seed)
    arguments["regularizers"] = own_names(arguments["regularizers"])
    arguments["input_range"] = list(ranges)
    return arguments


def _modifiers(given: Any, inputs: Mapping[str, Any], neuron: Any) -> Any:
    if given is MODIFIERS:
        # tf-keras-vis gives its own to the first input alone.
        return {next(iter(inputs)): MODIFIERS}
    if given != FITTED:
        return given
    # Not for a unit at one place of a layer: they would move the image away from under it.
    still = _at_one_place(neuron)
    return {name: MODIFIERS if _is_image(tensor) and not still else () for name, tensor in inputs.items()}


def _regularizers(given: Any, inputs: Mapping[str, Any]) -> Any:
    if given is REGULARIZERS:
        return {next(iter(inputs)): REGULARIZERS}
    if given != FITTED:
        return given
    _, norm = REGULARIZERS
    return {name: REGULARIZERS if _is_image(tensor) else (norm,) for name, tensor in inputs.items()}


def _is_image(tensor: Any) -> bool:
    return len(tensor.shape) == 4


def _at_one_place(neuron: Any) -> bool:
    return isinstance(neuron, Sequence) and len(neuron) > 1


def _optimizer(ranges: Sequence[Range]) -> Any:
    scales = {_scale(bounds) for bounds in ranges}
    if len(scales) > 1:
        raise ArgumentError(
            "the inputs have ranges of different widths, so no default step fits them all; "
            "give exec_args={'optimizer': …}"
        )
    return tf.keras.optimizers.RMSprop(learning_rate=scales.pop(), rho=0.999)


def _scale(bounds: Range) -> float:
    """Width of a range in units of tf-keras-vis's own; 1 for an open range."""
    low, high = bounds
    return 1.0 if low is None or high is None else (high - low) / LIBRARY_WIDTH


def _check_per_input(name: str, value: Any, inputs: int) -> None:
    # With several inputs, tf-keras-vis would silently apply a plain list to the first of them only.
    if inputs == 1 or value is None or isinstance(value, dict):
        return
    nested = (
        isinstance(value, list | tuple) and len(value) == inputs and all(isinstance(v, list | tuple) for v in value)
    )
    if nested and name != "activation_modifiers":
        return
    raise ArgumentError(
        f"the model has {inputs} inputs; `{name}` must be a dict by input name, or a list for each input"
    )


def _evaluate(model: Any, scores: Sequence[SampleScore], inputs: Sequence[Any]) -> np.ndarray:
    """The scores of the given inputs, summed over outputs as the optimisation does."""
    outputs = tf.nest.flatten(model([tf.convert_to_tensor(value) for value in inputs], training=False))
    values = [np.asarray(score(output)) for score, output in zip(scores, outputs, strict=True)]
    return np.asarray(sum(values))
