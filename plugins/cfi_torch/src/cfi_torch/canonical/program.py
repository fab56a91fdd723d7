"""What a forward pass does, as data: steps, and what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Ref:
    """A tensor that an earlier step gave, or (with a negative number) one among the model's own arguments.

    Attributes:
        step: Number of the step; -1 for the first argument, -2 for the second.
        path: Where in the structure that the step gave.
    """

    step: int
    path: Path = ()


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of the model, by its name."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A tensor that the model holds without a name, by its number."""

    number: int


@dataclass(frozen=True)
class Sized:
    """A whole number that depends on how many samples there are: `factor * samples + offset`."""

    factor: int
    offset: int


@dataclass(frozen=True, eq=False)
class Step:
    """One function or module call of a forward pass.

    Attributes:
        function: What is called; None for a module.
        module: Name of the module that is called; empty for a function.
        scope: Name of the module in whose forward method that happens.
        args: What it takes: structures of numbers, names and the like, with the classes above for tensors.
        kwargs: The same by name.
        records: Whether gradients are recorded.
        rank: How many axes the first tensor has that it takes.
        is_single: It gives one tensor, and not a structure of some.
        is_output: The step stands for the output of the module of that name, which it takes as its argument.
    """

    function: Callable[..., Any] | None
    module: str
    scope: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    records: bool = True
    rank: int = 0
    is_single: bool = True
    is_output: bool = False


def words(text: str) -> frozenset[str]:
    """A set of names."""
    return frozenset(text.split())


def fill(template: Any, value_of: Callable[[Any], Any]) -> Any:
    """A structure with each of the classes above replaced by what the function makes of it."""
    if isinstance(template, Ref | Weight | Constant | Sized):
        return value_of(template)
    return map_entries(lambda one: fill(one, value_of), template)


def map_entries(function: Callable[..., Any], *alike: Any) -> Any:
    """A tuple, list, mapping or slice of what the function makes of the entries; anything else as it is.

    Args:
        function: Takes an entry of each.
        alike: One of these, or several with the same keys or as many entries.
    """
    first = alike[0]
    if isinstance(first, Mapping):
        return {key: function(*(one[key] for one in alike)) for key in first}
    if isinstance(first, slice):
        return slice(*(function(*(getattr(one, end) for one in alike)) for end in ("start", "stop", "step")))
    if not isinstance(first, tuple | list):
        return first
    made = [function(*each) for each in zip(*alike, strict=True)]
    if isinstance(first, list):
        return made
    return type(first)(*made) if hasattr(first, "_fields") else tuple(made)


def inside(template: Any) -> Iterator[Any]:
    """All of the classes above in a structure."""
    found: list[Any] = []
    fill(template, found.append)
    return iter(found)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    """All tensors in tuples, lists and mappings, with where they are."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, tuple | list):
        for place, one in enumerate(value):
            yield from leaves(one, (*path, place))


def at(value: Any, path: Path) -> Any:
    """What is there in a structure."""
    for key in path:
        value = value[key]
    return value
