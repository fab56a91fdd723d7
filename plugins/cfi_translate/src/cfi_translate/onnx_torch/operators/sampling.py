"""Sampling at computed places."""

from __future__ import annotations

from torch import fx
from torch.nn import functional

from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import TorchBuilder
from cfi_translate.onnx_torch.table import operator
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import constant_of, rank_of

_MODES = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(op: Operation, to: TorchBuilder, data: Value, grid: Value) -> fx.Node:
    mode, rank = _MODES[op.attributes["mode"]], rank_of(data)
    supported = rank == 4 or (rank == 5 and mode != "bicubic")
    require(supported, f"torch does not sample {rank - 2} spatial axes in this mode")
    return to.function(
        functional.grid_sample,
        data,
        grid,
        mode=mode,
        padding_mode=op.attributes["padding_mode"],
        align_corners=bool(op.attributes["align_corners"]),
    )


@operator("AffineGrid")
def affine_grid(op: Operation, to: TorchBuilder, theta: Value, size: Value) -> fx.Node:
    sizes, is_aligned = constant_of(size, "size").tolist(), bool(op.attributes["align_corners"])
    return to.function(functional.affine_grid, theta, sizes, align_corners=is_aligned)
