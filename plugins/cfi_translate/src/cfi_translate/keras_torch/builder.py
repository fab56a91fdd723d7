"""Writes the torch graph: modules under Keras's names, functions, constants and changes of layout."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.keras_torch.values import Shape, Value, channels_first, plain_axes, same_memory

_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


class Builder:
    """A torch graph in the making.

    Attributes:
        root: Holds the modules, parameters and buffers.
        graph: The `torch.fx.Graph`.
    """

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self._reserved: set[str] = set()
        self._shared: dict[tuple[int, str], tuple[str, Any]] = {}
        self._parameters: dict[int, tuple[Any, Any]] = {}
        self._laid_out: dict[tuple[Any, ...], Value] = {}

    def reserve(self, path: str) -> None:
        """Keeps a path for the layer that bears this name."""
        self._reserved.add(path)

    def module(self, path: str, module: nn.Module, *nodes: Any, own: bool = False) -> Any:
        """Attaches a module, under a free name, and calls it.

        Args:
            path: Dotted name.
            module: What to attach.
            nodes: Arguments of the call.
            own: Whether `path` is the name of the Keras layer itself, not one made from it.

        Returns:
            The node of the call.
        """
        return self.call(self.attach(path, module, own=own), *nodes)

    def attach(self, path: str, module: nn.Module, own: bool = False) -> str:
        """Attaches a module under a free name, and returns that name."""
        unique, number = path, 0
        while self._is_taken(unique) or (unique in self._reserved and not (own and unique == path)):
            number += 1
            unique = f"{path}_{number}"
        parent, name = self._parent(unique)
        module.train(False)
        parent.add_module(name, module)
        return unique

    def shared(self, layer: Any, path: str, make: Callable[[], nn.Module], own: bool = True) -> str:
        """Path of the module of a layer with weights; made at the layer's first call, used again afterwards."""
        key = (id(layer), path.rpartition(".")[2])
        if key not in self._shared:
            self._shared[key] = (self.attach(path, make(), own=own), layer)
        return self._shared[key][0]

    def call(self, path: str, *nodes: Any) -> Any:
        """Calls an attached module."""
        return self.graph.call_module(path, nodes)

    def function(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a function of torch or of `operator`."""
        return self.graph.call_function(function, arguments, options)

    def marker(self, path: str, node: Any) -> Any:
        """Gives a tensor a module of its own, so that it can be found under the layer's name."""
        held = _lookup(self.root, path)
        if held is None:
            return self.module(path, nn.Identity(), node, own=True)
        if type(held) is nn.Identity and not any(one.op == "call_module" and one.target == path for one in self.nodes):
            return self.call(path, node)
        return node

    @property
    def nodes(self) -> Any:
        """All nodes so far."""
        return self.graph.nodes

    def constant(self, path: str, array: np.ndarray) -> Any:
        """A buffer, under a free name."""
        return self._tensor(path, torch.from_numpy(np.array(array)), parameter=False)

    def parameter(self, path: str, variable: Any, tensor: torch.Tensor | None = None) -> Any:
        """A parameter with a Keras variable's value; one for all uses of the variable."""
        if id(variable) not in self._parameters:
            value = tensor_of(variable) if tensor is None else tensor
            self._parameters[id(variable)] = (self._tensor(path, value, parameter=True).target, variable)
        return self.graph.get_attr(self._parameters[id(variable)][0])

    def to(self, value: Value, axes: Sequence[int]) -> Value:
        """The value with its axes in another order."""
        axes = tuple(axes)
        value = self._unflattened(value)
        if value.axes == axes:
            return value
        key = (value.node, axes)
        if key not in self._laid_out:
            if same_memory(value.shape, value.axes, axes) and sum(size is None for size in value.shape) <= 1:
                node = self.reshape(value.node, tuple(value.shape[axis] for axis in axes))
            else:
                node = self.function(torch.permute, value.node, tuple(value.axes.index(axis) for axis in axes))
            self._laid_out[key] = replace(value, node=node, axes=axes)
        return replace(self._laid_out[key], mask=value.mask)

    def plain(self, value: Value) -> Value:
        """The value as Keras has it."""
        return self.to(value, plain_axes(value.rank))

    def channels_first(self, value: Value) -> Value:
        """The value with its last axis second."""
        return self.to(value, channels_first(value.rank))

    def last(self, value: Value) -> Value:
        """The value with Keras's last axis as its last; the others may stand in any order."""
        value = self._unflattened(value)
        return value if value.axes[-1] == value.rank - 1 else self.plain(value)

    def reshape(self, node: Any, shape: Shape) -> Any:
        """A reshape; None stands for the number of samples."""
        return self.function(torch.reshape, node, tuple(-1 if size is None else size for size in shape))

    def _unflattened(self, value: Value) -> Value:
        flattened = value.flattened
        if flattened is None:
            return value
        key = (value.node, "plain")
        if key not in self._laid_out:
            order = flattened.axes
            node = self.reshape(value.node, tuple(flattened.shape[axis] for axis in order))
            node = self.function(torch.permute, node, tuple(order.index(axis) for axis in range(len(order))))
            self._laid_out[key] = replace(value, node=self.function(torch.flatten, node, 1), flattened=None)
        return replace(self._laid_out[key], mask=value.mask)

    def _tensor(self, path: str, tensor: torch.Tensor, parameter: bool) -> Any:
        unique, number = path, 0
        while self._is_taken(unique) or unique in self._reserved:
            number += 1
            unique = f"{path}_{number}"
        parent, name = self._parent(unique)
        if parameter and tensor.is_floating_point():
            parent.register_parameter(name, nn.Parameter(tensor))
        else:
            parent.register_buffer(name, tensor)
        return self.graph.get_attr(unique)

    def _parent(self, path: str) -> tuple[nn.Module, str]:
        parent = self.root
        *containers, name = path.split(".")
        for container in containers:
            if not isinstance(getattr(parent, container, None), nn.Module):
                # An identity, so that the output of a nested model or composite layer can pass through it.
                parent.add_module(container, nn.Identity())
            parent = getattr(parent, container)
        return parent, name

    def _is_taken(self, path: str) -> bool:
        return _lookup(self.root, path) is not None or path.rpartition(".")[2] in _TAKEN


def _lookup(root: nn.Module, path: str) -> Any:
    held: Any = root
    for name in path.split("."):
        held = getattr(held, name, None)
    return held


def identifier(name: str) -> str:
    """A Keras name as the name of an attribute."""
    clean = re.sub(r"\W", "_", name)
    if not clean or clean[0].isdigit():
        clean = f"_{clean}"
    return f"{clean}_" if keyword.iskeyword(clean) or clean in _TAKEN else clean


def tensor_of(variable: Any, *shape: int, axes: Sequence[int] | None = None) -> torch.Tensor:
    """A Keras variable's value as a new contiguous tensor.

    Args:
        variable: Keras variable, or array.
        shape: Reshaped to this first, if given.
        axes: Then its axes are put in this order, and copied once.
    """
    tensor = _shared_memory(getattr(variable, "value", variable))
    if shape:
        tensor = tensor.reshape(shape)
    if axes is not None:
        tensor = tensor.permute(tuple(axes))
    return tensor.clone(memory_format=torch.contiguous_format)


def _shared_memory(value: Any) -> torch.Tensor:
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    import tensorflow as tf

    if value.dtype == tf.bool or value.dtype.is_integer:
        return torch.from_numpy(np.array(value.numpy()))
    return torch.from_dlpack(tf.experimental.dlpack.to_dlpack(tf.convert_to_tensor(value))).cpu()


def make(
    kind: Callable[..., nn.Module], *arguments: Any, tensors: dict[str, torch.Tensor | None], **options: Any
) -> nn.Module:
    """A module that gets its weights from `tensors`; none are allocated or drawn at random."""
    with torch.device("meta"):
        module = kind(*arguments, **options)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            setattr(module, name, nn.Parameter(tensor))
    for name, held in (*module.named_parameters(), *module.named_buffers()):
        if held.is_meta:
            raise AssertionError(f"{type(module).__name__} was left without its {name}")
    return module
