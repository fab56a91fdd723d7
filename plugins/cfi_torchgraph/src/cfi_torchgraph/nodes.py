"""Autograd's graph: the names of its operations and the way through it, from the outputs towards the inputs.

Every operation that a gradient passes is a node of it, whether it was called as a module, as a function or in compiled
code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from cfi_core.framework import flatten

Edge = tuple[Node, int]


def base_name(node: Node) -> str:
    """The operation's name without autograd's ending: `Relu` for `ReluBackward0`."""
    return re.sub(r"Backwards?\d*$", "", node.name().rpartition("::")[2])


def operation(node: Node) -> str:
    """The operation's name in PyTorch's spelling: `relu` for `ReluBackward0`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", base_name(node)).lower()


def sources(node: Node) -> list[Node]:
    """The nodes of what an operation takes that depends on the inputs."""
    overwrites = node.name().endswith("CopyBackwards")  # what stands first, and is gone
    taken = node.next_functions[1:] if overwrites else node.next_functions
    return [before for before, _ in taken if before is not None]


def walk(roots: Iterable[Node | None], stops: Iterable[Node | None] = ()) -> Iterator[Node]:
    """All nodes from the roots towards the inputs; neither the stops nor what is reached through them alone."""
    seen = {node for node in stops if node is not None}
    waiting = [node for node in roots if node is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(sources(node))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts and dataclasses."""
    yield from (leaf for leaf in flatten(value) if isinstance(leaf, Tensor))


def is_real(value: Any) -> bool:
    """Whether it is a tensor of real numbers, which a gradient can be had of."""
    return isinstance(value, Tensor) and value.is_floating_point()


def is_of_whole_numbers(args: Any, kwargs: Any, output: Any) -> bool:
    """Whether a module gives real numbers that depend on the inputs by way of whole numbers alone (an embedding)."""
    given = list(tensors((args, kwargs)))
    return is_real(output) and not output.requires_grad and bool(given) and not any(map(is_real, given))
