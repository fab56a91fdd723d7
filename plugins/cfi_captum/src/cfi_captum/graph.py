"""What a forward pass computes on the way from the inputs to an output, read from autograd's graph.

Every operation that a gradient passes is a node of this graph, whether it was called as a module, as a
function or in compiled code, so nothing can hide from the checks that are built on it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from cfi_core.framework import flatten

Edge = tuple[Node, int]

# Operations that only move values (or repeat, drop or zero-pad them).
LAYOUT = frozenset(
    {
        "View",
        "UnsafeView",
        "Reshape",
        "ReshapeAlias",
        "Permute",
        "Transpose",
        "T",
        "Squeeze",
        "Unsqueeze",
        "Clone",
        "Alias",
        "AsStrided",
        "Select",
        "Slice",
        "Index",
        "IndexSelect",
        "Gather",
        "Cat",
        "Stack",
        "Split",
        "SplitWithSizes",
        "Unbind",
        "Expand",
        "Repeat",
        "ToCopy",
        "Flip",
        "Roll",
        "Narrow",
        "Diagonal",
        "Unfold",
        "PixelShuffle",
        "PixelUnshuffle",
        "ConstantPadNd",
        "Movedim",
        "AccumulateGrad",
    }
)
# Operations that are linear (or affine) in whatever depends on the inputs.
LINEAR = LAYOUT | frozenset(
    {
        "Add",
        "Sub",
        "Rsub",
        "Neg",
        "Sum",
        "Mean",
        "AvgPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "AdaptiveAvgPool1D",
        "AdaptiveAvgPool2D",
        "AdaptiveAvgPool3D",
        "MkldnnAdaptiveAvgPool2D",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "UpsampleNearestExact1D",
        "UpsampleNearestExact2D",
        "UpsampleNearestExact3D",
        "UpsampleLinear1D",
        "UpsampleBilinear2D",
        "UpsampleTrilinear3D",
        "UpsampleBicubic2D",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReflectionPad3D",
        "ReplicationPad1D",
        "ReplicationPad2D",
        "ReplicationPad3D",
        "Cumsum",
    }
)
# Products: positions of the two factors among the node's inputs; linear if only one depends on the inputs.
PRODUCTS = {
    "Mul": (0, 1),
    "Mm": (0, 1),
    "Bmm": (0, 1),
    "Mv": (0, 1),
    "Dot": (0, 1),
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Baddbmm": (1, 2),
    "Convolution": (0, 1),
    "ConvolutionOverrideable": (0, 1),
    "MkldnnConvolution": (0, 1),
    "SlowConv2D": (0, 1),
    "Linear": (0, 1),
    "MkldnnLinear": (0, 1),
}
BATCH_NORM = frozenset({"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"})
MAX_POOL = frozenset(
    {
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "MaxPool2D",
        "MaxPool3D",
        "AdaptiveMaxPool2D",
        "AdaptiveMaxPool3D",
        "Amax",
    }
)


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
        starts_at_end: Where the graph starts is the output itself, so that there is nothing between them.
    """

    nodes: list[Node] = field(default_factory=list)
    owners: dict[Node, Owner] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    spans: dict[str, list[tuple[frozenset[Node], frozenset[Node]]]] = field(default_factory=lambda: defaultdict(list))
    consumers: dict[Edge, set[Node]] = field(default_factory=lambda: defaultdict(set))
    starts_at_end: bool = False

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
    """
    graph, of_held = Graph(), _OfHeld(held)
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
        with of_held:
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


def walk(roots: Iterable[Node], stops: frozenset[Node]) -> Iterator[Node]:
    """All nodes from the roots towards the inputs; neither the stops nor anything reached only through them."""
    seen: set[Node] = set(stops)
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(before for before, _ in node.next_functions if before is not None)


def is_linear(node: Node) -> bool:
    """Whether the operation is linear (or affine) in the inputs of the model."""
    name = base_name(node)
    if name in LINEAR:
        return True
    sources = [before for before, _ in node.next_functions]
    if name in PRODUCTS:
        left, right = PRODUCTS[name]
        return not (_present(sources, left) and _present(sources, right))
    if name == "Div":
        return not _present(sources, 1)
    # In inference mode of the module, batch normalisation is an affine map with constant statistics.
    return name in BATCH_NORM and not getattr(node, "_saved_training", True)


def base_name(node: Node) -> str:
    """The operation's name without autograd's ending: `Relu` for `ReluBackward0`."""
    return re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])


def operation(node: Node) -> str:
    """The operation's name in PyTorch's spelling: `relu` for `ReluBackward0`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", base_name(node)).lower()


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts and dataclasses."""
    yield from (leaf for leaf in flatten(value) if isinstance(leaf, Tensor))


def _watch(graph: Graph, owner: Owner, of_held: _OfHeld) -> list[RemovableHandle]:
    """Notes which nodes the calls of one module make."""
    before: list[frozenset[Node]] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before.append(frozenset(node for node in map(_node, tensors((args, kwargs))) if node is not None))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        start = before.pop()
        if _is_of_whole_numbers(args, kwargs, output) and not of_held.holds((args, kwargs)):
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


def _is_of_whole_numbers(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    """Whether a module gives real numbers that depend on the inputs by way of whole numbers alone."""
    given = list(tensors((args, kwargs)))
    is_real = isinstance(output, Tensor) and output.is_floating_point() and not output.requires_grad
    return is_real and bool(given) and not any(value.is_floating_point() for value in given)


def _capture(captured: dict[nn.Module, list[Node]]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        captured[module] = [node for node in map(_node, tensors(output)) if node is not None]
        unconnected = isinstance(output, Tensor) and output.is_floating_point() and not output.requires_grad
        return output.detach().requires_grad_() if unconnected else None

    return hook


def _node(tensor: Tensor) -> Node | None:
    return tensor.grad_fn


def _present(sources: list[Node | None], position: int) -> bool:
    return position < len(sources) and sources[position] is not None
