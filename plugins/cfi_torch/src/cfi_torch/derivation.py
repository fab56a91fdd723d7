"""Modules in classes derived from their own, which call them in another way: all that a module holds is shared."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def derive(kind: type[nn.Module], forward: Callable[..., Any], how: str, name: str = "forward") -> type[nn.Module]:
    """A class of modules with another forward pass; its name says how it is called, and it is known by its name.

    A copy is made as the class itself makes it, and is of the new class again.
    """

    def __deepcopy__(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        memo[id(self)] = made = view(copy.deepcopy(view(self, kind), memo), type(self))
        return made

    names = {"__module__": kind.__module__, "__qualname__": f"{kind.__qualname__}({how})", "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {name: forward, "__deepcopy__": __deepcopy__, **names})


def view(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """The module as one of a class derived from its own: all that it holds is shared."""
    seen: nn.Module = object.__new__(kind)
    object.__setattr__(seen, "__dict__", model.__dict__)
    return seen


Maker = Callable[[Any, Any, Mapping[str, Any]], type[nn.Module]]
"""From a class, what is done to it, and constants by name to the derived class."""


def derive_once(make: Maker, kind: Any, how: Any, constants: Mapping[str, Any]) -> type[nn.Module]:
    """What `make` gives: the same class again for the same, so that a module is known by its class.

    A new one each time where something that it is made of cannot be hashed.
    """
    # With their types, as 1, 1.0 and True are equal.
    told = tuple((name, type(value), value) for name, value in sorted(constants.items()))
    try:
        hash((how, told))
    except TypeError:
        return make(kind, how, constants)
    return _derive_known(make, kind, how, told)


@functools.lru_cache(maxsize=64)  # models that are explained in turn
def _derive_known(make: Maker, kind: Any, how: Any, told: tuple[tuple[str, type, Any], ...]) -> type[nn.Module]:
    return make(kind, how, {name: value for name, _, value in told})
