"""Leaves no mark on a model, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@contextmanager
def without_marks(*roots: Any) -> Iterator[None]:
    """Removes on leaving what was put on modules inside: hooks, and attributes such as captum's `rule`.

    Libraries remove most of it by themselves, but not all of it after a failure.

    Args:
        roots: Models and layers; what is no module has no marks.
    """
    modules = [module for root in roots if isinstance(root, nn.Module) for module in root.modules()]
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
