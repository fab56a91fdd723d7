"""Small models for the tests of this plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

IMAGE = (3, 10, 12)
CLASSES = 4


def images(samples: int = 2, shape: tuple[int, ...] = IMAGE, seed: int = 6) -> np.ndarray:
    """Pixels from 0 to 1."""
    return np.random.default_rng(seed).random((samples, *shape)).astype(np.float32)


class Plain(nn.Sequential):
    """Every kind of layer that TorchRay has a rule for, without branches."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, stride=2, padding=1),
            activation(),
            nn.AvgPool2d(2, 1),
            nn.Flatten(),
            nn.Linear(5 * 2 * 2, 7),
            activation(),
            nn.Linear(7, CLASSES),
        )


class Called(nn.Module):
    """The plain model, with its rectifiers called in any way."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.plain = Plain(nn.Identity)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        for position, layer in enumerate(self.plain):
            x = layer(x)
            if position in (1, 4, 8):
                x = self.rectify(x)
        return x


class Residual(nn.Module):
    """A residual block that is none of torchvision's, with batch norms of both signs, and a mean instead of a pool."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor] = torch.add) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, CLASSES)
        self.add = add
        for norm in (self.norm, self.norm2):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.add(self.norm2(self.second(x)), x))
        return self.head(x.mean((2, 3)))


def seeded(make: Callable[..., nn.Module], *args: Any, seed: int = 4) -> nn.Module:
    """A model in inference mode, the same each time."""
    torch.manual_seed(seed)
    return make(*args).eval()
