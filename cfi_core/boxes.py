"""What detectors find: boxes with their scores, in the forms that outputs of detectors have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cfi_core.errors import TargetError
from cfi_core.framework import FrameworkAdapter, is_structure, items
from cfi_core.outputs import adapter_of, first_tensor, leaves_of, rows_of, shape_of

Form = Literal["list", "queries", "anchors"]
"""Of torchvision, DETR and YOLO (see `cfi_core.targets.Box`)."""


@dataclass(frozen=True)
class Boxes:
    """What a detector finds in one image."""

    corners: Any  # (boxes, 4)
    scores: Any  # (boxes,); (boxes, classes) without labels
    labels: Any = None


def boxes_in(outputs: Any, form: Form | None) -> Iterator[Boxes]:
    """The boxes of each sample; the form is found where it is not given."""
    form = form or form_of(outputs)
    if form == "list":
        yield from (Boxes(one["boxes"], one["scores"], one["labels"]) for one in outputs)
    elif form == "queries":
        yield from _of_queries(dict(items(outputs)))
    else:
        yield from _of_anchors(first_tensor(outputs))


def value_of(boxes: Boxes, corners: Sequence[float], label: int | None) -> Any:
    """Score times IoU of the box with the label that overlaps these corners most, as a number with its gradients."""
    adapter = adapter_of(boxes.scores)
    xp, scores = adapter.arithmetic, boxes.scores
    if not scores.shape[0]:
        return xp.sum(scores) * 0  # nothing was found at all
    overlaps = _overlap(boxes.corners, corners, adapter)
    if boxes.labels is not None:
        if label is not None:
            overlaps = overlaps * _as_ones(boxes.labels == label, overlaps, adapter)
    elif label is not None:
        scores = scores[:, label]
    else:
        best = xp.argmax(scores, axis=1)
        scores = xp.sum(scores * _one_hot(best, scores, adapter), axis=1)
    # The values of the one row are summed over all, the others weighing nothing: so gradients are in every
    # framework, in compiled code too.
    chosen = _one_hot(xp.argmax(overlaps, axis=0), overlaps, adapter)
    return xp.sum(overlaps * scores * chosen)


def is_detection(outputs: Any) -> bool:
    """Whether these are boxes, scores and labels of each of some images."""
    return isinstance(outputs, list | tuple) and bool(outputs) and all(map(_is_of_image, outputs))


def _is_of_image(one: Any) -> bool:
    return is_structure(one) and {"boxes", "scores", "labels"} <= {key for key, _ in items(one)}


def form_of(outputs: Any) -> Form:
    """The form that these outputs have.

    Raises:
        TargetError: None that is known.
    """
    if is_detection(outputs):
        return "list"
    keys = [key for key, _ in items(outputs)] if is_structure(outputs) else []
    if "logits" in keys and "pred_boxes" in keys:
        return "queries"
    leaves = leaves_of(outputs)
    if leaves and len(shape_of(leaves[0][1])) == 3 and min(shape_of(leaves[0][1])[1:]) > 4:
        return "anchors"
    shapes = {path: shape_of(leaf) for path, leaf in leaves}
    raise TargetError(
        f"The outputs ({shapes}) are of no form that is known of detectors: a list of dicts of boxes, scores and "
        f"labels; logits and pred_boxes; a tensor (samples, 4 + classes, anchors). Pass a function of the outputs."
    )


def _of_queries(outputs: dict[str, Any]) -> Iterator[Boxes]:
    logits, boxes = outputs["logits"], outputs["pred_boxes"]
    xp = adapter_of(logits).arithmetic
    shifted = logits - xp.amax(logits, axis=-1, keepdims=True)
    powers = xp.exp(shifted)
    scores = (powers / xp.sum(powers, axis=-1, keepdims=True))[..., :-1]
    corners = _corners(boxes, xp)
    yield from (Boxes(corners[row], scores[row]) for row in range(rows_of(logits)))


def _of_anchors(tensor: Any) -> Iterator[Boxes]:
    xp, shape = adapter_of(tensor).arithmetic, shape_of(tensor)
    if shape[1] < shape[2]:
        tensor = xp.swapaxes(tensor, 1, 2)
    corners, scores = _corners(tensor[..., :4], xp), tensor[..., 4:]
    yield from (Boxes(corners[row], scores[row]) for row in range(rows_of(tensor)))


def _corners(boxes: Any, xp: Any) -> Any:
    """Of centres and sizes."""
    centres, halves = boxes[..., :2], boxes[..., 2:] / 2
    return xp.concatenate([centres - halves, centres + halves], axis=-1)


_EQUAL = 1e-5  # relative difference of sides of boxes up to which they are the same


def _overlap(corners: Any, wanted: Sequence[float], adapter: FrameworkAdapter) -> Any:
    """Intersection over union of each box with the one that is wanted."""
    xp, given = adapter.arithmetic, adapter.constant(np.array([wanted]), corners)
    low = _larger(corners[:, :2], given[:, :2], xp)
    high = -_larger(-corners[:, 2:], -given[:, 2:], xp)
    sides = _larger(high - low, xp.zeros_like(low), xp)
    shared = sides[:, 0] * sides[:, 1]
    sizes = _larger(corners[:, 2:] - corners[:, :2], xp.zeros_like(low), xp)
    area = float((wanted[2] - wanted[0]) * (wanted[3] - wanted[1]))
    return shared / (sizes[:, 0] * sizes[:, 1] + area - shared)


def _larger(one: Any, other: Any, xp: Any) -> Any:
    """The larger of two; of equals, as where a box is the very one that is wanted, each has half of the gradient.

    Frameworks have different gradients there for a maximum of their own, and the rounding of a converted model would
    decide between the two sides: so what is apart by rounding counts as equal.
    """
    is_equal = abs(one - other) <= _EQUAL * (abs(one) + abs(other))
    return xp.where(is_equal, (one + other) / 2, xp.where(one > other, one, other))


def _one_hot(place: Any, like: Any, adapter: FrameworkAdapter) -> Any:
    """Ones at a place along the last axis, zeros elsewhere, without gradient."""
    positions = adapter.constant(np.arange(shape_of(like)[-1]), place)
    return _as_ones(positions == (place[:, None] if len(place.shape) else place), like, adapter)


def _as_ones(where: Any, like: Any, adapter: FrameworkAdapter) -> Any:
    xp = adapter.arithmetic
    return xp.where(where, xp.ones_like(like), xp.zeros_like(like))
