"""The methods as their papers define them, made of tf-explain's separate computations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling
from cfi_core.errors import ArgumentError, LayerError, TargetError
from cfi_core.framework import rows_at_once
from cfi_core.moments import Moments
from cfi_core.progress import steps as expect
from cfi_core.progress import tick
from cfi_core.silence import without_warnings
from cfi_core.specs import Need
from cfi_tfexplain.model import call_unmarked, check_images, check_map, patch_sizes, taps
from cfi_tfexplain.passes import passes
from cfi_tfexplain.score import Scored
from cfi_tfexplain.table import FITTED, METHODS, MULTIPLY
from cfi_tfexplain.workarounds import UNSTRUCTURED, Column, Tapped, own_tool, patches

_ROWS = 64
"""Most rows that the points of a path, noisy inputs and covered images put through the model at once."""


def run_raw(request: MethodRequest, images: np.ndarray) -> MethodResult:
    """Raw values.

    Raises:
        ArgumentError: Settings that do not fit.
        TargetError: The score does not depend on the input.
    """
    method = METHODS[request.method.key]
    drawing = sorted(set(method.drawing) & set(request.exec_args))
    if drawing:
        raise ArgumentError(f"{drawing} are of tf-explain's picture; pass exec_args={{'picture': True}} with them")
    try:
        result = _RUNS[method.key](request, images)
    except Exception:  # raised again, unless the score tells more of the cause
        if Need.INPUT_GRADIENT in method.needs:
            _gradients(request, images)  # a score without a gradient would explain the failure
        raise
    told = {"definition": method.definition, "tf-explain's picture shows instead": method.deviation}
    if images.dtype != np.float32 and Need.INPUT_GRADIENT in method.needs:
        told["precision"] = f"tf-explain takes gradients at inputs rounded from {images.dtype} to float32"
    return replace(result, applied={**result.applied, **told})


def _saliency(request: MethodRequest, images: np.ndarray) -> MethodResult:
    return MethodResult((_gradients(request, images),), Axes.INPUT)


def _input_x_gradient(request: MethodRequest, images: np.ndarray) -> MethodResult:
    tool = own_tool("GradientsInputs", request.seed, compiled=False)
    return MethodResult((_numpy(tool.compute_gradients(images, _score(request, images), 0)),), Axes.INPUT)


def _integrated_gradients(request: MethodRequest, images: np.ndarray) -> MethodResult:
    steps = _count(request, "n_steps", least=2)
    tool = own_tool("IntegratedGradients", request.seed, compiled=False)
    baselines = _baselines(request, images)
    path = np.stack(
        [tool.generate_linear_path(start, end, steps) for start, end in zip(baselines, images, strict=True)]
    )
    scored, average = _score(request, images), tool.get_integrated_gradients
    expect(steps + 2, "steps")
    # By the trapezoidal rule, in which the ends count half; tf-explain counts them whole, which is less exact.
    ends = _mean(path[:, [0, -1]], average, scored, request.rows)
    mean = (steps * _mean(path, average, scored, request.rows) - ends) / (steps - 1)
    multiplied = bool(request.exec_args[MULTIPLY])
    values = mean * (images - baselines) if multiplied else mean
    return MethodResult((values.astype(images.dtype),), Axes.INPUT, applied={"n_steps": steps, MULTIPLY: multiplied})


def _smooth_grad(request: MethodRequest, images: np.ndarray) -> MethodResult:
    count = _count(request, "num_samples", least=1)
    noise, told = _noise(request, images, count)
    noisy = own_tool("SmoothGrad", request.seed, compiled=False).generate_noisy_images(images, count, noise)
    expect(count, "samples")
    # The mean of plain gradients is integrated gradients' own, of another set of points.
    average = own_tool("IntegratedGradients", request.seed, compiled=False).get_integrated_gradients
    moments = Moments()

    def heard(points: np.ndarray, model: Any, index: int, number: int) -> Any:
        each = average(points, model, index, 1)  # the mean of one is itself
        each = tf.reshape(each, (-1, number, *each.shape[1:]))
        moments.add(each.numpy(), 1)
        return tf.reduce_mean(each, axis=1)

    points = noisy.reshape(len(images), count, *images.shape[1:])
    mean = _mean(points, heard, _score(request, images), request.rows)
    sampling = Sampling((moments.error_of_mean(),), count, "num_samples")
    applied = {"num_samples": count, "noise": told}
    return MethodResult((mean.astype(images.dtype),), Axes.INPUT, applied=applied, sampling=sampling)


def _occlusion(request: MethodRequest, images: np.ndarray) -> MethodResult:
    check_images(request, images, "tf-explain's occlusion")
    sizes = patch_sizes(request)
    baselines, covers = _baselines(request, images), [patches(images.shape[1:], size) for size in sizes]
    batch = int(request.init_args.get("batch_size") or rows_at_once([images.shape], len(images), limit=request.rows))
    rows = len(images) * (1 + sum(map(len, covers)))
    scored = Scored(passes(request, rows, batch), request.target, len(images))
    plain = _numpy(scored(_like(images, request)))[:, 0]
    expect(sum(map(len, covers)), "masks")
    maps = [_drops(images, baselines, masks, plain, scored, batch, request) for masks in covers]
    extras = {"patch_sizes": list(sizes), "maps": np.stack(maps)} if len(sizes) > 1 else {}
    applied = {"patch_size": list(sizes)}
    return MethodResult((maps[0],), Axes.INPUT_MAP, extras, applied, sample_axes={"maps": 1} if extras else {})


def _grad_cam(request: MethodRequest, images: np.ndarray) -> MethodResult:
    (tap,) = _one_layer(request)
    check_map(request, tap)
    scored = _score(request, images)
    dtype = keras.tree.flatten(tap.outputs)[0].dtype
    column = call_unmarked(Column(scored.of_outputs, dtype), tap.outputs)
    tapped = Tapped(tap.inputs, tap.activation, column)
    tool, guided = own_tool("GradCAM", request.seed, compiled=False), bool(request.exec_args["use_guided_grads"])
    with without_warnings(UNSTRUCTURED):
        outputs, gradients = tool.get_gradients_and_filters(tapped, images, tap.name, 0, guided)
    if gradients is None:
        raise LayerError(f"layer {tap.name!r} does not lead to the score; take one that does")
    maps = np.stack([_numpy(one) for one in tool.generate_ponderated_output(outputs, gradients)])
    return MethodResult((maps,), Axes.LAYER_MAP, applied={"use_guided_grads": guided})


def _layer_activation(request: MethodRequest, images: np.ndarray) -> MethodResult:
    found = taps(request)
    reader = keras.Model(found[0].inputs, [tap.activation for tap in found])
    batch = request.init_args.get("batch_size") or len(images)
    parts = [_like(images[first : first + batch], request) for first in range(0, len(images), int(batch))]
    rows = [keras.tree.flatten(reader(part, training=False)) for part in parts]
    values = tuple(np.concatenate([_numpy(part[i]) for part in rows]) for i in range(len(found)))
    return MethodResult(values, Axes.LAYER)


_RUNS: Mapping[str, Callable[[MethodRequest, np.ndarray], MethodResult]] = MappingProxyType(
    {
        "saliency": _saliency,
        "input_x_gradient": _input_x_gradient,
        "integrated_gradients": _integrated_gradients,
        "smooth_grad": _smooth_grad,
        "occlusion": _occlusion,
        "grad_cam": _grad_cam,
        "layer_activation": _layer_activation,
    }
)


# what they are made of


def _score(request: MethodRequest, images: np.ndarray) -> Scored:
    return Scored(request.model, request.target, len(images))


def _gradients(request: MethodRequest, images: np.ndarray) -> np.ndarray:
    tool = own_tool("VanillaGradients", request.seed, compiled=False)
    gradients = tool.compute_gradients(images, _score(request, images), 0)
    if gradients is None:
        raise TargetError(
            "the score does not depend on the input; a target function must be made of TensorFlow operations on the "
            "model's output"
        )
    return _numpy(gradients)


def _mean(points: np.ndarray, average: Callable[..., Any], scored: Scored, most: int | None) -> np.ndarray:
    """The mean gradient at points of shape (samples, points, …), a portion of the points at a time."""
    samples, count = points.shape[:2]
    portion = rows_at_once([points.shape[1:]], samples, _ROWS, limit=most) // samples
    total = np.zeros((samples, *points.shape[2:]))
    for first in range(0, count, portion):
        some = points[:, first : first + portion]
        mean = average(some.reshape(-1, *points.shape[2:]), scored, 0, some.shape[1])
        total += np.asarray(mean, np.float64) * some.shape[1]
        tick(some.shape[1])
    return total / count


def _drops(
    images: np.ndarray,
    baselines: np.ndarray,
    masks: Sequence[np.ndarray],
    plain: np.ndarray,
    scored: Scored,
    batch: int,
    request: MethodRequest,
) -> np.ndarray:
    """By how much the score falls where each patch is covered, given to the pixels of the patch."""
    drops = np.zeros(images.shape[:3], plain.dtype)
    portion = max(batch // len(images), 1)
    for first in range(0, len(masks), portion):
        some = np.stack(masks[first : first + portion])
        covered = np.where(some, baselines[:, None], images[:, None])  # samples, patches, height, width, channels
        rows = scored(_like(covered.reshape(-1, *images.shape[1:]), request))
        fallen = plain[:, None] - _numpy(rows).reshape(len(images), len(some))
        space = some[..., 0].reshape(len(some), -1).astype(plain.dtype)
        drops += (fallen @ space).reshape(drops.shape)
        tick(len(some))
    return drops


def _baselines(request: MethodRequest, images: np.ndarray) -> np.ndarray:
    """One for each image; zeros where none are given."""
    given = request.baselines[0] if request.baselines else None
    array = np.asarray(0.0 if given is None else given, images.dtype)
    try:
        return np.broadcast_to(array, images.shape)
    except ValueError:
        raise ArgumentError(
            f"baselines of shape {array.shape} do not fit inputs of shape {images.shape}; give a number, one for all "
            "samples, or one for each"
        ) from None


def _noise(request: MethodRequest, images: np.ndarray, count: int) -> tuple[Any, Any]:
    """The standard deviation for each noisy image, and how it is told."""
    noise = request.exec_args["noise"]
    if noise == FITTED:
        axes = tuple(range(1, images.ndim))
        widths = images.max(axis=axes, keepdims=True) - images.min(axis=axes, keepdims=True)
        return np.repeat(0.2 * widths, count, axis=0), FITTED
    if isinstance(noise, bool) or not isinstance(noise, int | float | np.number) or not noise >= 0:
        raise ArgumentError(f"noise must be a number of 0 or more, in the units of the inputs, got {noise!r}")
    return float(noise), float(noise)


def _count(request: MethodRequest, name: str, *, least: int) -> int:
    value = request.exec_args[name]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} must be a number of {least} or more, got {value!r}")
    return int(value)


def _one_layer(request: MethodRequest) -> tuple[Any, ...]:
    if len(request.layer) != 1:
        raise LayerError(f"{request.method.key} explains one layer, got {len(request.layer)}; call it once for each")
    return taps(request)


def _like(images: np.ndarray, request: MethodRequest) -> Any:
    return tf.cast(images, request.inputs[0].dtype)


def _numpy(tensor: Any) -> np.ndarray:
    values = np.asarray(tensor)
    return values.astype(np.float32) if values.dtype.name in ("float16", "bfloat16") else values
