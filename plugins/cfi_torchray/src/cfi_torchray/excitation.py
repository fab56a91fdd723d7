"""Rules of excitation backprop for what TorchRay's own do not know, or get wrong.

In all of them `p`, the gradient that comes in, is the probability of winning of each output (Zhang et al. 2016); what
goes out is that of each input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfi_torchgraph.nodes import walk

_BATCH_NORM = F.batch_norm
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def orient(model: nn.Module, inputs: Tensor, explained: Iterable[nn.Module]) -> None:
    """Lets no batch normalisation behind a linear layer turn a sign, without changing what the model computes.

    Normalisation and layer are one linear map, of which the positive weights count. Where the scale of a channel is
    negative, these are the layer's negative ones, and TorchRay, which passes over the normalisation, takes the others.
    So the sign goes over to the layer: its weights, the mean and the scale are negated. The model's parameters must be
    its own.
    """
    behind = _find_normalisations(model, inputs)
    for layer, norm in behind:
        if layer in explained or norm.weight is None or not bool((norm.weight < 0).any()):
            continue
        sign = torch.where(norm.weight < 0, -1.0, 1.0).to(norm.weight.dtype)
        _exchange(layer, "weight", layer.weight * sign.reshape(-1, *(1,) * (layer.weight.dim() - 1)))
        if layer.bias is not None:
            _exchange(layer, "bias", layer.bias * sign)
        _exchange(norm, "weight", norm.weight * sign)
        norm.running_mean = norm.running_mean * sign


def _exchange(module: nn.Module, name: str, value: Tensor) -> None:
    setattr(module, name, nn.Parameter(value.detach(), requires_grad=False))


def _find_normalisations(model: nn.Module, inputs: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Linear layers and the normalisations that alone take what they give; all of them are called once."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensors, so that no other gets their identity
    pairs: list[tuple[nn.Module, nn.Module, Tensor]] = []
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[module] += 1
        if isinstance(module, _LINEAR):
            made[id(output)] = module, output
        elif module.running_mean is not None and id(args[0]) in made:
            pairs.append((made[id(args[0])][0], module, args[0]))

    modules = [module for module in model.modules() if isinstance(module, (*_LINEAR, *_NORMS))]
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        with torch.enable_grad():
            outputs = model(inputs.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    root = outputs.grad_fn if isinstance(outputs, Tensor) else None
    takers = Counter(before for node in walk([root]) for before, _ in node.next_functions)
    alone = [(layer, norm) for layer, norm, value in pairs if takers[value.grad_fn] == 1]
    return [(layer, norm) for layer, norm in alone if calls[layer] == calls[norm] == 1]


def normalise(value: Tensor, mean: Any, variance: Any, weight: Any = None, bias: Any = None, *rest: Any) -> Tensor:
    """Batch normalisation by itself: each output has one input, which wins all unless its weight is negative."""
    normal: Tensor = EBPBatchNorm.apply(value, mean, variance, weight, bias, *rest)
    return normal


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


class EBPBatchNorm(torch.autograd.Function):
    """See `normalise`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mean: Any, variance: Any, weight: Any, bias: Any, *rest: Any) -> Tensor:
        """As ever."""
        ctx.negative = None if weight is None else weight < 0
        ctx.others = 4 + len(rest)
        return _BATCH_NORM(value, mean, variance, weight, bias, *rest)

    @staticmethod
    def backward(ctx: Any, p: Tensor) -> tuple[Any, ...]:
        """All of it, or nothing."""
        if ctx.negative is not None:
            p = torch.where(ctx.negative.reshape(1, -1, *(1,) * (p.dim() - 2)), 0.0, p)
        return (p, *(None,) * ctx.others)


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
