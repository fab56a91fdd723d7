"""What a forward pass computed, read from autograd's graph, in which nothing can hide from TorchRay's rules."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LAYOUT = _words(
    "View UnsafeView Reshape ReshapeAlias Permute Transpose T Squeeze Unsqueeze Clone Alias AsStrided Select Slice "
    "Index IndexSelect Gather Cat Stack Split SplitWithSizes Unbind Expand Repeat ToCopy Flip Roll Narrow Diagonal "
    "Unfold PixelShuffle PixelUnshuffle ConstantPadNd Movedim AccumulateGrad CopySlices CopyBackwards Copy"
)
"""Operations that only move values, or repeat, drop or zero-pad them."""
LINEAR = LAYOUT | _words(
    "Add Sub Rsub Neg Sum Mean AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D "
    "MkldnnAdaptiveAvgPool2D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D "
    "UpsampleNearestExact2D UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D UpsampleTrilinear3D "
    "UpsampleBicubic2D ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D "
    "ReplicationPad3D Cumsum"
)
"""Operations that are linear or affine in whatever depends on the inputs."""
PRODUCTS = _words(
    "Mul Mm Bmm Mv Dot Addmm Addmv Baddbmm Div Convolution ConvolutionOverrideable MkldnnConvolution SlowConv2D "
    "Linear MkldnnLinear"
)
MAX_POOL = _words(
    "MaxPool2DWithIndices MaxPool3DWithIndices MaxPool2D MaxPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D Amax"
)
NORMALIZATION = _words(
    "Softmax LogSoftmax NativeLayerNorm NativeGroupNorm NativeBatchNorm CudnnBatchNorm MiopenBatchNorm CudnnConvolution"
)


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
                    node = node.next_functions[0][0] if _is_layout(node) and len(node.next_functions) == 1 else None

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
        waiting.extend(before for before, _ in node.next_functions if before is not None)


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


def sources(node: Node) -> int:
    """How many of what it takes depend on the inputs."""
    return sum(1 for before, _ in node.next_functions if before is not None)


def base_name(node: Node) -> str:
    """The operation's name without autograd's ending: `Relu` for `ReluBackward0`."""
    return re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])


def operation(node: Node) -> str:
    """The operation's name in PyTorch's spelling: `relu` for `ReluBackward0`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", base_name(node)).lower()


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def _is_layout(node: Node) -> bool:
    return base_name(node) in LAYOUT
