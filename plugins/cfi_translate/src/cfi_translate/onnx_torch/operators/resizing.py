"""Resizing: `nn.Upsample` where it has the same matrix for each axis, otherwise these matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder, along
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.resizing import ResizedAxis, is_plain, outside, resized_axes, resizing_matrix
from cfi_translate.semantics.values import rank_of

_MODES = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}


@operator("Resize", "Upsample")
def resizing(op: Operation, to: TorchBuilder, data: Value, *given: Value | None) -> fx.Node:
    resized, rank = resized_axes(op, data, *given), rank_of(data)
    native = _native(resized, rank) if data.is_float else None
    if native is not None:
        return to.module(op, native, data)
    result: Any = to.tensor(data)
    for axis, one in resized.items():
        require(data.is_float or one.how.mode == "nearest", "it interpolates integers")
        matrix = resizing_matrix(one)
        if one.how.picks:
            places = to.buffer(f"{op.name}.places", matrix.argmax(axis=1))
            result = to.function(torch.index_select, result, axis, places)
            continue
        weights = to.buffer(f"{op.name}.weights", matrix.T.astype(op.output.dtype))
        if axis != rank - 1:
            result = to.function(torch.transpose, result, axis, rank - 1)
        result = to.function(torch.matmul, result, weights)
        if axis != rank - 1:
            result = to.function(torch.transpose, result, axis, rank - 1)
    for axis, one in resized.items():
        if (beyond := outside(one)).any():
            where = to.buffer(f"{op.name}.outside", beyond.reshape(along(axis, rank)))
            result = to.function(torch.where, where, one.how.outside, result)
    return result


def _native(resized: dict[int, ResizedAxis], rank: int) -> nn.Module | None:
    """The module of torch that does just this, if there is one."""
    if not resized or rank not in (3, 4, 5) or set(resized) != set(range(2, rank)):
        return None
    mode, sizes = resized[2].how.mode, tuple(resized[axis].new for axis in range(2, rank))
    if mode == "nearest" and all(is_plain(one, mode, "asymmetric") for one in resized.values()):
        return nn.Upsample(sizes)
    kind = _MODES.get(mode, {}).get(rank - 2)
    for aligned, coordinates in ((False, "half_pixel"), (True, "align_corners")):
        if kind is not None and all(is_plain(one, mode, coordinates) for one in resized.values()):
            return nn.Upsample(sizes, mode=kind, align_corners=aligned)
    return None
