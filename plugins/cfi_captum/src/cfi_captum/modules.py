"""Modules that captum's rules know, for what models compute by other means (`cfi_core.specs.Guard.modules`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, nonlinear
from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.custom_modules import Addition_Module
from torch import Tensor, nn


class Function(nn.Module):
    """A function of tensors; LRP has a rule for it if it is linear."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Any, **sizes: Any) -> Any:
        """The function's result."""
        return self.function(*tensors, **sizes)


class Elementwise(Function):
    """A function of each element by itself: DeepLIFT's rescale rule holds for any (Shrikumar et al. 2017, 3.5.1)."""


class Passing(Function):
    """An activation with `f(0) = 0`, which hands relevance on as it is.

    So Bach et al. 2015 (section 2.6) treat ReLU and tanh, and Achtibat et al. 2024 (AttnLRP) GELU and SiLU.
    """


class Rectifier(nn.ReLU):
    """A rectifier that ends at a highest value, such as ReLU6.

    Captum's guided backpropagation takes its gradient and then the positive part, as of ReLU; deconvolution takes the
    positive part alone.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, input: Tensor) -> Tensor:
        """Values up to the highest one."""
        return torch.clamp(input, 0, self.most)


class Copy(nn.Module):
    """A use of a value by an activation, where other modules use it too: LRP gives it a rule."""

    def forward(self, input: Tensor) -> Tensor:
        """The value, in a tensor of its own."""
        return input.clone()


# Tables that captum looks exact types up in: another type changes nothing for those that are there.
SUPPORTED_NON_LINEAR[Elementwise] = nonlinear
SUPPORTED_NON_LINEAR_LAYERS.append(Passing)


def rectifier(**settings: Any) -> nn.Module:
    """For ReLU6, and a hardtanh that begins at zero."""
    low, high = settings.get("min_val", 0), settings.get("max_val", 6)
    return Rectifier(high) if low == 0 < high else nn.Hardtanh(low, high)


def addition() -> nn.Module:
    """Captum's module for a sum of two values."""
    return Addition_Module()


def hardtanh(min_val: float, max_val: float) -> nn.Module:
    """Relevance of zero is zero only if zero is within the bounds."""
    if min_val <= 0 <= max_val:
        return Passing(partial(F.hardtanh, min_val=min_val, max_val=max_val))
    return nn.Hardtanh(min_val, max_val)


def _passing(function: Callable[..., Tensor]) -> Callable[..., nn.Module]:
    return lambda **settings: Passing(partial(function, **settings))


relu6, leaky_relu, elu = _passing(F.relu6), _passing(F.leaky_relu), _passing(F.elu)
selu, celu, softsign = _passing(F.selu), _passing(F.celu), _passing(F.softsign)
gelu, silu, mish, hardswish = _passing(F.gelu), _passing(F.silu), _passing(F.mish), _passing(F.hardswish)


def knows_rectifier(module: nn.Module) -> bool:
    """Whether captum changes its gradient in guided backpropagation and deconvolution."""
    return isinstance(module, nn.ReLU)


def knows_difference(module: nn.Module) -> bool:
    """Whether captum has a rule of DeepLIFT's for it."""
    return type(module) in SUPPORTED_NON_LINEAR


def knows_relevance(module: nn.Module) -> bool:
    """Whether captum has a rule of LRP's for it, or the user has set one."""
    has_rule = hasattr(module, "rule") or getattr(module, "cfi_layout_only", False)
    return has_rule or type(module) in SUPPORTED_LAYERS_WITH_RULES or type(module) in SUPPORTED_NON_LINEAR_LAYERS
