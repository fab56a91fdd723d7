"""Runs one method of tf-keras-vis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling
from cfi_core.errors import ArgumentError, CFIError, LayerError, MethodError, ModelWarning, TargetError, warn
from cfi_core.framework import rows_at_once
from cfi_core.moments import Moments
from cfi_core.progress import steps as expect
from cfi_core.specs import Head
from cfi_tfkerasvis.describe import describe
from cfi_tfkerasvis.masking import score_cam
from cfi_tfkerasvis.maximization import maximize
from cfi_tfkerasvis.model import (
    PreparedModel,
    check_gradcam_layer,
    check_inputs,
    declared_inputs,
    flat,
    gives_probabilities,
    prepare,
    with_joined_outputs,
)
from cfi_tfkerasvis.plugin import WORKAROUNDS
from cfi_tfkerasvis.scores import NO_WAY, SampleScore, check_dependence, own_scores, target_score
from cfi_tfkerasvis.settings import settings
from cfi_tfkerasvis.workarounds import (
    Gradcam,
    GradcamPlusPlus,
    Layercam,
    Saliency,
    Scorecam,
    Shifted,
    Tap,
    WeightsReLU,
    from_layer,
    gives_its_own,
    own_numbers,
    refuse_limited_steps,
    without_progress_bars,
)


@dataclass(frozen=True)
class KerasVisMethod:
    """One class of tf-keras-vis.

    Attributes:
        tool: The class.
        reads_layer: Whether it is a class activation map.
        notes: What is part of the method, for the provenance.
    """

    tool: Any
    reads_layer: bool = True
    notes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


METHODS: Mapping[str, KerasVisMethod] = MappingProxyType(
    {
        "saliency": KerasVisMethod(Saliency, reads_layer=False),
        "smooth_grad": KerasVisMethod(Saliency, reads_layer=False),
        "grad_cam": KerasVisMethod(
            Gradcam, notes={"definition": "sum over channels of activation times the gradient's mean over space"}
        ),
        "grad_cam_plus_plus": KerasVisMethod(
            GradcamPlusPlus,
            notes={"definition": "alphas sum to 1 over space (as in the authors' code), ReLU on the gradients"},
        ),
        "layer_cam": KerasVisMethod(
            Layercam, notes={"definition": "sum over channels of activation times the gradient's ReLU"}
        ),
        "score_cam": KerasVisMethod(
            Scorecam,
            notes={
                "definition": "sum over channels of activation times the masked input's score; no baseline score "
                "subtracted, no softmax over channels",
            },
        ),
    }
)


_AT_LAYER = (Gradcam, GradcamPlusPlus, Layercam)
"""Those that take gradients at their layer alone."""


def run(request: MethodRequest) -> MethodResult:
    """Runs a method of tf-keras-vis on a functional or Sequential Keras model.

    What is done to the values, and how, stands in the request's `exec_args`; what these leave out is as in the
    signature of tf-keras-vis.

    Args:
        request: The run; tensors are TensorFlow's (or numpy's), the model is channels-last.

    Returns:
        Values per input for saliency and activation maximization, one map for class activation maps (one per input
        with `expand_cam=True`); `applied` holds every setting of the call.

    Raises:
        ArgumentError: Arguments (`InputError`, `TargetError`, `LayerError`) that do not fit the model.
        MethodError: tf-keras-vis cannot run this model, fails, or gives values that are not finite.
    """
    refuse_limited_steps()
    try:
        request = with_joined_outputs(request)
        if request.method.key == "activation_maximization":
            result = maximize(request)
        else:
            result = _attribute(request, METHODS[request.method.key])
    except CFIError:
        raise
    except Exception as error:  # whatever tf-keras-vis, Keras or TensorFlow raises
        raise MethodError(
            f"tf-keras-vis failed in {request.method.key!r} ({type(error).__name__}: {error}); "
            "check init_args and exec_args against the tf-keras-vis documentation"
        ) from error
    _check_finite(result, request.method.key)
    return result


def _attribute(request: MethodRequest, method: KerasVisMethod) -> MethodResult:
    own = dict(request.exec_args)
    inputs = _inputs(request, own)
    reference = _layer(request, own) if method.reads_layer else None
    arguments = settings(method.tool, own, ("score", "seed_input", "penultimate_layer"))
    _check_smoothing(request, arguments)
    samples = check_inputs(declared_inputs(request.model), inputs)
    seek = bool(arguments.get("seek_penultimate_conv_layer"))
    training = bool(arguments["training"])
    prepared = prepare(request, layer=reference, seek=seek, probe=inputs, training=training, up_to_layer=False)
    if prepared.layer is not None:
        # Where there was another one to seek, it has been found.
        arguments["seek_penultimate_conv_layer"] = False
        arguments["penultimate_layer"] = Tap(prepared.layer.name, prepared.activation)
    scores = _scores(request, own, samples, len(prepared.model.outputs))
    _check_layout(request, method, arguments, prepared, inputs)
    kind = method.tool if method.reads_layer or request.seeded else own_numbers(method.tool, request.seed)
    if method.tool in _AT_LAYER and gives_its_own(prepared.model, prepared.layer):
        kind = from_layer(kind, prepared.layer)
    tool = kind(prepared.model, model_modifier=list(prepared.modifiers), clone=False)

    applied = dict(prepared.applied)
    if method.tool is Scorecam:
        _tell_masks(arguments, prepared, inputs, request.rows)
        without_progress_bars(tool.model)
        _check_scorecam(request, tool.model, inputs, prepared, arguments)
        applied["softmax"] = _softmax_of_scorecam(request)
    if arguments.get("activation_modifier") is WeightsReLU:
        arguments["activation_modifier"] = WeightsReLU(len(prepared.activation.shape))
    if method.tool is Saliency:
        expect(arguments["smooth_samples"] or 1, "samples", share=samples)
    moments = _hear_gradients(tool, len(inputs)) if arguments.get("smooth_samples") else ()
    try:
        raw, notes = _run_tool(request, tool, scores, inputs, arguments)
    except Exception:
        check_dependence(tool.model, inputs, scores)  # a score without a gradient would explain the failure
        raise
    applied |= notes

    applied |= {name: describe(value) for name, value in arguments.items()} | dict(method.notes)
    applied["score"] = describe(own["score"]) if "score" in own else "target"
    if WORKAROUNDS in request.init_args:
        applied[WORKAROUNDS] = bool(request.init_args[WORKAROUNDS])
    values = raw if isinstance(raw, list | tuple) else [raw]
    return MethodResult(
        values=tuple(np.asarray(value) for value in values),
        sampling=_sampling(moments, arguments, inputs),
        axes=_axes(method, arguments),
        applied=applied,
        layer=prepared.layer.name if prepared.sought else None,
    )


def _run_tool(
    request: MethodRequest, tool: Any, scores: Sequence[SampleScore], inputs: Sequence[Any], arguments: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What the class gives, and what was done besides."""
    workarounds = request.init_args.get(WORKAROUNDS)
    if workarounds and isinstance(tool, Scorecam):
        tap: Tap = arguments["penultimate_layer"]
        return score_cam(
            tool.model, tap.output, scores, inputs, arguments, request.head is Head.LOGIT, request.model
        ), {}
    if workarounds and isinstance(tool, GradcamPlusPlus):
        shifted = [Shifted(score, len(scores)) for score in scores]
        return tool(score=shifted, seed_input=list(inputs), **arguments), {"scale": "each map divided by exp(score)"}
    raw = tool(score=list(scores), seed_input=list(inputs), **arguments)
    return (_connect(raw, inputs) if isinstance(tool, Saliency) else raw), {}


# arguments


def _inputs(request: MethodRequest, own: dict[str, Any]) -> tuple[Any, ...]:
    seed_input = own.pop("seed_input", None)
    if request.inputs:
        return tuple(request.inputs)
    if seed_input is None:
        raise ArgumentError(f"{request.method.key} needs `inputs` (in tf-keras-vis's words: seed_input)")
    values = seed_input if isinstance(seed_input, list | tuple) else [seed_input]
    return tuple(tf.convert_to_tensor(value) for value in values)


def _layer(request: MethodRequest, own: dict[str, Any]) -> Any:
    penultimate = own.pop("penultimate_layer", None)
    if len(request.layer) > 1:
        raise LayerError(f"{request.method.key} explains one layer, got {len(request.layer)}; call it once for each")
    if request.layer:
        return request.layer[0]
    penultimate = request.init_args.get("layer", penultimate)
    if penultimate is None:
        raise ArgumentError(f"{request.method.key} needs `layer` (in tf-keras-vis's words: penultimate_layer)")
    return penultimate


def _check_smoothing(request: MethodRequest, arguments: Mapping[str, Any]) -> None:
    if request.method.key == "smooth_grad" and not arguments["smooth_samples"] > 0:
        raise ArgumentError(
            "smooth_grad needs smooth_samples of 1 or more; without smoothing it is the method 'saliency'"
        )


def _scores(request: MethodRequest, own: Mapping[str, Any], samples: int, outputs: int) -> list[SampleScore]:
    if "score" not in own:
        return [target_score(request.target, samples)]
    if request.target is not None:
        raise TargetError("both `target` and `score` say what is explained; give one of them")
    if request.place is None:
        return own_scores(own["score"], samples, outputs)
    sample, all_samples = request.place  # which the user's scores are of
    return [score.of_sample(sample) for score in own_scores(own["score"], all_samples, outputs)]


# checks


def _check_layout(
    request: MethodRequest,
    method: KerasVisMethod,
    arguments: Mapping[str, Any],
    prepared: PreparedModel,
    inputs: Sequence[Any],
) -> None:
    """Refuses what tf-keras-vis would take along the wrong axis: it reads channels last, always."""
    if method.reads_layer:
        check_gradcam_layer(prepared)
        rank = len(prepared.activation.shape)
        if not prepared.sought and request.layer_channel_axis not in (None, -1, rank - 1):
            raise LayerError(
                f"layer {prepared.layer.name!r} has its channels on axis {request.layer_channel_axis}; tf-keras-vis "
                "needs them last: build the model with data_format='channels_last'"
            )
        if arguments["expand_cam"]:
            _check_expansion(request, prepared, inputs)
        return
    if not arguments["keepdims"]:
        for position, (value, axis) in enumerate(zip(inputs, request.channel_axis, strict=False)):
            if axis not in (-1, len(value.shape) - 1):
                raise ArgumentError(
                    f"keepdims=False takes the maximum over the last axis, which is not the channel axis of input "
                    f"{position}; pass keepdims=True and reduce the values as you need"
                )


def _check_expansion(request: MethodRequest, prepared: PreparedModel, inputs: Sequence[Any]) -> None:
    """Refuses to stretch a map over axes that are not those of an input's space."""
    map_rank = len(prepared.activation.shape) - 1
    for position, (value, axis) in enumerate(zip(inputs, request.channel_axis, strict=False)):
        rank = len(value.shape)
        if map_rank != (rank if axis is None else rank - 1) or axis not in (None, -1, rank - 1):
            raise ArgumentError(
                f"expand_cam=True stretches the map of layer {prepared.layer.name!r}, which has {map_rank - 1} axes of "
                f"space, over the axes of input {position} of shape {tuple(value.shape)}, which has others (its "
                f"channels are axis {axis}); pass exec_args={{'expand_cam': False}} to get the map at the layer's size"
            )


def _check_scorecam(
    request: MethodRequest,
    model: Any,
    inputs: Sequence[Any],
    prepared: PreparedModel,
    arguments: Mapping[str, Any],
) -> None:
    space, workarounds = len(prepared.activation.shape), request.init_args[WORKAROUNDS]
    at_output = request.head is Head.OUTPUT
    for position, value in enumerate(inputs):
        if len(value.shape) != space:
            raise MethodError(
                f"Score-CAM masks every input with the layer's maps, but input {position} has {len(value.shape)} axes "
                f"and the layer {space}; it can explain only models whose inputs all have the layer's axes"
            )
    for tensor in model.outputs:
        if len(tensor.shape) != 2 or (tensor.shape[1] < 2 and not (at_output and workarounds)):
            raise MethodError(
                f"tf-keras-vis's Score-CAM takes a softmax over classes, but the model's output has shape "
                f"{tuple(tensor.shape)}: it needs (samples, classes) with two classes or more (or, of one class, "
                f'head="output", which takes the score of the output as it is)'
            )
    if workarounds:
        return
    if at_output and any(map(gives_probabilities, flat(model([*inputs], training=False)))):
        warn(
            "tf-keras-vis's Score-CAM applies a softmax itself, and the model ends in one already: its scores are "
            "softmaxes of probabilities, which hardly differ. Pass head='logit': the score is then the probability.",
            ModelWarning,
        )
    if arguments["max_N"] and len(inputs[0]) > 1:
        warn(
            "With max_N, tf-keras-vis's Score-CAM lets the samples of a batch choose each other's maps. Pass one "
            f"sample at a time, or init_args={{'{WORKAROUNDS}': True}}.",
            ModelWarning,
        )


def _softmax_of_scorecam(request: MethodRequest) -> str:
    """One meaning of the head on every route: the model's output as it is, or the softmax of its logits."""
    if request.head is Head.OUTPUT and request.init_args[WORKAROUNDS]:
        return "none: the score is taken of the model's output as it is"
    return "tf-keras-vis applies a softmax over the last axis of the model's output; the score is taken after it"


def _check_finite(result: MethodResult, key: str) -> None:
    for value in result.values:
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise MethodError(
                f"{key} gives {bad} of {value.size} values that are not finite; check that the model's outputs on "
                "these inputs are finite, and use float32 or float64"
            )


# the methods that need more than a call


def _tell_masks(arguments: dict[str, Any], prepared: PreparedModel, inputs: Sequence[Any], most: int | None) -> None:
    """Tells how many masks there are, and lets as many through the model at once as sizes allow."""
    samples, channels = int(inputs[0].shape[0]), int(prepared.activation.shape[-1])
    chosen = arguments["max_N"] or 0
    expect(samples * (chosen if chosen > 0 else channels), "masks")
    shapes = [value.shape for value in inputs]
    arguments["batch_size"] = rows_at_once(shapes, 1, arguments["batch_size"], limit=most)


def _connect(raw: Any, inputs: Sequence[Any]) -> list[Any]:
    """Saliency maps, with zeros for an input that the score does not depend on."""
    values = list(raw) if isinstance(raw, list | tuple) else [raw]
    if all(value is None for value in values):
        raise TargetError(NO_WAY)
    return [np.zeros(tuple(x.shape), np.float32) if v is None else v for v, x in zip(values, inputs, strict=True)]


def _hear_gradients(tool: Any, number: int) -> tuple[Moments, ...]:
    """The spread of the gradients that Saliency averages, one for each input."""
    moments, gradients = tuple(Moments() for _ in range(number)), tool._get_gradients

    def heard(*args: Any) -> Any:
        found = gradients(*args)
        for one, value in zip(moments, found, strict=True):
            if value is not None:
                one.add(np.asarray(value)[None])
        return found

    tool._get_gradients = heard
    return moments


def _sampling(moments: Sequence[Moments], arguments: Mapping[str, Any], inputs: Sequence[Any]) -> Sampling | None:
    """How well the averages are known; not of what is made of them behind."""
    if not moments or arguments["normalize_map"] or not arguments["keepdims"]:
        return None
    pairs = zip(moments, inputs, strict=True)
    errors = tuple(one.error_of_mean() if one.draws else np.zeros(tuple(value.shape)) for one, value in pairs)
    return Sampling(errors, int(arguments["smooth_samples"]), "smooth_samples")


def _axes(method: KerasVisMethod, arguments: Mapping[str, Any]) -> Axes:
    if method.reads_layer:
        return Axes.INPUT_SIZED_MAP if arguments["expand_cam"] else Axes.LAYER_MAP
    return Axes.INPUT if arguments["keepdims"] else Axes.INPUT_MAP
