"""What a forward pass computed, read from autograd's graph, in which nothing can hide from TorchRay's rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from cfi_torchgraph.nodes import base_name, operation, tensors
from cfi_torchgraph.operations import LAYOUT


@dataclass
class Owners:
    """The modules without children whose calls ended in a node."""

    names: dict[Node, str] = field(default_factory=dict)

    def where(self, node: Node) -> str:
        """Says for a message where an operation is computed."""
        name = self.names.get(node)
        return f"`{operation(node)}`" + (f" in module '{name}'" if name else " (outside a module, in a forward method)")


@contextmanager
def owners(model: nn.Module) -> Iterator[Owners]:
    """Notes, during the passes inside, which module made a node."""
    found = Owners()

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for node in (value.grad_fn for value in tensors(output)):
                while node is not None and node not in found.names and base_name(node) != "AccumulateGrad":
                    found.names[node] = name
                    moves = base_name(node) in LAYOUT and len(node.next_functions) == 1
                    node = node.next_functions[0][0] if moves else None

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    handles = [
        module.register_forward_hook(note(name))
        for name, module in leaves
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def leading_to(ends: Iterable[Node | None], nodes: list[Node]) -> list[Node]:
    """Those of the nodes from which a way leads to one of the ends."""
    takers: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        for before, _ in node.next_functions:
            takers[before].append(node)
    found: set[Node] = set()
    waiting = [taker for end in ends for taker in takers[end]]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(takers[node])
    return [node for node in nodes if node in found]


def is_rule(node: Node) -> bool:
    """Whether it comes from a `torch.autograd.Function`, as all of TorchRay's rules do."""
    return isinstance(node, BackwardCFunction)
