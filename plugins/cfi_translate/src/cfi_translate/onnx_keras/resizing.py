"""Resizing: Keras's layer where it computes the same, else products with the constant matrix of each axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import layers, ops

from cfi_translate.onnx_keras.building import Builder, Handler
from cfi_translate.onnx_keras.tensors import Tensor, Unsupported, channels_last
from cfi_translate.program import Operation

_LETTERS = "abcdefgh"
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


def _resize(builder: Builder, operation: Operation) -> Tensor:
    tensor = builder.tensor(operation.input(0))
    if operation.output.shape is None:
        raise Unsupported("the size of its result is not known")
    settings = dict(operation.attributes)
    if operation.kind == "Upsample" or operation.version < 11:
        settings.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    if settings.get("antialias", 0):
        raise Unsupported("anti-aliasing is not supported")
    if settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("only the policy 'stretch' is supported")
    sizes = tensor.sizes
    scales = _scales(builder, operation, tensor.rank)
    changed = [axis for axis, scale in scales.items() if scale != 1 or sizes[axis] != operation.output.shape[axis]]
    targets: dict[int, int] = {}
    for axis in changed:
        target = operation.output.shape[axis]
        if target is None or sizes[axis] is None:
            raise Unsupported("resizing samples is not supported")
        targets[axis] = target
    if not targets:
        return tensor
    layer = _layer(builder, operation, tensor, targets, settings, scales)
    if layer is not None:
        return Tensor(layer(tensor.value), tensor.axes)
    value = tensor.value
    for axis, target in targets.items():
        size = int(sizes[axis] or 0)
        coordinates = _coordinates(size, target, scales[axis], settings)
        place = tensor.position(axis)
        if settings.get("mode", "nearest") == "nearest":
            value = ops.take(value, _nearest(coordinates, size, settings), axis=place)
            continue
        if not tensor.is_float:
            raise Unsupported(f"interpolating {tensor.dtype} is not supported")
        matrix = _matrix(coordinates, size, settings).astype(tensor.dtype)
        term = _LETTERS[: tensor.rank]
        result = term.replace(term[place], "z")
        value = ops.einsum(f"{term},z{term[place]}->{result}", value, matrix)
    return Tensor(builder.named(value, operation.name), tensor.axes)


def _scales(builder: Builder, operation: Operation, rank: int) -> dict[int, float]:
    """How many times larger each axis becomes."""
    given_axes = operation.attributes.get("axes")
    axes = [axis % rank for axis in given_axes] if given_axes else list(range(rank))
    scales = operation.attributes.get("scales")
    position = 1 if operation.kind == "Upsample" or operation.version < 11 else 2
    value = operation.input(position)
    if scales is None and value is not None and value.shape != (0,):
        scales = builder.array(value, "scale").reshape(-1).tolist()
    if scales is not None:
        return dict(zip(axes, scales, strict=True))
    before, after = builder.tensor(operation.input(0)).sizes, operation.output.shape
    assert after is not None
    return {axis: 1.0 if before[axis] is None else float(after[axis] or 0) / float(before[axis] or 1) for axis in axes}


def _layer(
    builder: Builder,
    operation: Operation,
    tensor: Tensor,
    targets: Mapping[int, int],
    settings: Mapping[str, Any],
    scales: Mapping[int, float],
) -> Any:
    """The native layer, if it computes the same."""
    if tensor.rank != 4 or tensor.axes != channels_last(4) or not tensor.is_float or not set(targets) <= {2, 3}:
        return None
    factors = [targets.get(axis, tensor.sizes[axis] or 0) / (tensor.sizes[axis] or 1) for axis in (2, 3)]
    if any(factor % 1 or scales.get(axis, 1) != factor for axis, factor in zip((2, 3), factors, strict=True)):
        return None
    mode = settings.get("coordinate_transformation_mode", "half_pixel")
    nearest = settings.get("mode", "nearest") == "nearest"
    plain = mode == "asymmetric" and settings.get("nearest_mode") == "floor"
    # With whole factors half pixels fall on the middle of a block, which no rounding moves out of it.
    if nearest and not plain and not (mode == "half_pixel" and "round" in settings.get("nearest_mode", "round")):
        return None
    if not nearest and (settings.get("mode") != "linear" or mode not in _HALF_PIXEL):
        return None
    if not nearest and mode != "half_pixel" and 1 in targets.values():
        return None
    if not nearest and tensor.dtype == "float64":
        return None  # TensorFlow interpolates in single precision
    return layers.UpSampling2D(
        tuple(int(factor) for factor in factors),
        data_format="channels_last",
        interpolation="nearest" if nearest else "bilinear",
        dtype=tensor.dtype,
        name=builder.name(operation.name),
    )


def _coordinates(size: int, target: int, scale: float, settings: Mapping[str, Any]) -> np.ndarray:
    """Where each new element lies in the old axis."""
    at = np.arange(target, dtype=np.float32)
    factor = np.float32(scale)
    half = np.float32(0.5)
    mode = settings.get("coordinate_transformation_mode", "half_pixel")
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and target > 1):
        return (at + half) / factor - half
    if mode == "pytorch_half_pixel" or (mode == "align_corners" and target == 1):
        return np.zeros(target, np.float32)
    if mode == "align_corners":
        return at * np.float32(size - 1) / np.float32(target - 1)
    if mode == "asymmetric":
        return at / factor
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(target) / (factor * np.float32(size))
        offset = np.float32(size) / 2 * (1 - adjustment)
        return (offset + (at + half) / factor - half).astype(np.float32)
    raise Unsupported(f"the coordinates {mode!r} are not supported")


def _nearest(coordinates: np.ndarray, size: int, settings: Mapping[str, Any]) -> np.ndarray:
    rounding = settings.get("nearest_mode", "round_prefer_floor")
    half = np.float32(0.5)
    roundings: Mapping[str, Callable[[], np.ndarray]] = {
        "round_prefer_floor": lambda: np.ceil(coordinates - half),
        "round_prefer_ceil": lambda: np.floor(coordinates + half),
        "floor": lambda: np.floor(coordinates),
        "ceil": lambda: np.ceil(coordinates),
    }
    rounded = roundings[rounding]()
    return rounded.clip(0, size - 1).astype(np.int32)


def _matrix(coordinates: np.ndarray, size: int, settings: Mapping[str, Any]) -> np.ndarray:
    """Weight of each old element in each new one."""
    mode = settings.get("mode")
    if mode == "linear":
        coordinates = coordinates.clip(0, size - 1)
        reach = (0, 1)
    elif mode == "cubic":
        reach = (-1, 2)
    else:
        raise Unsupported(f"the mode {mode!r} is not supported")
    matrix = np.zeros((len(coordinates), size))
    for row, at in enumerate(coordinates.astype(np.float64)):
        base = int(np.floor(at))
        taken = np.arange(base + reach[0], base + reach[1] + 1)
        weights = 1 - np.abs(at - taken) if mode == "linear" else _cubic(at - taken, settings)
        if mode == "cubic" and settings.get("exclude_outside", 0):
            weights = np.where((taken < 0) | (taken >= size), 0, weights)
            weights = weights / weights.sum()
        np.add.at(matrix[row], taken.clip(0, size - 1), weights)
    return matrix


def _cubic(distance: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    a = settings.get("cubic_coeff_a", -0.75)
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


OPERATORS: dict[str, Handler] = {"Resize": _resize, "Upsample": _resize}
