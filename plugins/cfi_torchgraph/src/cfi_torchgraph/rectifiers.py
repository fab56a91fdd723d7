"""Modules of rectifiers, for canonical copies of models (`cfi_core.specs.Guard.modules`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Rectifier(nn.ReLU):
    """A rectifier that ends at a highest value, such as ReLU6.

    Rules of ReLU attach to it: guided backpropagation takes its gradient and then the positive part, deconvolution the
    positive part alone.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, input: Tensor) -> Tensor:
        """Values up to the highest one."""
        return torch.clamp(input, 0, self.most)


def rectifier(**settings: Any) -> nn.Module:
    """For ReLU6, and a hardtanh that begins at zero."""
    low, high = settings.get("min_val", 0), settings.get("max_val", 6)
    return Rectifier(high) if low == 0 < high else nn.Hardtanh(low, high)


def knows_rectifier(module: nn.Module) -> bool:
    """Whether rules of rectifiers attach to it."""
    return isinstance(module, nn.ReLU)
