"""A canonical copy of a model: the same function, made of modules that rules can attach to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Factories = Mapping[str, Callable[..., Any]]
"""For names of operations: what makes the module of a toolset for one, from its settings as keyword arguments."""


@dataclass(frozen=True, eq=False)
class Canonical:
    """What an adapter made of a model for a method whose rules would not attach to it.

    Attributes:
        model: Takes and gives what the model does, for any number of samples, in inference mode; weights are shared.
        layers: Names of the model's layers, and their names in the copy. Left out are those that have no single output
            there, such as a layer that is called twice.
        outputs_only: Those of them whose output alone is in the copy: what goes into them cannot be read or replaced.
        repairs: What was rewritten, in words: `"relu (function) → ReLU 'relu'"`.
    """

    model: Any
    layers: Mapping[str, str]
    outputs_only: frozenset[str] = frozenset()
    repairs: tuple[str, ...] = field(default=())
