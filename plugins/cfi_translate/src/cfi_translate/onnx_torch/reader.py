"""What the translations of single operators work with: the graph so far, and tensors and weights by their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cfi_core.errors import TranslationError
from cfi_translate.program import Operation, Program, Value
from cfi_translate.torch_graph import TorchGraph

NAME = "onnx-torch"

DTYPES = {
    np.dtype(name): getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}

# Gives one node, or a tuple of one node (or None) per output.
Handler = Callable[[Operation, "Reader"], Any]
HANDLERS: dict[str, Handler] = {}


def operator(*kinds: str) -> Callable[[Handler], Handler]:
    """Registers the translation of operators; it returns one node per output, or the only one."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(kinds, handler))
        return handler

    return register


class Reader:
    """A torch graph under construction, by the values of an ONNX program."""

    def __init__(self, program: Program, name: str) -> None:
        """Starts with the inputs of the program.

        Args:
            program: What is translated.
            name: Class name of the module to be.
        """
        self.program = program
        self.graph = TorchGraph(name)
        self._nodes: dict[Value, fx.Node] = {}
        self._parameters: dict[tuple[Any, ...], nn.Parameter] = {}
        self._samples: fx.Node | None = None
        for value in program.inputs:
            self._nodes[value] = self.graph.input(value.name)

    # Values

    def put(self, value: Value, node: fx.Node) -> None:
        """Says which node makes a value."""
        self._nodes[value] = node

    def has(self, value: Value) -> bool:
        """Whether the value needs no operation any more."""
        return value in self._nodes or value.is_constant or value.per_sample is not None

    def tensor(self, value: Value | None) -> fx.Node:
        """The node of a value; a constant becomes a buffer."""
        if value is None:
            raise ValueError("an input that the operator needs is missing")
        if value not in self._nodes:
            constant = value.constant
            if constant is not None:
                self._nodes[value] = self.buffer(value.name, constant)
            else:
                one = value.per_sample
                if one is None:
                    raise ValueError(f"nothing makes {value.name!r}")
                sizes = (self.samples(), *(-1,) * (one.ndim - 1))
                self._nodes[value] = self.method("expand", self.buffer(value.name, one), *sizes)
        return self._nodes[value]

    def optional(self, value: Value | None) -> fx.Node | None:
        """Likewise, None for an input that is left out."""
        return None if value is None else self.tensor(value)

    def operand(self, value: Value | None, beside: Sequence[Value | None]) -> Any:
        """A node or, for a single constant that broadcasting takes in, a Python number.

        Args:
            value: Of the same type as the others.
            beside: The other operands.
        """
        if value is None or value.rank is None or not value.known:
            return self.tensor(value)
        ranks = [one.rank for one in beside if one is not None and not one.known]
        largest = max((rank for rank in ranks if rank is not None), default=-1)
        constant = value.constant
        if constant is None and (one := value.per_sample) is not None and value not in self._nodes:
            # Broadcasting is for each sample anyway.
            others = [one for one in beside if one is not None and one.rank == largest and not one.known]
            if value.rank <= largest and any((one.shape or (0,))[-value.rank] is None for one in others):
                return self.buffer(value.name, one)
        if constant is None or constant.size != 1 or value.rank > largest or constant.dtype.kind not in "fiub":
            return self.tensor(value)
        return constant.reshape(()).item()

    def buffer(self, name: str, array: np.ndarray) -> fx.Node:
        """A tensor that is no parameter."""
        return self.graph.constant(name, tensor(array))

    def samples(self) -> fx.Node:
        """The number of samples, while the module runs."""
        if self._samples is None:
            first = next(value for value in self.program.inputs if value.shape)
            self._samples = self.method("size", self._nodes[first], 0)
        return self._samples

    def sizes(self, value: Value) -> list[Any]:
        """The shape of a value: numbers, and nodes for what follows the number of samples."""
        if value.shape is None:
            raise ValueError(f"the shape of {value.name!r} is not known")
        return [
            size if size is not None else self.times(self.samples(), value.multiples.get(axis, 1))
            for axis, size in enumerate(value.shape)
        ]

    def times(self, node: fx.Node, factor: int) -> fx.Node:
        """A multiple of a number of samples."""
        return node if factor == 1 else self.function(torch.mul, node, factor)

    # Calls

    def module(self, op: Operation, module: nn.Module, *arguments: Any, suffix: str = "") -> fx.Node:
        """Calls a module, under the name of the operation."""
        return self.graph.module(f"{op.name}{suffix}", module, *arguments)

    def function(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.Node:
        """Calls a function of torch."""
        return self.graph.function(function, *arguments, **options)

    def method(self, method: str, *arguments: Any, **options: Any) -> fx.Node:
        """Calls a method of a tensor."""
        return self.graph.method(method, *arguments, **options)

    def parameter(self, value: Value, key: Any = None, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Any:
        """A weight; operators that share one share it in torch too.

        Args:
            value: A constant.
            key: What the change is, for those that share.
            change: Makes the weight from the constant.
        """
        place = (value, key)
        if place not in self._parameters:
            constant = value.constant
            if constant is None:
                raise ValueError(f"{value.name!r} is not constant")
            made = tensor(constant if change is None else change(constant))
            self._parameters[place] = nn.Parameter(made, requires_grad=made.is_floating_point())
        return self._parameters[place]


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of an array."""
    if array.dtype not in DTYPES:
        raise ValueError(f"torch has no tensors of type {array.dtype}")
    return torch.from_numpy(np.array(array, order="C"))


def refuse(op: Operation, reason: str) -> TranslationError:
    """The error for an operator that does not come out right."""
    from cfi_translate.failures import NEXT_STEP

    return TranslationError(f"{NAME} cannot translate operator {op.kind} (node {op.name!r}): {reason}. {NEXT_STEP}")


def torch_type(value: Value) -> torch.dtype:
    """The type that the tensors of a value have."""
    if value.dtype is None or value.dtype not in DTYPES:
        raise ValueError(f"torch has no tensors of the type of {value.name!r}")
    return DTYPES[value.dtype]


def is_float(value: Value | None) -> bool:
    """Whether the elements are floating point numbers."""
    return value is not None and value.dtype is not None and value.dtype.kind == "f"


def rank_of(op: Operation, value: Value | None) -> int:
    """Number of axes; refuses if that is not known."""
    if value is None or value.rank is None:
        raise refuse(op, "the number of axes of its input is not known")
    return value.rank


def shape_of(op: Operation, value: Value | None) -> tuple[int | None, ...]:
    """Sizes, None for those that follow the number of samples; refuses if they are not known."""
    if value is None or value.shape is None:
        raise refuse(op, "the sizes of its input are not known")
    return value.shape


def fixed(op: Operation, sizes: Sequence[int | None]) -> tuple[int, ...]:
    """Sizes that do not depend on the number of samples; refuses others."""
    found = tuple(size for size in sizes if size is not None)
    if len(found) != len(sizes):
        raise refuse(op, "sizes that it needs follow the number of samples")
    return found


def numbers(op: Operation, value: Value | None, what: str) -> tuple[int, ...] | None:
    """The integers of a constant input, None if it is left out."""
    if value is None:
        return None
    constant = value.constant
    if constant is None:
        raise refuse(op, f"its {what} is computed while the model runs")
    return tuple(int(one) for one in np.atleast_1d(constant))


def count(sizes: Sequence[int]) -> int:
    """Number of elements."""
    return math.prod(sizes)
