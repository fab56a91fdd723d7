"""Score-CAM as tf-keras-vis computes it, without what it holds and does besides the passes of the model.

tf-keras-vis builds all masked inputs of all samples at once, several times over, stretches maps by a spline over every
axis, has Keras trace a new `predict`, and asks for the score of each mask by itself. Here as many masks are made as go
through the model together, sample by sample: with `max_N`, its samples choose each other's maps. The score may be that
of the model's output as it is; tf-keras-vis takes a softmax of whatever the model gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import zoom

from cfi_core.adapters import adapter_for
from cfi_core.progress import tick
from cfi_core.registry import registry
from cfi_tfkerasvis.scores import SampleScore
from cfi_tfkerasvis.workarounds import normalize, zoom_factor

ENOUGH, OF_A_PASS = 150, 8
"""Rows from which on a model is compiled, each pass counting for so many more: as bridges do it."""

_KEPT = "_cfi_tfkerasvis_passes"


def score_cam(
    model: Any,
    activation: Any,
    scores: Sequence[SampleScore],
    inputs: Sequence[Any],
    own: Mapping[str, Any],
    softmax: bool,
    keeper: Any,
) -> list[np.ndarray]:
    """One map, or with `expand_cam` one for each input, of all samples.

    Args:
        model: A functional model.
        activation: The tensor of it that the maps are.
        scores: One for each of its outputs.
        inputs: Of all samples.
        own: The arguments of tf-keras-vis's call.
        softmax: Whether a softmax is taken of the outputs, before the score.
        keeper: The model of the request, with which compiled passes are kept for the next call.

    Raises:
        ValueError: `max_N` is larger than the number of maps.
    """
    front = keras.Model(list(model.inputs), activation)
    samples, run = int(inputs[0].shape[0]), _passes(model, inputs, activation, own, keeper)
    parts = []
    for sample in range(samples):
        alone = [np.asarray(value)[sample : sample + 1] for value in inputs]
        maps = np.asarray(tf.cast(front(alone, training=own["training"]), tf.float32))[0]
        maps = maps[..., _chosen(maps, own["max_N"])]
        weights = np.zeros(maps.shape[-1], np.float32)
        for some, outputs in _masked(run, maps, alone, own["batch_size"]):
            for score, output in zip(scores, outputs, strict=True):
                given = tf.nn.softmax(output) if softmax else output
                weights[some] += np.asarray(score.of_rows(given, sample), np.float32)
        parts.append(_finish(tf.constant((maps @ weights)[None]), alone, own))
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _passes(
    model: Any, inputs: Sequence[Any], activation: Any, own: Mapping[str, Any], keeper: Any
) -> Callable[[list[Any]], list[Any]]:
    """What gives the outputs for some masked inputs; whether it is compiled depends on the call alone."""

    def run(rows: list[Any]) -> list[Any]:
        return list(keras.tree.flatten(model(rows, training=False)))

    chosen = int(own["max_N"] if own["max_N"] and own["max_N"] > 0 else activation.shape[-1])
    samples, at_once = len(inputs[0]), own["batch_size"]
    if samples * (chosen + OF_A_PASS * -(-chosen // at_once)) <= ENOUGH:
        return run
    kind = (*map(id, model.outputs), *((value.dtype.name, *value.shape[1:]) for value in inputs))
    compiled, _ = vars(keeper).get(_KEPT, {}).get(kind, (None, None))
    if compiled is None:
        compiled = adapter_for(registry(), "tensorflow").compiled(model, list(inputs))
        if compiled is None:
            return run
        # Past the model's __setattr__, which tracks layers; with the tensors, so that no others get their identity.
        vars(keeper).setdefault(_KEPT, {})[kind] = (compiled, model.outputs)
    return lambda rows: list(keras.tree.flatten(compiled.run(rows)))


def _chosen(maps: np.ndarray, most: int | None) -> np.ndarray:
    """Positions of the maps that vary most, or of all of them."""
    channels = maps.shape[-1]
    if most is None or most <= 0:
        return np.arange(channels)
    if most > channels:
        raise ValueError(f"max_N must be 1 or more and {channels} or less. max_N: {most}")
    spread = tf.math.reduce_std(maps, axis=tuple(range(maps.ndim - 1)))
    return np.asarray(tf.math.top_k(spread, most)[1])


def _masked(
    run: Callable[[list[Any]], list[Any]], maps: np.ndarray, inputs: Sequence[np.ndarray], most: int
) -> Iterator[tuple[slice, list[Any]]]:
    """Which maps masked the inputs, and what the model gave then."""
    stretches = [_stretches(maps.shape[:-1], value.shape[1:-1]) for value in inputs]
    for first in range(0, maps.shape[-1], most):
        some = slice(first, first + most)
        rows = []
        for value, stretch in zip(inputs, stretches, strict=True):
            masks = _stretch(np.moveaxis(maps[..., some], -1, 0), stretch)
            space = tuple(range(1, masks.ndim))
            low, high = masks.min(space, keepdims=True), masks.max(space, keepdims=True)
            masks = (masks - low) / (high - low + keras.config.epsilon())
            rows.append(tf.constant(value * masks[..., None].astype(value.dtype)))
        yield some, run(rows)
        tick(len(rows[0]))


def _stretches(small: Sequence[int], large: Sequence[int]) -> list[np.ndarray]:
    """What SciPy's zoom does along each axis, as matrices: it is linear, and does it one axis after the other."""
    pairs = zip(small, zoom_factor(small, large), strict=True)
    return [zoom(np.eye(size, dtype=np.float32), (factor, 1), order=1, mode="nearest") for size, factor in pairs]


def _stretch(maps: np.ndarray, stretches: Sequence[np.ndarray]) -> np.ndarray:
    for axis, matrix in enumerate(stretches, start=1):
        maps = np.moveaxis(np.tensordot(maps, matrix, (axis, 1)), -1, axis)
    return maps


def _finish(cam: Any, inputs: Sequence[np.ndarray], own: Mapping[str, Any]) -> list[np.ndarray]:
    """What is done to the map of a sample behind the method itself."""
    if own["activation_modifier"] is not None:
        cam = own["activation_modifier"](cam)
    cams = [np.asarray(cam)]
    if own["expand_cam"]:
        cams = [zoom(cams[0], zoom_factor(cams[0].shape, value.shape), order=1) for value in inputs]
    return [normalize(one) for one in cams] if own["normalize_cam"] else cams
