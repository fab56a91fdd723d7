"""Builds the torch graph: by the values of an ONNX program, with weights that are shared as they are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_translate.grammar import Refusal, require
from cfi_translate.program import Operation, Program, Value
from cfi_translate.semantics.values import constant_of, shape_of
from cfi_translate.torch_graph import TorchGraph

DTYPES = {
    np.dtype(name): getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}


class TorchBuilder:
    """A torch graph under construction; whatever its methods call takes values for their nodes."""

    def __init__(self, program: Program) -> None:
        """Starts with the inputs of the program."""
        self._inputs = program.inputs
        self.graph = TorchGraph(program.name)
        self._nodes = {value: self.graph.input(value.name) for value in program.inputs}
        self._parameters: dict[tuple[Any, ...], nn.Parameter] = {}
        self._samples: fx.Node | None = None

    # Values

    def put(self, value: Value, node: fx.Node) -> None:
        """Says which node makes a value."""
        self._nodes[value] = node

    def tensor(self, value: Value | None) -> fx.Node:
        """The node of a value; a constant becomes a buffer."""
        if value is None:
            raise Refusal("an input that the operator needs is missing")
        if value not in self._nodes:
            constant, one = value.constant, value.per_sample
            if constant is not None:
                self._nodes[value] = self.buffer(value.name, constant)
            elif one is not None:
                sizes = (self.samples(), *(-1,) * (one.ndim - 1))
                self._nodes[value] = self.method("expand", self.buffer(value.name, one), *sizes)
            else:
                raise Refusal(f"nothing makes {value.name!r}")
        return self._nodes[value]

    def operand(self, value: Value, beside: Value) -> Any:
        """A node or, for a single constant that broadcasting takes in, a Python number.

        Args:
            value: Of the same type as the other operand.
            beside: The other operand.
        """
        if value.rank is None or not value.known:
            return self.tensor(value)
        largest = -1 if beside.known or beside.rank is None else beside.rank
        constant, one = value.constant, value.per_sample
        is_broadcast = 0 < value.rank <= largest and shape_of(beside)[-value.rank] is None
        if one is not None and is_broadcast and value not in self._nodes:
            return self.buffer(value.name, one)  # broadcasting is for each sample anyway
        if constant is None or constant.size != 1 or value.rank > largest or constant.dtype.kind not in "fiub":
            return self.tensor(value)
        return constant.reshape(()).item()

    def buffer(self, name: str, array: np.ndarray) -> fx.Node:
        """A tensor that is no parameter."""
        return self.graph.constant(name, tensor(array))

    def samples(self) -> fx.Node:
        """The number of samples, while the module runs."""
        if self._samples is None:
            first = next(value for value in self._inputs if value.shape)
            self._samples = self.method("size", first, 0)
        return self._samples

    def sizes(self, value: Value) -> list[Any]:
        """The shape of a value: numbers, and nodes for what follows the number of samples."""

        def multiply(factor: int) -> fx.Node:
            return self.samples() if factor == 1 else self.function(torch.mul, self.samples(), factor)

        sizes = enumerate(shape_of(value))
        return [multiply(value.multiples.get(axis, 1)) if size is None else size for axis, size in sizes]

    # Calls

    def _resolve(self, argument: Any) -> Any:
        if isinstance(argument, Value):
            return self.tensor(argument)
        return type(argument)(map(self._resolve, argument)) if type(argument) in (list, tuple) else argument

    def module(self, op: Operation, module: nn.Module, *arguments: Any, suffix: str = "") -> fx.Node:
        """Calls a module, under the name of the operation."""
        return self.graph.call(self.graph.attach(f"{op.name}{suffix}", module), *map(self._resolve, arguments))

    def function(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.Node:
        """Calls a function of torch."""
        return self.graph.function(function, *map(self._resolve, arguments), **options)

    def method(self, method: str, *arguments: Any, **options: Any) -> fx.Node:
        """Calls a method of a tensor."""
        return self.graph.method(method, *map(self._resolve, arguments), **options)

    def cast(self, data: Any, dtype: torch.dtype) -> fx.Node:
        """The data as elements of another type."""
        return self.method("to", data, dtype)

    def reshape(self, data: Any, *sizes: Any) -> fx.Node:
        """The data in another shape."""
        return self.method("reshape", data, *sizes)

    def parameter(self, value: Value, key: Any = None, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Any:
        """A weight; operators that share one share it in torch too.

        Args:
            value: A constant.
            key: What the change is, for those that share.
            change: Makes the weight from the constant.
        """
        place = (value, key)
        if place not in self._parameters:
            constant = constant_of(value, "weight")
            made = tensor(constant if change is None else change(constant))
            self._parameters[place] = nn.Parameter(made, requires_grad=made.is_floating_point())
        return self._parameters[place]

    def give_weights(self, module: nn.Module, weight: Value, bias: Value | None) -> nn.Module:
        """The module, with these as its weights."""
        module.weight = self.parameter(weight)
        if bias is not None:
            module.bias = self.parameter(bias)
        return module


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of an array."""
    require(array.dtype in DTYPES, f"torch has no tensors of type {array.dtype}")
    return torch.from_numpy(np.array(array, order="C"))


def torch_type(value: Value) -> torch.dtype:
    """The type that the tensors of a value have."""
    if value.dtype is None or value.dtype not in DTYPES:
        raise Refusal(f"torch has no tensors of the type of {value.name!r}")
    return DTYPES[value.dtype]


def are_constant(*values: Value | None) -> bool:
    """Whether all of these that are given are the same for any samples."""
    return all(value is None or value.is_constant for value in values)


def along(axis: int, rank: int, size: int = -1) -> Sequence[int]:
    """The shape in which a line stands along one of several axes."""
    return tuple(size if one == axis % rank else 1 for one in range(rank))
