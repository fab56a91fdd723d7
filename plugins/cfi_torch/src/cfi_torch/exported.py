"""Exported programs (`torch.export`): opened at the layers that they were made of, for any number of samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from cfi_core.errors import InputError
from cfi_core.framework import Portions, flatten, map_structure, one_size

_GUARDS = "_guards_fn"
_RELATIVE = 1e-5
_opened: WeakKeyDictionary[Any, tuple[Any, nn.Module]] = WeakKeyDictionary()
"""What was made of programs and their modules, which would be others each time."""


class ExportedLayer(nn.Module):
    """Stands in a graph behind the operations of a layer, and gives on what they give."""

    def forward(self, output: Any) -> Any:
        """The layer's output."""
        return output


class ExportedModel(nn.Module):
    """An exported graph as a module with the layers that it was made of.

    It has their modules and parameters as its own, under the names that they had.
    """

    _graph: fx.GraphModule
    _guards: Callable[..., Any] | None

    def __init__(
        self,
        graph: fx.GraphModule,
        guards: Callable[..., Any] | None = None,
        size: int | None = None,
        shapes: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        """Takes a graph.

        Args:
            graph: Its layers are opened.
            guards: Looks at the inputs before each pass.
            size: The number of samples that it takes; None: any.
            shapes: Of the samples of each input, where the graph does not look itself.
        """
        super().__init__()
        self._modules, self._parameters, self._buffers = graph._modules, graph._parameters, graph._buffers
        self._non_persistent_buffers_set = graph._non_persistent_buffers_set
        # Past torch's registration, which would put the graph above its layers and so rename all of them.
        self.__dict__["_graph"], self.__dict__["_guards"] = graph, guards
        self.size, self.shapes = size, shapes
        self.is_apart = False
        self.training = False

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the program calls its inputs; nothing, if they are structures."""
        names = tuple(getattr(self._graph.graph._codegen, "pytree_info", None).orig_args)  # type: ignore[union-attr]
        places = [node for node in self._graph.graph.nodes if node.op == "placeholder"]
        names = names[1:] if names[:1] == ("self",) else names
        return names if len(names) == len(places) else ()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """The outputs; of another number of samples than the graph was made for, in portions.

        Raises:
            InputError: One sample changes the results of another, so there are no portions; or samples are of another
                shape than those that the program was made with.
        """
        inputs = (*inputs, *(named[name] for name in self.input_names if name in named))
        for given, shape in zip(inputs, self.shapes, strict=False):
            if tuple(given.shape[1:]) != shape:
                raise InputError(f"The model was exported for samples of shape {shape}, not {tuple(given.shape[1:])}.")
        if self.size is None or len(inputs[0]) == self.size:
            if self._guards is not None:
                self._guards(*tree_leaves(inputs))
            return self._graph(*inputs)
        if not self.is_apart:
            Portions(self._run, self.size)({str(i): one.detach().cpu().numpy() for i, one in enumerate(inputs)})
            self.is_apart = True
        return _in_portions(self._graph, inputs, self.size)

    def _run(self, feeds: Any) -> list[Any]:
        with torch.no_grad():
            outputs = flatten(self._graph(*(torch.from_numpy(np.ascontiguousarray(one)) for one in feeds.values())))
        return [one.detach().cpu().numpy() for one in outputs]

    def train(self, mode: bool = True) -> ExportedModel:
        """Nothing: the mode in which it was exported is part of the graph."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModel:
        memo[id(self)] = made = object.__new__(type(self))
        ExportedModel.__init__(made, copy.deepcopy(self._graph, memo), self._guards, self.size, self.shapes)
        made.is_apart = self.is_apart
        return made


def open_exported(model: Any) -> nn.Module | None:
    """A program, or the module of one, as a module with layers; None for any other model."""
    if not isinstance(model, torch.export.ExportedProgram) and not _is_exported(model):
        return None
    held = model.state_dict if isinstance(model, torch.export.ExportedProgram) else model.state_dict(keep_vars=True)
    sign = (getattr(model, "code", ""), tuple(map(id, held.values())))
    if model not in _opened or _opened[model][0] != sign:
        graph = model.module() if isinstance(model, torch.export.ExportedProgram) else model
        _opened[model] = sign, _open(graph) if _is_exported(graph) else graph
    return _opened[model][1]


def _is_exported(graph: Any) -> bool:
    """Whether this is a graph of functions alone that says which layers they were of."""
    if not isinstance(graph, fx.GraphModule):
        return False
    calls = [node for node in graph.graph.nodes if node.op == "call_module" and node.target != _GUARDS]
    return not calls and any(_stack(node) for node in graph.graph.nodes)


def _open(graph: fx.GraphModule) -> ExportedModel:
    inputs = [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]
    opened, guards = _with_layers(_without_guards(graph)), graph._modules.get(_GUARDS)
    size = one_size(_whole(one.shape[0]) if isinstance(one, Tensor) and one.ndim else None for one in inputs)
    if size is None:
        return ExportedModel(opened, guards)
    examples = [_example(one) for one in inputs]
    with suppress(Exception), torch.no_grad():  # what is built for one number may fail in any way on another
        if all(_agree(opened, examples, count, size) for count in (1, size + 1, 2 * size)):
            return ExportedModel(opened, shapes=tuple(tuple(one.shape[1:]) for one in examples))
    return ExportedModel(opened, guards, size)


# layers


@dataclass(frozen=True)
class _Layer:
    """One call of a layer.

    Attributes:
        call: What the call is known by.
        name: Dotted name of the layer.
        kind: Its class, with the module that has it.
    """

    call: str
    name: str
    kind: str


def _with_layers(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph on the same weights that passes through an `ExportedLayer` where a layer of the model ended."""
    opened = _same_graph(graph)
    layers = list(dict.fromkeys(layer for node in opened.graph.nodes for layer in _stack(node)))
    for layer in sorted(layers, key=lambda layer: -layer.name.count(".")):  # inner ones first
        nodes = [node for node in opened.graph.nodes if layer in _stack(node)]
        ends = [node for node in nodes if any(user not in nodes for user in node.users)]
        if len(ends) == 1:
            _tap(opened, ends[0], nodes, layer)
    for layer in {layer.name: layer for layer in layers}.values():
        _move_to_end(opened, layer.name)
    for module in opened.modules():
        module.training = False  # the mode in which it was exported is part of the graph
    opened.recompile()
    return opened


def _without_guards(graph: fx.GraphModule) -> fx.GraphModule:
    free = _same_graph(graph)
    for node in [node for node in free.graph.nodes if node.target == _GUARDS]:
        free.graph.erase_node(node)
    free.delete_all_unused_submodules()
    free.recompile()
    return free


def _same_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with nodes and modules of its own, on the same weights."""
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(graph.graph, {}))
    nodes._codegen = copy.deepcopy(graph.graph._codegen)
    return fx.GraphModule(graph, nodes, type(graph).__name__)


def _move_to_end(graph: nn.Module, name: str) -> None:
    """Of its siblings, so that layers stand in the order in which they are called."""
    parent, _, own = name.rpartition(".")
    siblings = graph.get_submodule(parent)._modules if _has_module(graph, parent) else {}
    if own in siblings:
        siblings[own] = siblings.pop(own)


def _has_module(graph: nn.Module, name: str) -> bool:
    return not name or name in dict(graph.named_modules())


def _tap(graph: fx.GraphModule, end: fx.Node, nodes: Sequence[fx.Node], layer: _Layer) -> None:
    module = _layer_at(graph, layer.name)
    module.__class__ = type(layer.kind.rpartition(".")[2], (ExportedLayer,), {})
    module.__dict__["like"] = _like(layer.kind, module)  # no part of the model
    outside = [user for user in end.users if user not in nodes]
    with graph.graph.inserting_after(end):
        tap = graph.graph.call_module(layer.name, (end,))
    tap.meta = {**end.meta, "nn_module_stack": _around(end.meta["nn_module_stack"], layer)}
    for user in outside:
        user.replace_input_with(end, tap)


def _layer_at(graph: fx.GraphModule, name: str) -> Any:
    place: nn.Module = graph
    for part in name.split("."):
        if part not in place._modules:
            place.add_module(part, ExportedLayer())
        place = place.get_submodule(part)
    return place


def _like(kind: str, layer: nn.Module) -> nn.Module | None:
    """A module of that class of torch's with the sizes that its weight has."""
    module, _, name = kind.rpartition(".")
    known = getattr(nn, name, None)
    if not module.startswith("torch.nn.") or known is None:
        return None
    like: Any = known.__new__(known)
    nn.Module.__init__(like)
    weight = layer._parameters.get("weight")
    if weight is not None:
        shape = tuple(weight.shape)
        like.out_channels = like.out_features = like.num_features = like.num_channels = shape[0]
        like.in_channels = like.in_features = shape[1] if len(shape) > 1 else shape[0]
        like.normalized_shape = shape
    return like


def _stack(node: fx.Node) -> list[_Layer]:
    """The layers that an operation lies in, outer ones first, without the model itself."""
    entries = (node.meta.get("nn_module_stack") or {}).items()
    named = [(key, place, kind) for key, (place, kind) in entries if place]
    return [_Layer(key, place, kind if isinstance(kind, str) else kind.__qualname__) for key, place, kind in named]


def _around(stack: dict[str, Any], layer: _Layer) -> dict[str, Any]:
    """The layers around that one."""
    return dict(takewhile(lambda entry: entry[0] != layer.call, stack.items()))


# numbers of samples


def _agree(graph: Callable[..., Any], examples: Sequence[Tensor], count: int, size: int) -> bool:
    """Whether the graph, without its guards, gives for that many samples what it gives for them in portions."""
    rows = [_mix(one, count) for one in examples]
    pairs = zip(flatten(graph(*rows)), flatten(_in_portions(graph, rows, size)), strict=True)
    return all(one.shape == other.shape and _close(one, other) for one, other in pairs)


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    apart = (one - other).abs().max() if one.numel() else torch.zeros(())
    return bool(apart <= _RELATIVE * other.abs().max().clamp_min(1e-30))


def _in_portions(graph: Callable[..., Any], inputs: Sequence[Tensor], size: int) -> Any:
    """The results, from portions of the graph's own size, the last one filled up with its last sample."""
    count = len(inputs[0])
    places = [torch.arange(at, at + size).clamp_max(count - 1) for at in range(0, count, size)]
    parts = [graph(*(one[place.to(one.device)] for one in inputs)) for place in places]
    joined = iter([torch.cat(pieces)[:count] for pieces in zip(*map(flatten, parts), strict=True)])
    return map_structure(lambda _: next(joined), parts[0])


def _example(declared: Tensor) -> Tensor:
    shape = [_whole(size) or 2 for size in declared.shape]
    generator = torch.Generator().manual_seed(0)
    if declared.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(declared.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(declared.dtype)


def _mix(example: Tensor, count: int) -> Tensor:
    """Samples of that kind that are unlike each other."""
    rows = example[torch.arange(count) % len(example)].clone()
    if not rows.is_floating_point():
        return rows
    scales = torch.linspace(0.5, 1.5, count).reshape(-1, *[1] * (rows.ndim - 1))
    return (rows * scales).to(rows.dtype)


def _whole(size: Any) -> int | None:
    return size if type(size) is int else None


def kind_of(module: nn.Module) -> nn.Module:
    """The module itself; for a layer of an exported graph one of the class that the layer was of."""
    like = module.__dict__.get("like") if isinstance(module, ExportedLayer) else None
    return module if like is None else like
