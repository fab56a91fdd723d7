"""Plain functions of torch tensors as models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cfi_core.errors import InputError


class TorchFunction(nn.Module):
    """A model that calls a function. It has no layers, and what the function holds cannot be seen or copied.

    Attributes:
        function: Takes one tensor per input.
        ends: What its outputs go through, one after the other.
    """

    def __init__(self, function: Callable[..., Any], ends: tuple[Callable[[Any], Any], ...] = ()) -> None:
        super().__init__()
        self.function, self.ends = function, ends
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the function gives."""
        outputs = self.function(*inputs)
        for end in self.ends:
            outputs = end(outputs)
        return outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchFunction:
        memo[id(self)] = copy = TorchFunction(self.function, self.ends)
        return copy


def function_model(function: Any) -> TorchFunction:
    """The function as a model.

    Raises:
        InputError: It is no function, or calls a module in training mode, which nobody but the user can switch.
    """
    if not callable(function) or isinstance(function, type):
        raise InputError(f"{function!r} is no model. Pass a torch.nn.Module or a function of tensors.")
    for module in modules_behind(function):
        for name, part in module.named_modules():
            if part.training and isinstance(part, _DropoutNd | _BatchNorm):
                raise InputError(
                    f"The function calls a {type(module).__name__} in training mode: its "
                    f"{name or type(part).__name__!r} would be random, or change with every call. Call .eval() on it "
                    f"first, or pass the module itself."
                )
    return TorchFunction(function)


def modules_behind(function: Any) -> Iterator[nn.Module]:
    """The modules that a function plainly names: as its own object, an argument, in its closure or as a global."""
    if isinstance(function, nn.Module):
        values = [function]
    elif isinstance(function, partial):
        values = [*function.args, *function.keywords.values()]
        yield from modules_behind(function.func)
    elif inspect.ismethod(function):
        values = [function.__self__]
    elif inspect.isfunction(function):
        try:
            named = inspect.getclosurevars(function)
        except ValueError:
            return  # a variable of the closure has no value yet
        values = [*named.nonlocals.values(), *named.globals.values()]
    else:
        return
    yield from (value for value in values if isinstance(value, nn.Module))
