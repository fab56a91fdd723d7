"""Small models, and what the tests of this plugin share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import cfi_core as cfi

CLASSES = 4
IMAGE = (2, 6, 8)


class Residual(nn.Module):
    """Convolution, batch norm, residual sum, average and max pooling, linear layer; no two axes of one size.

    Modules are defined in another order than they run, the sum is in place, one rectifier is used twice.
    """

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(12, CLASSES, bias=bias)
        self.bn2 = nn.BatchNorm2d(3)
        self.bn1 = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1, bias=bias)
        self.average = nn.AvgPool2d((1, 2))
        self.maximum = nn.MaxPool2d((3, 2))
        randomize(self, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(skip))
        x += skip
        x = self.relu(x)
        x = self.maximum(self.average(x))
        return self.fc(torch.flatten(x, 1))


class Plain(nn.Sequential):
    """Convolutions, rectifiers, max pooling, linear layers; every operation a module, in order."""

    def __init__(self, *, bias: bool = True, softmax: bool = False) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 5, 2, bias=bias),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(30, 7, bias=bias),
            nn.ReLU(),
            nn.Linear(7, CLASSES, bias=bias),
            *([nn.Softmax(1)] if softmax else []),
        )


def randomize(model: nn.Module, *, bias: bool = True) -> None:
    """Batch norms that do something."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = torch.randn(module.num_features) * (0.3 if bias else 0)
            module.running_var = torch.rand(module.num_features) + 0.5
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3 if bias else 0)


def images(samples: int = 2, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(samples, *IMAGE, dtype=dtype)


def relevance(model: nn.Module, key: str, x: Tensor, **arguments: Any) -> np.ndarray:
    """The values that `cfi.attribute` gives."""
    found: Any = attribute(model, key, x, **arguments)
    values: np.ndarray = found.values
    return values


def attribute(model: nn.Module, key: str, x: Any, **arguments: Any) -> Any:
    arguments.setdefault("target", 1)
    return cfi.attribute(model, key, "zennit", inputs=x, **arguments)


def warned(model: nn.Module, key: str, x: Any, **arguments: Any) -> tuple[Any, str]:
    """The attribution, and all that was warned of."""
    with pytest.warns(cfi.CFIWarning) as told:
        found = attribute(model, key, x, **arguments)
    return found, "\n".join(str(one.message) for one in told)
