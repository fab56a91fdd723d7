"""Modules of torch by the number of axes over which they go, and functions of torch by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Modules = Mapping[int, Callable[..., nn.Module]]


def _by_rank(kind: str) -> Modules:
    return {rank: getattr(nn, f"{kind}{rank}d") for rank in (1, 2, 3)}


CONVOLUTIONS = _by_rank("Conv")
TRANSPOSED_CONVOLUTIONS = _by_rank("ConvTranspose")
MAXIMUM_POOLINGS = _by_rank("MaxPool")
AVERAGE_POOLINGS = _by_rank("AvgPool")
ADAPTIVE_MAXIMUM_POOLINGS = _by_rank("AdaptiveMaxPool")
ADAPTIVE_AVERAGE_POOLINGS = _by_rank("AdaptiveAvgPool")
_ZERO_PADDINGS = _by_rank("ZeroPad")
_CONSTANT_PADDINGS = _by_rank("ConstantPad")
BATCH_NORMALIZATIONS: Modules = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
"""By the number of all axes."""


def padding_module(pairs: Sequence[tuple[int, int]], fill: float = 0) -> nn.Module:
    """A module that pads the spatial axes, or crops them where a number is negative.

    Args:
        pairs: How much is put before and behind each of them.
        fill: The number that is put there.
    """
    around = tuple(one for pair in reversed(pairs) for one in pair)  # torch has the last axis first
    return _ZERO_PADDINGS[len(pairs)](around) if fill == 0 else _CONSTANT_PADDINGS[len(pairs)](around, fill)


def of_torch(*names: str) -> dict[str, Callable[..., Any]]:
    """The functions that torch has under the same names, without capitals."""
    return {name: getattr(torch, name.lower()) for name in names}
