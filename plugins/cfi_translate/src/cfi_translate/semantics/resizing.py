"""Resizing: every mode of ONNX is one matrix per axis, from the old places to the new ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_translate.grammar import Refusal, require
from cfi_translate.program import Operation, Shape, Value
from cfi_translate.semantics.values import constant_of, shape_of

_F = np.float32
_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - _F(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + _F(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Interpolation:
    """How the elements of an axis are found and weighed; attributes as of the ONNX operator."""

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude: bool = False
    antialias: bool = False
    outside: float = 0.0

    @property
    def picks(self) -> bool:
        """Whether each new element is one of the old ones."""
        return self.mode == "nearest" and self.coordinates != "tf_crop_and_resize"


@dataclass(frozen=True)
class ResizedAxis:
    """How one axis is resized.

    Attributes:
        old: Its size.
        new: Its new size.
        scale: What the operator says, which need not be the ratio of both.
        how: How its elements are found and weighed.
        begin: Of the region of interest, in parts of the axis.
        end: Of the same region.
    """

    old: int
    new: int
    scale: float
    how: Interpolation
    begin: float = 0.0
    end: float = 1.0


def _is_old(op: Operation) -> bool:
    """Whether all that it is told are scales."""
    return op.kind == "Upsample" or op.version < 11


def _interpolation(op: Operation) -> Interpolation:
    given = op.attributes
    kind = given.get("mode", "nearest")
    if _is_old(op):
        return Interpolation(kind, "asymmetric", "floor")
    return Interpolation(
        kind,
        given.get("coordinate_transformation_mode", "half_pixel"),
        given.get("nearest_mode", "round_prefer_floor"),
        given.get("cubic_coeff_a", -0.75),
        bool(given.get("exclude_outside", 0)),
        bool(given.get("antialias", 0)),
        given.get("extrapolation_value", 0.0),
    )


def resized_axes(op: Operation, data: Value, *given: Value | None) -> dict[int, ResizedAxis]:
    """The axes that are resized at all.

    Args:
        op: Resize or Upsample.
        data: What is resized.
        given: The other inputs of the operator: region of interest, scales and sizes; in old versions the scales alone.
    """
    region, scales, sizes = (*([None] if _is_old(op) else []), *given, None, None, None)[:3]
    old, new, how = shape_of(data), shape_of(op.output), _interpolation(op)
    axes = [axis % len(old) for axis in op.attributes.get("axes") or range(len(old))]
    factors, ends = _scales(op, scales), None
    if how.coordinates == "tf_crop_and_resize":
        ends = constant_of(region, "region of interest")
    aspect = _aspect(op, old, axes, sizes) if factors is None else None
    found = {}
    for position, axis in enumerate(axes):
        size, target = old[axis], new[axis]
        scale = None if factors is None else float(factors[position])
        if size is None or target is None:
            require(scale in (None, 1.0) and ends is None, "it resizes an axis whose size is not known")
            continue
        scale = scale if scale is not None else aspect if aspect is not None else target / size
        begin, end = (0.0, 1.0) if ends is None else (ends[position], ends[len(axes) + position])
        if scale != 1 or size != target or (begin, end) != (0.0, 1.0):
            found[axis] = ResizedAxis(size, target, scale, how, float(begin), float(end))
    return found


def _scales(op: Operation, scales: Value | None) -> Any:
    if "scales" in op.attributes:
        return op.attributes["scales"]
    if "height_scale" in op.attributes:
        return (1.0, 1.0, op.attributes["height_scale"], op.attributes["width_scale"])
    return None if scales is None or scales.shape == (0,) else constant_of(scales, "scale")


def _aspect(op: Operation, old: Shape, axes: list[int], sizes: Value | None) -> float | None:
    """The one scale for all axes where the operator keeps the aspect ratio."""
    policy = op.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    wanted = constant_of(sizes, "list of sizes")
    ratios = [int(target) / (old[axis] or 1) for target, axis in zip(wanted, axes, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def _places(axis: ResizedAxis) -> np.ndarray:
    """Where, among the old elements, each new one lies; in float32, in which ONNX Runtime counts."""
    coordinates = axis.how.coordinates
    x, scale = np.arange(axis.new, dtype=_F), _F(axis.scale)
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and axis.new > 1):
        return (x + _F(0.5)) / scale - _F(0.5)
    if coordinates == "pytorch_half_pixel":
        return np.zeros(axis.new, _F)
    if coordinates == "half_pixel_symmetric":
        adjustment = _F(axis.new) / (scale * _F(axis.old))
        offset = _F(axis.old / 2) * (1 - adjustment)
        return offset + (x + _F(0.5)) / scale - _F(0.5)
    if coordinates == "align_corners":
        return x * _F(axis.old - 1) / _F(axis.new - 1) if axis.new > 1 else np.zeros(axis.new, _F)
    if coordinates == "asymmetric":
        return x / scale
    if coordinates == "tf_crop_and_resize":
        begin, end, last = _F(axis.begin), _F(axis.end), _F(axis.old - 1)
        if axis.new > 1:
            return begin * last + x * (end - begin) * last / _F(axis.new - 1)
        return np.full(axis.new, _F(0.5) * (begin + end) * last, _F)
    raise Refusal(f"the coordinates {coordinates!r} are not supported")


def resizing_matrix(axis: ResizedAxis) -> np.ndarray:
    """Weights of the old elements (columns) in the new ones (rows)."""
    places, mode = _places(axis), axis.how
    matrix = np.zeros((axis.new, axis.old))
    if mode.mode == "nearest":
        matrix[np.arange(axis.new), np.clip(_ROUNDING[mode.nearest](places).astype(np.int64), 0, axis.old - 1)] = 1
        return matrix
    shrink = min(axis.scale, 1.0) if mode.antialias else 1.0
    reach = (1 if mode.mode == "linear" else 2) / shrink
    for row, place in enumerate(places.astype(np.float64)):
        first, last = math.floor(place - reach), math.ceil(place + reach)
        columns = np.arange(first, last + 1)
        weights = _kernel(np.abs(columns - place) * shrink, mode)
        if mode.exclude:
            weights = np.where((columns >= 0) & (columns < axis.old), weights, 0)
        weights = weights / weights.sum()
        np.add.at(matrix[row], np.clip(columns, 0, axis.old - 1), weights)
    return matrix


def _kernel(distance: np.ndarray, mode: Interpolation) -> np.ndarray:
    """What an element counts, by its distance."""
    if mode.mode == "linear":
        return np.maximum(1 - distance, 0)
    a, d = mode.cubic, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def outside(axis: ResizedAxis) -> np.ndarray:
    """Which new elements lie outside of the old ones, where a region of interest reaches beyond them."""
    places = _places(axis)
    found: np.ndarray = (places < 0) | (places > axis.old - 1)
    return found & (axis.how.coordinates == "tf_crop_and_resize")


def is_plain(axis: ResizedAxis, mode: str, coordinates: str) -> bool:
    """Whether it is what other libraries do: from size to size, with no more settings than these.

    Args:
        axis: Whatever its own settings are.
        mode: `nearest`, rounded down, `linear` or `cubic`.
        coordinates: As of the ONNX operator.
    """
    theirs = ResizedAxis(axis.old, axis.new, axis.new / axis.old, Interpolation(mode, coordinates, "floor"))
    matrices = resizing_matrix(axis), resizing_matrix(theirs)
    return axis.how.coordinates != "tf_crop_and_resize" and bool(np.allclose(*matrices, atol=1e-6))
