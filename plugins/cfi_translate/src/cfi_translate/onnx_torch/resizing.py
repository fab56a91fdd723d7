"""Resizing.

Every mode of ONNX is one matrix per axis, from the old places to the new ones. Where `nn.Upsample` has the same
matrices it is taken; otherwise the matrices themselves are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.onnx_torch.reader import Reader, is_float, operator, refuse, shape_of
from cfi_translate.program import Operation

_F = np.float32
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized.

    Attributes:
        old: Its size.
        new: Its new size.
        scale: What the operator says, which need not be the ratio of both.
        begin: Of the region of interest, in parts of the axis.
        end: Likewise.
    """

    old: int
    new: int
    scale: float
    begin: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class _Mode:
    """How the elements of an axis are found and weighed; attributes as of the ONNX operator."""

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude: bool = False
    antialias: bool = False
    outside: float = 0.0


@operator("Resize", "Upsample")
def _resize(op: Operation, to: Reader) -> fx.Node:
    value = op.input(0)
    sizes = shape_of(op, value)
    data, mode = to.tensor(value), _mode(op)
    resized = _axes(op, sizes)
    if not resized:
        return data
    if not is_float(op.output) and mode.mode != "nearest":
        raise refuse(op, "it interpolates integers")
    matrices = {axis: _matrix(one, mode) for axis, one in resized.items()}
    native = _native(resized, len(sizes), mode, matrices)
    if native is not None and is_float(op.output):
        return to.module(op, native, data)
    for axis, matrix in matrices.items():
        picks = matrix.argmax(axis=1)
        if mode.mode == "nearest" and mode.coordinates != "tf_crop_and_resize":
            data = to.function(torch.index_select, data, axis, to.buffer(f"{op.name}.places", picks))
            continue
        weights = to.buffer(f"{op.name}.weights", matrix.T.astype(op.output.dtype))
        if axis == len(sizes) - 1:
            data = to.function(torch.matmul, data, weights)
        else:
            moved = to.function(torch.transpose, data, axis, len(sizes) - 1)
            data = to.function(torch.transpose, to.function(torch.matmul, moved, weights), axis, len(sizes) - 1)
    if mode.coordinates == "tf_crop_and_resize":
        data = _extrapolated(op, to, data, resized, mode, len(sizes))
    return data


def _mode(op: Operation) -> _Mode:
    given = op.attributes
    kind = given.get("mode", "nearest")
    if op.kind == "Upsample" or op.version < 11:
        return _Mode(kind, "asymmetric", "floor")
    return _Mode(
        kind,
        given.get("coordinate_transformation_mode", "half_pixel"),
        given.get("nearest_mode", "round_prefer_floor"),
        given.get("cubic_coeff_a", -0.75),
        bool(given.get("exclude_outside", 0)),
        bool(given.get("antialias", 0)),
        given.get("extrapolation_value", 0.0),
    )


def _axes(op: Operation, sizes: tuple[int | None, ...]) -> dict[int, _Axis]:
    """The axes that are resized at all."""
    new = op.output.shape
    rank = len(sizes)
    if new is None:
        raise refuse(op, "its new sizes are computed while the model runs")
    axes = [axis % rank for axis in op.attributes.get("axes") or range(rank)]
    scales, region = _scales(op), None
    if op.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        roi = op.input(1)
        region = None if roi is None else roi.constant
        if region is None:
            raise refuse(op, "its region of interest is computed while the model runs")
    aspect = _aspect(op, sizes, new, axes) if scales is None else None
    found = {}
    for position, axis in enumerate(axes):
        size, target = sizes[axis], new[axis]
        scale = None if scales is None else float(scales[position])
        if size is None or target is None:
            if scale not in (None, 1.0) or region is not None:
                raise refuse(op, "it resizes an axis whose size is not known")
            continue
        scale = scale if scale is not None else aspect if aspect is not None else target / size
        begin, end = (0.0, 1.0) if region is None else (region[position], region[len(axes) + position])
        if scale != 1 or size != target or (begin, end) != (0.0, 1.0):
            found[axis] = _Axis(size, target, scale, float(begin), float(end))
    return found


def _scales(op: Operation) -> Any:
    if "scales" in op.attributes:
        return op.attributes["scales"]
    if op.kind == "Upsample" and "height_scale" in op.attributes:
        return (1.0, 1.0, op.attributes["height_scale"], op.attributes["width_scale"])
    value = op.input(1 if op.kind == "Upsample" or op.version < 11 else 2)
    if value is None or value.shape == (0,):
        return None
    if value.constant is None:
        raise refuse(op, "its scales are computed while the model runs")
    return value.constant


def _aspect(op: Operation, sizes: Any, new: Any, axes: list[int]) -> float | None:
    """The one scale for all axes where the operator keeps the aspect ratio."""
    policy = op.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    wanted = op.input(3)
    if wanted is None or wanted.constant is None:
        raise refuse(op, "its new sizes are computed while the model runs")
    ratios = [int(target) / sizes[axis] for target, axis in zip(wanted.constant, axes, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def _places(axis: _Axis, coordinates: str) -> np.ndarray:
    """Where, among the old elements, each new one lies; in float32, in which ONNX Runtime counts."""
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
    raise ValueError(f"the coordinates {coordinates!r} are not supported")


def _matrix(axis: _Axis, mode: _Mode) -> np.ndarray:
    """Weights of the old elements (columns) in the new ones (rows)."""
    places = _places(axis, mode.coordinates)
    matrix = np.zeros((axis.new, axis.old))
    if mode.mode == "nearest":
        matrix[np.arange(axis.new), np.clip(_nearest(places, mode.nearest), 0, axis.old - 1)] = 1
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


def _nearest(places: np.ndarray, rounding: str) -> np.ndarray:
    how: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - _F(0.5)),
        "round_prefer_ceil": lambda x: np.floor(x + _F(0.5)),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    return how[rounding](places).astype(np.int64)


def _kernel(distance: np.ndarray, mode: _Mode) -> np.ndarray:
    """What an element counts, by its distance."""
    if mode.mode == "linear":
        return np.maximum(1 - distance, 0)
    a, d = mode.cubic, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _native(axes: dict[int, _Axis], rank: int, mode: _Mode, matrices: dict[int, np.ndarray]) -> nn.Module | None:
    """The module of torch that does just this, if there is one."""
    if mode.coordinates == "tf_crop_and_resize" or rank not in (3, 4, 5) or not set(axes) <= set(range(2, rank)):
        return None
    if set(axes) != set(range(2, rank)) or (mode.mode == "cubic" and rank != 4):
        return None
    sizes = tuple(axes[axis].new for axis in range(2, rank))
    for aligned in (False, True):
        interpolated = "align_corners" if aligned else "half_pixel"
        coordinates = "asymmetric" if mode.mode == "nearest" else interpolated
        theirs = _Mode(mode.mode, coordinates, "floor")
        plain = {axis: _Axis(one.old, one.new, one.new / one.old) for axis, one in axes.items()}
        if all(np.allclose(matrices[axis], _matrix(one, theirs), atol=1e-6) for axis, one in plain.items()):
            if mode.mode == "nearest":
                return nn.Upsample(sizes)
            kind = _LINEAR[rank - 2] if mode.mode == "linear" else "bicubic"
            return nn.Upsample(sizes, mode=kind, align_corners=aligned)
    return None


def _extrapolated(op: Operation, to: Reader, data: fx.Node, axes: dict[int, _Axis], mode: _Mode, rank: int) -> fx.Node:
    """The number for outside where the region of interest reaches beyond the data."""
    for axis, one in axes.items():
        places = _places(one, mode.coordinates)
        outside = (places < 0) | (places > one.old - 1)
        if outside.any():
            shape = [-1 if position == axis else 1 for position in range(rank)]
            where = to.buffer(f"{op.name}.outside", outside.reshape(shape))
            data = to.function(torch.where, where, mode.outside, data)
    return data
