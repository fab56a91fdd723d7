"""Leaves no mark on a model, also after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@contextmanager
def without_marks(model: Callable[..., Any], layers: tuple[Any, ...]) -> Iterator[None]:
    """Removes on leaving what captum put on the modules: hooks, and attributes such as `rule` and `activations`.

    Captum removes most of it by itself, but not all of it after a failure.
    """
    modules = [module for root in (model, *layers) if isinstance(root, nn.Module) for module in root.modules()]
    before = [(module, set(vars(module)), {name: set(getattr(module, name)) for name in _HOOKS}) for module in modules]
    try:
        yield
    finally:
        for module, attributes, hooks in before:
            for name in vars(module).keys() - attributes:
                delattr(module, name)
            for name, known in hooks.items():
                present = getattr(module, name)
                for key in present.keys() - known:
                    del present[key]
