"""Resizing of images and signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cfi_translate.grammar import require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.table import TorchOp, operator


@operator("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def nearest(op: TorchOp, to: OnnxGraph, x: Any, size: Any, scales: Any) -> OnnxValue:
    return _resize(op, to, x, scales, "asymmetric", mode="nearest", nearest_mode="floor")


@operator("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec", "_upsample_nearest_exact3d.vec")
def exactly_nearest(op: TorchOp, to: OnnxGraph, x: Any, size: Any, scales: Any) -> OnnxValue:
    return _resize(op, to, x, scales, "half_pixel", mode="nearest", nearest_mode="round_prefer_ceil")


@operator("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def linear(op: TorchOp, to: OnnxGraph, x: Any, size: Any, align_corners: bool, scales: Any) -> OnnxValue:
    return _resize(op, to, x, scales, "align_corners" if align_corners else "half_pixel", mode="linear")


@operator("upsample_bicubic2d.vec")
def cubic(op: TorchOp, to: OnnxGraph, x: Any, size: Any, align_corners: bool, scales: Any) -> OnnxValue:
    grid = "align_corners" if align_corners else "half_pixel"
    return _resize(op, to, x, scales, grid, mode="cubic", cubic_coeff_a=-0.75)


def _resize(op: TorchOp, to: OnnxGraph, x: Any, scales: Sequence[float] | None, grid: str, **how: Any) -> OnnxValue:
    """Resize by the sizes, or by the factors where torch was given factors."""
    old, new = x.shape[2:], op.shape[2:]
    fixed = not any(isinstance(one, torch.SymInt) for one in (*old, *new))
    require(fixed, "sizes of images follow the number of samples")
    how["coordinate_transformation_mode"] = grid
    factors = list(scales) if scales else [n / o for o, n in zip(old, new, strict=True)]
    if all(float(np.float32(one)) == one for one in factors):
        return to.node("Resize", x, None, np.array([1, 1, *factors], np.float32), **how)
    told = not scales or all(n == o * f for o, n, f in zip(old, new, factors, strict=True))
    require(told, "its factors cannot be told from its sizes; give sizes, or recompute_scale_factor=True")
    return to.node("Resize", x, None, None, list(new), axes=list(range(2, len(x.shape))), **how)
