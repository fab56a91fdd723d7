"""The ONNX graph being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper

from cfi_translate.grammar import Refusal, require
from cfi_translate.names import claim
from cfi_translate.program import LARGE, Lent

OPSET = 21
IR_VERSION = 10
SEPARATOR = "|"

_TYPES: dict[torch.dtype, int] = {
    getattr(torch, name): helper.np_dtype_to_tensor_dtype(np.dtype(name))
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
}


@dataclass(frozen=True)
class Like:
    """Shape (sizes may be symbols) and type of a tensor."""

    shape: tuple[Any, ...]
    dtype: torch.dtype


class _Known:
    """What has a shape and a type."""

    like: Any

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes: integers, or symbols that follow the number of samples."""
        return tuple(self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its elements."""
        return self.like.dtype


@dataclass(frozen=True, eq=False)
class OnnxValue(_Known):
    """A value of the ONNX graph.

    Attributes:
        name: Its name there.
        like: Its shape and type: a tensor of torch.export's, without data, or a `Like`; None inside an operator.
    """

    name: str
    like: Any = None


@dataclass(frozen=True, eq=False)
class Filled(_Known):
    """A tensor of one number whose size follows the number of samples; written when something needs it.

    Attributes:
        number: The number.
        like: Its shape and type.
    """

    number: float
    like: Any


UNREAD = object()
"""A further result of an operator that is not computed; an error if anything reads it."""


class OnnxGraph:
    """Nodes and constants of ONNX, written one after the other.

    Attributes:
        nodes: The nodes so far; their names are the module's path and the operator's type.
        constants: The constants so far, by name.
        path: The dotted path of the module that the next nodes come from.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, torch.Tensor | np.ndarray] = {}
        self.path = ""
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._taken: set[str] = set()
        self._written: dict[int, str] = {}
        self._filled: dict[int, str] = {}
        self._sources: dict[Any, tuple[str, int]] = {}
        self._symbols: dict[Any, OnnxValue] = {}

    def declare(self, tensor: torch.Tensor, name: str) -> None:
        """Says what a constant is called."""
        self._names[id(tensor)] = name
        self._kept.append(tensor)  # so that no other object gets its id

    def before_change(self, tensors: Sequence[torch.Tensor]) -> None:
        """Keeps what constants hold that were written already and share memory with these tensors."""
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        for name, value in self.constants.items():
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in memory:
                self.constants[name] = value.clone()
                self._written.pop(id(value), None)

    def input(self, name: str, like: Any) -> OnnxValue:
        """An input of the graph, which symbols of sizes are read off."""
        for axis, size in enumerate(like.shape):
            if isinstance(size, torch.SymInt):
                self._sources.setdefault(size.node.expr, (name, axis))
        self._taken.add(name)
        return OnnxValue(name, like)

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> OnnxValue:
        """Writes a node with one output.

        Args:
            kind: The ONNX operator.
            inputs: Values, constants (tensors, arrays, integers or lists of them), None for one that is left out.
            attributes: Those that are None are left out.

        Returns:
            The output; its shape and type are those of torch's result once the operator at hand is done.
        """
        return self.node_with(1, kind, *inputs, **attributes)[0]

    def node_with(self, outputs: int, kind: str, *inputs: Any, **attributes: Any) -> tuple[OnnxValue, ...]:
        """Writes a node with several outputs."""
        names = [self.name(one) for one in inputs]
        while names and not names[-1]:
            names.pop()
        base = f"{self.path}.{kind}" if self.path else kind
        made = [claim(base if outputs == 1 else f"{base}.{i}", self._taken) for i in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, names, made, name=f"{self.path}{SEPARATOR}{kind}", **given))
        return tuple(map(OnnxValue, made))

    def name(self, value: Any) -> str:
        """The name of a value in the graph; constants and filled tensors are written now."""
        if value is None:
            return ""
        if isinstance(value, OnnxValue):
            return value.name
        if isinstance(value, Filled):
            return self._fill(value)
        if isinstance(value, int | list):
            value = np.array(value, np.int64)
        if id(value) in self._written:
            return self._written[id(value)]
        if isinstance(value, torch.Tensor):
            self.type(value.dtype)
        name = claim(self._names.get(id(value), f"{self.path}.constant" if self.path else "constant"), self._taken)
        self.constants[name] = value
        self._written[id(value)] = name
        self._kept.append(value)
        return name

    def type(self, dtype: torch.dtype) -> int:
        """ONNX's number of a type."""
        require(dtype in _TYPES, f"its type {dtype} is not supported")
        return _TYPES[dtype]

    def scalar(self, number: Any, dtype: torch.dtype) -> torch.Tensor:
        """A constant without axes."""
        self.type(dtype)
        return torch.tensor(number, dtype=dtype)

    def scale(self, value: Any, factor: float, dtype: torch.dtype) -> Any:
        """The value times a number, both of that type."""
        return value if factor == 1 else self.node("Mul", value, self.scalar(factor, dtype))

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """The value in a type; numbers and sizes become values."""
        if isinstance(value, torch.SymInt):
            value = OnnxValue(self.node("Squeeze", self._symbol(value.node.expr), [0]).name, Like((), torch.int64))
        if isinstance(value, bool | int | float):
            return self.scalar(value, dtype)
        if value.dtype == dtype:
            return value
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        return OnnxValue(self.node("Cast", value, to=self.type(dtype)).name, Like(value.shape, dtype))

    def sizes(self, sizes: Sequence[Any]) -> Any:
        """A list of sizes as a tensor of integers, computed where they are symbols."""
        if not any(isinstance(one, torch.SymInt) for one in sizes):
            return list(sizes)
        parts: list[Any] = []
        for size in sizes:
            if isinstance(size, torch.SymInt):
                parts.append(self._symbol(size.node.expr))
            elif parts and isinstance(parts[-1], list):
                parts[-1] = [*parts[-1], size]
            else:
                parts.append([size])
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def _symbol(self, expression: Any) -> OnnxValue | list[int]:
        """A symbolic size as a list of one integer."""
        if expression in self._sources:
            if expression not in self._symbols:
                name, axis = self._sources[expression]
                self._symbols[expression] = self.node("Shape", OnnxValue(name), start=axis, end=axis + 1)
            return self._symbols[expression]
        if expression.is_Integer:
            return [int(expression)]
        if not (expression.is_Mul or expression.is_Add):
            raise Refusal(f"the size {expression} cannot be computed")
        result, *others = (self._symbol(one) for one in expression.args)
        for other in others:
            result = self.node("Mul" if expression.is_Mul else "Add", result, other)
        return result

    def _fill(self, value: Filled) -> str:
        if id(value) not in self._filled:
            constant = self.scalar(value.number, value.dtype)
            self._filled[id(value)] = self.node("Expand", constant, self.sizes(value.shape)).name
            self._kept.append(value)
        return self._filled[id(value)]


def write_constant(
    proto: TensorProto, name: str, value: torch.Tensor | np.ndarray, *, lends: bool = False
) -> Lent | None:
    """Fills an initialiser, which holds the only copy of the value that is made.

    Where it is read at once, a large one is lent instead: then the initialiser says what it is, and holds nothing.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    proto.name = name
    proto.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    proto.dims.extend(value.shape)
    if lends and value.size > LARGE:
        proto.data_location = TensorProto.EXTERNAL
        return Lent(value)
    proto.raw_data = value.tobytes()
    return None


def value_info(name: str, like: Any, graph: OnnxGraph) -> onnx.ValueInfoProto:
    """How the graph declares an input or output: sizes that follow the samples are free, the first is `batch`."""
    sizes: list[Any] = [
        ("batch" if axis == 0 else None) if isinstance(size, torch.SymInt) else int(size)
        for axis, size in enumerate(like.shape)
    ]
    return helper.make_tensor_value_info(name, graph.type(like.dtype), sizes)
