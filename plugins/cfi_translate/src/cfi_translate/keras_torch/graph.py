"""Writes the torch graph: modules under Keras's names, functions, constants and changes of layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from cfi_translate.keras_torch.calls import LayerCall
from cfi_translate.keras_torch.laid import Laid, Shape, plain_axes, same_memory
from cfi_translate.keras_torch.weights import tensor_of
from cfi_translate.torch_graph import TorchGraph


class LaidGraph(TorchGraph):
    """A torch graph in the making, of tensors that know how they lie."""

    def __init__(self, name: str) -> None:
        """Starts with nothing.

        Args:
            name: Class name of the module to be.
        """
        super().__init__(name)
        self._shared: dict[tuple[int, str], tuple[str, Any]] = {}
        self._variables: dict[int, tuple[Any, Any]] = {}
        self._laid_out: dict[tuple[Any, ...], Laid] = {}

    # Modules and weights

    def module(self, op: LayerCall, module: nn.Module, *nodes: Any, suffix: str = "") -> Any:
        """Calls a new module under the name of a layer, or under one made from it.

        Args:
            op: The layer or operation that it belongs to.
            module: What to call.
            nodes: Arguments of the call.
            suffix: What its name has more than the layer's.
        """
        return self.call(self.attach(f"{op.path}{suffix}", module, reserved=op.is_layer and not suffix), *nodes)

    def share(self, op: LayerCall, make: Callable[[], nn.Module]) -> str:
        """Path of the module of a layer with weights; made at the layer's first call, used again afterwards."""
        key = (id(op.operation), op.path.rpartition(".")[2])
        if key not in self._shared:
            self._shared[key] = (self.attach(op.path, make(), reserved=True), op.operation)
        return self._shared[key][0]

    def call_shared(self, op: LayerCall, make: Callable[[], nn.Module], *nodes: Any) -> Any:
        """Calls the module of a layer with weights."""
        return self.call(self.share(op, make), *nodes)

    def marker(self, op: LayerCall, node: Any, suffix: str = "") -> Any:
        """Gives the output of a layer a module of its own, so that it can be found under the layer's name."""
        path = f"{op.path}{suffix}"
        if not op.is_layer or not path:
            return node
        if not self.holds(path):
            return self.module(op, nn.Identity(), node, suffix=suffix)
        is_free = type(self.get(path)) is nn.Identity and not self.is_called(path)
        return self.call(path, node) if is_free else node

    def buffer(self, path: str, array: np.ndarray) -> Any:
        """A constant array, under a free name."""
        return self.constant(path, torch.from_numpy(np.array(array, order="C")))

    def variable(self, path: str, variable: keras.Variable) -> Any:
        """A parameter with a Keras variable's value; one for all uses of the variable."""
        if id(variable) not in self._variables:
            self._variables[id(variable)] = (self.parameter(path, tensor_of(variable)), variable)
            return self._variables[id(variable)][0]
        return self.again(self._variables[id(variable)][0])

    def operand(self, path: str, array: np.ndarray, like: Laid) -> Any:
        """A constant that is combined with a tensor, as a number or as a buffer in the tensor's layout."""
        if array.size == 1 and array.ndim <= like.rank:
            return array.item()
        if array.ndim > like.rank or like.flattened is not None:
            raise ValueError(f"a constant of shape {array.shape} does not fit a tensor of shape {like.shape}")
        array = array.reshape((1,) * (like.rank - array.ndim) + array.shape)
        return self.buffer(path, array.transpose(like.axes))

    # Layouts and types

    def lay(self, x: Laid, axes: Sequence[int]) -> Laid:
        """The tensor with its axes in another order."""
        axes = tuple(axes)
        x = self.unscramble(x)
        if x.axes == axes:
            return x
        key = (x.node, axes)
        if key not in self._laid_out:
            if same_memory(x.shape, x.axes, axes) and sum(size is None for size in x.shape) <= 1:
                node = self.reshape(x.node, tuple(x.shape[axis] for axis in axes))
            else:
                node = self.function(torch.permute, x.node, tuple(x.axes.index(axis) for axis in axes))
            self._laid_out[key] = replace(x, node=node, axes=axes)
        return replace(self._laid_out[key], mask=x.mask)

    def plain(self, x: Laid) -> Laid:
        """The tensor as Keras has it."""
        return self.lay(x, plain_axes(x.rank))

    def last(self, x: Laid) -> Laid:
        """The tensor with Keras's last axis as its last; the others may stand in any order."""
        x = self.unscramble(x)
        return x if x.axes[-1] == x.rank - 1 else self.plain(x)

    def together(self, values: Sequence[Laid]) -> list[Laid]:
        """Tensors of one rank in one layout: that of the first that is not Keras's, so that images stay as they are."""
        if all(x.flattened is not None and x.flattened == values[0].flattened for x in values):
            return list(values)
        values = [self.unscramble(x) for x in values]
        axes = next((x.axes for x in values if not x.is_plain), plain_axes(values[0].rank))
        return [self.lay(x, axes) for x in values]

    def unscramble(self, x: Laid) -> Laid:
        """The tensor with flattened features in Keras's order; axes may stand in any."""
        flattened = x.flattened
        if flattened is None:
            return x
        key = (x.node, "plain")
        if key not in self._laid_out:
            order = flattened.axes
            node = self.reshape(x.node, tuple(flattened.shape[axis] for axis in order))
            node = self.function(torch.permute, node, tuple(order.index(axis) for axis in range(len(order))))
            self._laid_out[key] = replace(x, node=self.function(torch.flatten, node, 1), flattened=None)
        return replace(self._laid_out[key], mask=x.mask)

    def reshape(self, node: Any, shape: Shape) -> Any:
        """A reshape; None stands for the number of samples."""
        return self.function(torch.reshape, node, tuple(-1 if size is None else size for size in shape))

    def cast(self, x: Laid, dtype: str) -> Laid:
        """The tensor as another type."""
        if x.dtype == dtype:
            return x
        kind = getattr(torch, dtype, None)
        if kind is None:
            raise ValueError(f"torch has no type {dtype}")
        return replace(x, node=self.method("to", x.node, kind), dtype=dtype)
