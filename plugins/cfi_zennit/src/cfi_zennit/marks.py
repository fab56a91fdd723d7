"""Leaves no mark on a model, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def without_marks(model: nn.Module) -> Iterator[None]:
    """Removes on leaving the hooks that were put on inside, if any are left."""
    before = [(module, {name: set(getattr(module, name)) for name in _HOOKS}) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks in before:
            for name, known in hooks.items():
                present = getattr(module, name)
                for key in present.keys() - known:
                    del present[key]
