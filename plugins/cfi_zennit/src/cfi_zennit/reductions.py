"""Sums and means, which Zennit has rules for where modules compute them: found, and made modules, as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from zennit.layer import Sum

_ADDING = (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
_ADDING_IN_PLACE = (torch.Tensor.add_, torch.Tensor.__iadd__)
_REDUCING = {torch.mean: "mean", torch.Tensor.mean: "mean", torch.sum: "sum", torch.Tensor.sum: "sum"}


class Reduction(nn.AvgPool1d):
    """A sum or mean over axes other than the samples'; by its class it gets the rule of average pooling."""

    def __init__(self, function: str, dim: tuple[int, ...], keepdim: bool) -> None:
        super().__init__(1)
        self.function, self.dim, self.keepdim = function, dim, keepdim

    def forward(self, input: Tensor) -> Tensor:
        """The sums or means."""
        reduced: Tensor = getattr(torch, self.function)(input, dim=self.dim, keepdim=self.keepdim)
        return reduced


@dataclass(frozen=True, eq=False)
class Found:
    """A call that a module can make.

    Attributes:
        module: The module.
        operand: Makes what it takes.
        in_place: What is to hold the result as well.
    """

    module: nn.Module
    operand: Callable[[], Tensor]
    in_place: Tensor | None = None


class ReductionWatch(TorchFunctionMode):
    """Notes, while the model runs in this thread, what sums and means of values that depend on the inputs happen.

    Attributes:
        nodes: These operations.
        modules: A module for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.modules: list[nn.Module] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = find(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if found is not None and result.grad_fn is not None:
            self.nodes.append(result.grad_fn)
            self.modules.append(found.module)
        return result


class AsModules(TorchFunctionMode):
    """Has them computed by modules, each by its own, in the order in which they happen.

    Args:
        modules: One for each.
    """

    def __init__(self, modules: nn.ModuleList) -> None:
        super().__init__()
        self._modules: Iterator[nn.Module] = iter(modules)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = find(func, args, kwargs or {})
        if found is None:
            return func(*args, **(kwargs or {}))
        # The modules are exhausted where the model takes another way than it did before.
        result = next(self._modules, found.module)(found.operand())
        return result if found.in_place is None else found.in_place.copy_(result)


def find(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found | None:
    """The module for a call, if it is a sum or mean of what depends on the inputs; parameters require no gradients."""
    if func in (*_ADDING, *_ADDING_IN_PLACE):
        if kwargs or len(args) != 2 or not all(isinstance(one, Tensor) and one.requires_grad for one in args):
            return None
        return Found(Sum(), partial(_stack, *args), args[0] if func in _ADDING_IN_PLACE else None)
    if func in _REDUCING:
        return _reduction(_REDUCING[func], *args, **kwargs)
    return None


def _stack(one: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(one, other), dim=-1)


def _reduction(
    function: str, input: Any = None, dim: Any = None, keepdim: bool = False, axis: Any = None, **others: Any
) -> Found | None:
    dim = axis if dim is None else dim
    known = isinstance(input, Tensor) and input.requires_grad and dim is not None and not others
    if not known:
        return None
    axes = tuple(one % input.dim() for one in (dim if isinstance(dim, tuple | list) else (dim,)))
    return Found(Reduction(function, axes, keepdim), lambda: input) if axes and 0 not in axes else None
