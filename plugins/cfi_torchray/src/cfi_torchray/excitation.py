"""Rules of excitation backprop for what TorchRay's own do not know, or get wrong.

In all of them `p`, the gradient that comes in, is the probability of winning of each output (Zhang et al. 2016); what
goes out is that of each input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def share(*inputs: Tensor) -> Tensor:
    """The sum of a residual connection: each part wins by its share of the sum, as in TorchRay.

    TorchRay's own rule gives NaN where the sum is 0.
    """
    total: Tensor = EBPSum.apply(*inputs)
    return total


def average(value: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """A mean over axes, as TorchRay has it for average pools: a linear map with positive weights."""
    mean: Tensor = EBPMean.apply(value, dim, keepdim)
    return mean


def saturate(value: Tensor, upper: float) -> Tensor:
    """A rectifier with an upper bound: an activation like others, through which `p` passes where it is active."""
    bounded: Tensor = EBPSaturatedReLU.apply(value, upper)
    return bounded


class EBPSum(torch.autograd.Function):
    """See `share`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """The sum."""
        ctx.save_for_backward(*inputs)
        total = inputs[0]
        for one in inputs[1:]:
            total = total + one
        return total

    @staticmethod
    def backward(ctx: Any, p: Tensor) -> tuple[Tensor, ...]:
        """The share of each part."""
        inputs = ctx.saved_tensors
        total = sum(inputs)
        return tuple(torch.where(total == 0, 0.0, one / total * p) for one in inputs)


class EBPMean(torch.autograd.Function):
    """See `average`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, dim: Any, keepdim: bool) -> Tensor:
        """The mean."""
        ctx.save_for_backward(value)
        ctx.dim = tuple(range(value.dim())) if dim is None else dim
        ctx.keepdim = keepdim
        return value.mean(ctx.dim, keepdim)

    @staticmethod
    def backward(ctx: Any, p: Tensor) -> tuple[Tensor, None, None]:
        """By how much each element holds of the sum."""
        (value,) = ctx.saved_tensors
        total = value.sum(ctx.dim, keepdim=True)
        p = p if ctx.keepdim else p.reshape(total.shape)
        return value * torch.where(total == 0, 0.0, p / total), None, None


class EBPSaturatedReLU(torch.autograd.Function):
    """See `saturate`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, upper: float) -> Tensor:
        """The value between 0 and the bound."""
        ctx.save_for_backward(value)
        return value.clamp(0, upper)

    @staticmethod
    def backward(ctx: Any, p: Tensor) -> tuple[Tensor, None]:
        """All of it."""
        (value,) = ctx.saved_tensors
        return torch.where(value > 0, p, 0.0), None
