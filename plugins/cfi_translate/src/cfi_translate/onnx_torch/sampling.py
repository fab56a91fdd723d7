"""Sampling at computed places."""

from __future__ import annotations

from torch import fx
from torch.nn import functional

from cfi_translate.onnx_torch.reader import Reader, numbers, operator, rank_of, refuse
from cfi_translate.program import Operation

_MODES = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}


@operator("GridSample")
def _grid_sample(op: Operation, to: Reader) -> fx.Node:
    mode = _MODES[op.attributes["mode"]]
    rank = rank_of(op, op.input(0))
    if rank not in (4, 5) or (rank == 5 and mode == "bicubic"):
        raise refuse(op, f"torch does not sample {rank - 2} spatial axes in this mode")
    return to.function(
        functional.grid_sample,
        to.tensor(op.input(0)),
        to.tensor(op.input(1)),
        mode=mode,
        padding_mode=op.attributes["padding_mode"],
        align_corners=bool(op.attributes["align_corners"]),
    )


@operator("AffineGrid")
def _affine_grid(op: Operation, to: Reader) -> fx.Node:
    sizes = numbers(op, op.input(1), "size")
    aligned = bool(op.attributes["align_corners"])
    return to.function(functional.affine_grid, to.tensor(op.input(0)), list(sizes or ()), align_corners=aligned)
