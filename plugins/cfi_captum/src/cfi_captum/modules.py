"""Modules that captum's rules know, for what models compute by other means (`cfi_core.specs.Guard.modules`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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


class Copy(nn.Module):
    """A use of a value by an activation, where other modules use it too: LRP gives it a rule."""

    def forward(self, input: Tensor) -> Tensor:
        """The value, in a tensor of its own."""
        return input.clone()


# Tables that captum looks exact types up in: another type changes nothing for those that are there.
SUPPORTED_NON_LINEAR[Elementwise] = nonlinear
SUPPORTED_NON_LINEAR_LAYERS.append(Passing)


def addition() -> nn.Module:
    """Captum's module for a sum of two values."""
    return Addition_Module()


def hardtanh(min_val: float, max_val: float) -> nn.Module:
    """Relevance of zero is zero only if zero is within the bounds."""
    if min_val <= 0 <= max_val:
        return Passing(partial(F.hardtanh, min_val=min_val, max_val=max_val))
    return nn.Hardtanh(min_val, max_val)


def _make_passing(function: Callable[..., Tensor]) -> Callable[..., nn.Module]:
    return lambda **settings: Passing(partial(function, **settings))


relu6, leaky_relu, elu = _make_passing(F.relu6), _make_passing(F.leaky_relu), _make_passing(F.elu)
selu, celu, softsign = _make_passing(F.selu), _make_passing(F.celu), _make_passing(F.softsign)
gelu, silu, mish, hardswish = (
    _make_passing(F.gelu),
    _make_passing(F.silu),
    _make_passing(F.mish),
    _make_passing(F.hardswish),
)


def knows_difference(module: nn.Module) -> bool:
    """Whether captum has a rule of DeepLIFT's for it."""
    return type(module) in SUPPORTED_NON_LINEAR


def knows_relevance(module: nn.Module) -> bool:
    """Whether captum has a rule of LRP's for it, or the user has set one."""
    has_rule = hasattr(module, "rule") or getattr(module, "cfi_layout_only", False)
    return has_rule or type(module) in SUPPORTED_LAYERS_WITH_RULES or type(module) in SUPPORTED_NON_LINEAR_LAYERS
