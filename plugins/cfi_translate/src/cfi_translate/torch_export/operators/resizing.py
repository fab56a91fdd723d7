"""Resizing of images and signals."""

# What a function writes is said by its decorator.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import Emitter, Value
from cfi_translate.torch_export.operators.registry import writes


@writes("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def nearest(emit: Emitter, x: Any, size: Any, scales: Any) -> Value:
    return _resized(
        emit, x, size, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


@writes("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec", "_upsample_nearest_exact3d.vec")
def exactly_nearest(emit: Emitter, x: Any, size: Any, scales: Any) -> Value:
    return _resized(
        emit, x, size, scales,
        mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil",
    )  # fmt: skip


@writes("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def linear(emit: Emitter, x: Any, size: Any, align_corners: bool, scales: Any) -> Value:
    how = "align_corners" if align_corners else "half_pixel"
    return _resized(emit, x, size, scales, mode="linear", coordinate_transformation_mode=how)


@writes("upsample_bicubic2d.vec")
def cubic(emit: Emitter, x: Any, size: Any, align_corners: bool, scales: Any) -> Value:
    how = "align_corners" if align_corners else "half_pixel"
    return _resized(emit, x, size, scales, mode="cubic", coordinate_transformation_mode=how, cubic_coeff_a=-0.75)


def _resized(emit: Emitter, x: Any, size: Sequence[int] | None, scales: Sequence[float] | None, **how: Any) -> Value:
    """Resize by the sizes, or by the factors where torch was given factors."""
    old, new = x.shape[2:], emit.result.shape[2:]
    if any(isinstance(one, torch.SymInt) for one in (*old, *new)):
        raise emit.refuse("sizes of images follow the number of samples")
    factors = list(scales) if scales else [n / o for o, n in zip(old, new, strict=True)]
    exact = all(float(np.float32(one)) == one for one in factors)
    if exact:
        return emit.op("Resize", x, None, np.array([1, 1, *factors], np.float32), **how)
    if scales and any(n != o * f for o, n, f in zip(old, new, factors, strict=True)):
        raise emit.refuse("its factors cannot be told from its sizes; give sizes, or recompute_scale_factor=True")
    axes = list(range(2, len(x.shape)))
    return emit.op("Resize", x, None, None, np.array(new, np.int64), axes=axes, **how)
