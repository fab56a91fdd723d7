"""Sums of two values, which Zennit has a rule for where a module computes them: found and made modules as they run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from zennit.layer import Sum

_OUT_OF_PLACE = (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
_IN_PLACE = (torch.Tensor.add_, torch.Tensor.__iadd__)


class SumWatch(TorchFunctionMode):
    """Notes, while the model runs in this thread, the operations that add what both depends on the inputs.

    Attributes:
        nodes: These operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if is_sum(func, args, kwargs) and result.grad_fn is not None:
            self.nodes.append(result.grad_fn)
        return result


class Sums(TorchFunctionMode):
    """Has such sums computed by modules, each by its own, in the order in which they happen.

    Args:
        modules: As many instances of Zennit's `Sum` as there are sums.
    """

    def __init__(self, modules: nn.ModuleList) -> None:
        super().__init__()
        self._modules = iter(modules)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not is_sum(func, args, kwargs):
            return func(*args, **(kwargs or {}))
        # The list is exhausted where the model takes another way than it did before.
        module = next(self._modules, None) or Sum()
        result = module(torch.stack(torch.broadcast_tensors(*args[:2]), dim=-1))
        return args[0].copy_(result) if func in _IN_PLACE else result


def is_sum(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call adds two tensors that both depend on the inputs; parameters must not require gradients."""
    return (
        func in (*_OUT_OF_PLACE, *_IN_PLACE)
        and not kwargs
        and len(args) == 2
        and all(isinstance(value, Tensor) and value.requires_grad for value in args)
    )
