"""What a forward pass computes on the way from the inputs to an output, read from autograd's graph.

Every operation that a gradient passes is a node of this graph, whether it was called as a module, as a
function or in compiled code, so nothing can hide from the checks that are built on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from cfi_torchgraph.nodes import Edge, base_name, is_of_whole_numbers, operation, tensors, walk
from cfi_torchgraph.operations import LAYOUT, is_linear
from cfi_torchgraph.watch import Watch


@dataclass(frozen=True)
class Owner:
    """The module (without children) whose call made a node."""

    name: str
    module: nn.Module


@dataclass
class Graph:
    """The nodes between an output and the inputs.

    Attributes:
        nodes: All of them.
        owners: The module that made a node, if it was one.
        calls: How often each module without children was called, by name.
        spans: For each call of such a module: the nodes before it and the nodes of its output.
        consumers: For each value (node and position of its output): the nodes that take it.
        watch: What the nodes do not show.
        starts_at_end: Where the graph starts is the output itself, so that there is nothing between them.
    """

    nodes: list[Node] = field(default_factory=list)
    owners: dict[Node, Owner] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    spans: dict[str, list[tuple[frozenset[Node], frozenset[Node]]]] = field(default_factory=lambda: defaultdict(list))
    consumers: dict[Edge, set[Node]] = field(default_factory=lambda: defaultdict(set))
    watch: Watch = field(default_factory=Watch)
    starts_at_end: bool = False

    def moves(self, node: Node) -> bool:
        """Whether an operation only moves values, or repeats, drops or zero-pads them."""
        return base_name(node) in LAYOUT and node not in self.watch.veiled

    def is_affine(self, node: Node) -> bool:
        """Whether an operation is affine in what a gradient leads through it to."""
        return is_linear(node) and node not in self.watch.veiled

    def where(self, node: Node) -> str:
        """Says for a message where an operation is computed."""
        owner = self.owners.get(node)
        if owner is None:
            return f"the function `{operation(node)}` (called in a forward method, not as a module)"
        return f"`{operation(node)}` in module '{owner.name}' ({type(owner.module).__name__})"


def trace(
    model: nn.Module,
    inputs: Iterable[Any],
    held: Sequence[Any] = (),
    *,
    start: nn.Module | None = None,
    end: nn.Module | None = None,
    values: bool = False,
) -> Graph:
    """Runs the model once and reads the graph between its inputs and its output.

    Parameters take part detached, so that the graph holds exactly what depends on the inputs; their
    `requires_grad` is left alone. What a module without children makes of whole numbers alone (an embedding of
    tokens) stands for these: the graph begins there, unless they are known to be held. So it does at `start`, where
    nothing connects that to the inputs.

    Args:
        model: Module to run.
        inputs: Its arguments.
        held: Further arguments, on which nothing depends in the graph.
        start: Read only what lies behind the output of this module.
        end: Read only what leads to the output of this module.
        values: Look for rectifiers by their values too.
    """
    graph, of_held = Graph(watch=Watch(values=values)), _OfHeld(held)
    captured: dict[nn.Module, list[Node]] = {module: [] for module in (start, end) if module is not None}
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            handles += _watch(graph, Owner(name, module), of_held)
    for module in captured:
        handles.append(module.register_forward_hook(_capture(captured)))
    arguments = tuple(
        value.detach().clone().requires_grad_()
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        else value
        for value in inputs
    )
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    try:
        with of_held, graph.watch:
            output = torch.func.functional_call(model, weights, (*arguments, *held))
    finally:
        for handle in handles:
            handle.remove()
    roots = captured[end] if end is not None else [node for node in map(_node, tensors(output)) if node is not None]
    stops = frozenset(captured[start]) if start is not None else frozenset[Node]()
    graph.nodes = list(walk(roots, stops))
    graph.starts_at_end = bool(roots) and stops.issuperset(roots)
    for node in graph.nodes:
        for before, position in node.next_functions:
            if before is not None:
                graph.consumers[before, position].add(node)
    return graph


def _watch(graph: Graph, owner: Owner, of_held: _OfHeld) -> list[RemovableHandle]:
    """Notes which nodes the calls of one module make."""
    before: list[frozenset[Node]] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before.append(frozenset(node for node in map(_node, tensors((args, kwargs))) if node is not None))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        start = before.pop()
        if is_of_whole_numbers(args, kwargs, output) and not of_held.holds((args, kwargs)):
            return output.detach().requires_grad_()
        ends = [node for node in map(_node, tensors(output)) if node is not None]
        graph.calls[owner.name] += 1
        graph.spans[owner.name].append((start, frozenset(ends)))
        for node in walk(ends, start):
            if base_name(node) != "AccumulateGrad":
                graph.owners.setdefault(node, owner)
        return None

    return [
        owner.module.register_forward_pre_hook(enter, with_kwargs=True),
        owner.module.register_forward_hook(leave, with_kwargs=True),
    ]


class _OfHeld(TorchFunctionMode):
    """Knows, while the model runs, what is made of the arguments that are held, and of nothing else."""

    def __init__(self, held: Sequence[Any]) -> None:
        super().__init__()
        self._known = {id(value): value for value in tensors(held)}  # kept, so that no other gets its id

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.holds((args, kwargs or {})):
            self._known |= {id(value): value for value in tensors(result)}
        return result

    def holds(self, given: Any) -> bool:
        """Whether all tensors in it are of that kind, and there are some."""
        found = list(tensors(given))
        return bool(found) and all(id(value) in self._known for value in found)


def _capture(captured: dict[nn.Module, list[Node]]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        captured[module] = [node for node in map(_node, tensors(output)) if node is not None]
        unconnected = isinstance(output, Tensor) and output.is_floating_point() and not output.requires_grad
        return output.detach().requires_grad_() if unconnected else None

    return hook


def _node(tensor: Tensor) -> Node | None:
    return tensor.grad_fn
