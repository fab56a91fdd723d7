"""The ONNX graph being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper

from cfi_core.errors import TranslationError
from cfi_translate.grammar import NEXT_STEP
from cfi_translate.torch_export import NAME

OPSET = 21
IR_VERSION = 10
SEPARATOR = "|"

_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}


@dataclass(frozen=True)
class Like:
    """Shape (sizes may be symbols) and type of a tensor."""

    shape: tuple[Any, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the ONNX graph.

    Attributes:
        name: Its name there.
        like: Its shape and type: a tensor of torch.export's, without data, or a `Like`.
    """

    name: str
    like: Any = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes: integers, or symbols that follow the number of samples."""
        return tuple(self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its elements."""
        return self.like.dtype


@dataclass(frozen=True, eq=False)
class Filled:
    """A tensor of one number whose size follows the number of samples; written when something needs it.

    Attributes:
        number: The number.
        like: Its shape and type.
    """

    number: float
    like: Any

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes, some of them symbols."""
        return tuple(self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its elements."""
        return self.like.dtype


class Unread:
    """A further result of an operator that is not computed; an error if anything reads it."""

    shape: tuple[int, ...] = ()


UNREAD = Unread()


class Emitter:
    """Writes ONNX nodes for the torch operator at hand.

    Attributes:
        nodes: The nodes so far; their names are the module's path and the operator's type.
        constants: The constants so far, by name.
        result: What torch.export has for the result of the operator at hand: one tensor without data, or several.
        origin: The operator at hand, for messages.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, torch.Tensor | np.ndarray] = {}
        self.result: Any = None
        self.origin = ""
        self._path = ""
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._taken: set[str] = set()
        self._written: dict[int, str] = {}
        self._filled: dict[int, str] = {}
        self._sources: dict[Any, tuple[str, int]] = {}
        self._symbols: dict[Any, Value] = {}

    def begin(self, origin: str, path: str, result: Any) -> None:
        """Starts the next operator of torch."""
        self.origin, self._path, self.result = origin, path, result

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

    def input(self, name: str, like: Any) -> Value:
        """An input of the graph, which symbols of sizes are read off."""
        for axis, size in enumerate(like.shape):
            if isinstance(size, torch.SymInt):
                self._sources.setdefault(size.node.expr, (name, axis))
        self._taken.add(name)
        return Value(name, like)

    def refuse(self, reason: str) -> TranslationError:
        """An error that names the operator at hand."""
        where = f" of {self._path!r}" if self._path else ""
        return TranslationError(f"{NAME} cannot translate {self.origin}{where}: {reason}. {NEXT_STEP}")

    def op(self, kind: str, *inputs: Any, like: Any = None, **attributes: Any) -> Value:
        """Writes a node with one output, and returns that; None stands for an input that is left out."""
        return self.ops(kind, 1, *inputs, like=like, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: Any, like: Any = None, **attributes: Any) -> tuple[Value, ...]:
        """Writes a node with several outputs."""
        names = [self.name(one) for one in inputs]
        while names and not names[-1]:
            names.pop()
        base = f"{self._path}.{kind}" if self._path else kind
        outputs = [self._unique(base if count == 1 else f"{base}.{i}") for i in range(count)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, names, outputs, name=f"{self._path}{SEPARATOR}{kind}", **kept))
        return tuple(Value(output, like) for output in outputs)

    def name(self, value: Any) -> str:
        """The name of a value in the graph; constants and filled tensors are written now."""
        if value is None:
            return ""
        if isinstance(value, Value):
            return value.name
        if isinstance(value, Filled):
            return self._fill(value)
        if isinstance(value, Unread):
            raise self.refuse("it reads the statistics or indices that a layer gives besides its output")
        if id(value) in self._written:
            return self._written[id(value)]
        if isinstance(value, torch.Tensor):
            self.type(value.dtype)
        name = self._unique(self._names.get(id(value), f"{self._path}.constant" if self._path else "constant"))
        self.constants[name] = value
        self._written[id(value)] = name
        self._kept.append(value)
        return name

    def type(self, dtype: torch.dtype) -> int:
        """ONNX's number of a type."""
        if dtype not in _TYPES:
            raise self.refuse(f"its type {dtype} is not supported")
        return _TYPES[dtype]

    def scalar(self, number: Any, dtype: torch.dtype) -> torch.Tensor:
        """A constant without axes."""
        self.type(dtype)
        return torch.tensor(number, dtype=dtype)

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """The value in a type; numbers and sizes become values."""
        if isinstance(value, torch.SymInt):
            number = self.op("Squeeze", self._symbol(value.node.expr), np.array([0]))
            return number if dtype == torch.int64 else self.op("Cast", number, to=self.type(dtype))
        if isinstance(value, bool | int | float):
            return self.scalar(value, dtype)
        if isinstance(value, torch.Tensor):
            return value if value.dtype == dtype else value.to(dtype)
        if value.dtype == dtype:
            return value
        return self.op("Cast", value, to=self.type(dtype), like=Like(value.shape, dtype))

    def sizes(self, sizes: Sequence[Any]) -> Any:
        """A list of sizes as a tensor of integers, computed where they are symbols."""
        if not any(isinstance(one, torch.SymInt) for one in sizes):
            return np.array(list(sizes), np.int64)
        parts: list[Any] = []
        for size in sizes:
            if isinstance(size, torch.SymInt):
                parts.append(self._symbol(size.node.expr))
            elif parts and isinstance(parts[-1], np.ndarray):
                parts[-1] = np.append(parts[-1], np.int64(size))
            else:
                parts.append(np.array([size], np.int64))
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def _symbol(self, expression: Any) -> Value | np.ndarray:
        """A symbolic size as a list of one integer."""
        if expression in self._sources:
            if expression not in self._symbols:
                name, axis = self._sources[expression]
                self._symbols[expression] = self.op("Shape", Value(name), start=axis, end=axis + 1)
            return self._symbols[expression]
        if expression.is_Integer:
            return np.array([int(expression)], np.int64)
        if not (expression.is_Mul or expression.is_Add):
            raise self.refuse(f"the size {expression} cannot be computed")
        result, *others = (self._symbol(one) for one in expression.args)
        for other in others:
            result = self.op("Mul" if expression.is_Mul else "Add", result, other)
        return result

    def _fill(self, value: Filled) -> str:
        if id(value) not in self._filled:
            constant = self.scalar(value.number, value.dtype)
            self._filled[id(value)] = self.op("Expand", constant, self.sizes(value.shape)).name
            self._kept.append(value)
        return self._filled[id(value)]

    def _unique(self, name: str) -> str:
        candidate, number = name, 0
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate


def write_constant(proto: TensorProto, name: str, value: torch.Tensor | np.ndarray) -> None:
    """Fills an initialiser, which holds the only copy of the value that is made."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    proto.name = name
    proto.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    proto.dims.extend(value.shape)
    proto.raw_data = value.tobytes()


def value_info(name: str, like: Any, emitter: Emitter) -> onnx.ValueInfoProto:
    """How the graph declares an input or output: sizes that follow the samples are free, the first is `batch`."""
    sizes: list[Any] = [
        ("batch" if axis == 0 else None) if isinstance(size, torch.SymInt) else int(size)
        for axis, size in enumerate(like.shape)
    ]
    return helper.make_tensor_value_info(name, emitter.type(like.dtype), sizes)
