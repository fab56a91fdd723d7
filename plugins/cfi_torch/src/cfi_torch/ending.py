"""Modules that end elsewhere: in some of their outputs, or in what a function makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from cfi_core.framework import Pick
from cfi_torch.derivation import derive, view
from cfi_torch.function import TorchFunction

End = Callable[[Any], Any]

_known: WeakKeyDictionary[nn.Module, dict[tuple[Pick, str], nn.Module]] = WeakKeyDictionary()
"""Modules that end in one output: the same again for the same module, so that what is kept for it is found."""


def ended_by(model: nn.Module, end: End) -> nn.Module:
    """The same module (parameters, submodules, buffers, hooks and mode are shared), with another end.

    It is of a class derived from the module's own, whose forward pass goes on with `end`.
    """
    if isinstance(model, TorchFunction):
        return TorchFunction(model.function, (*model.ends, end))
    if isinstance(model, torch.jit.ScriptModule):
        return Ended(model, end)
    # Hooks on the module itself, and a forward exchanged by hand, come before the end.
    name = "__call__" if model._forward_hooks or "forward" in vars(model) else "forward"
    if not isinstance(end, Pick):
        return _derived(model, end, name)
    known = _known.setdefault(model, {})
    if (end, name) not in known:
        known[end, name] = _derived(model, end, name)
    return known[end, name]


def _derived(model: nn.Module, end: End, name: str) -> nn.Module:
    kind: Any = type(model)
    inner = getattr(kind, name)

    def forward(self: nn.Module, *inputs: Any) -> Any:
        return end(inner(self, *inputs))

    return view(model, derive(kind, forward, f"ended by {end}", name))


class Ended(nn.Module):
    """A module whose class cannot be derived from, with another end.

    Attributes:
        model: The module.
        end: What its outputs go through.
    """

    def __init__(self, model: nn.Module, end: End) -> None:
        super().__init__()
        self.model, self.end = model, end
        self.training = getattr(model, "training", False)

    def forward(self, *inputs: Any) -> Any:
        """What the end makes of the module's outputs."""
        return self.end(self.model(*inputs))
