"""An ONNX model as a list of operations on values of known type and shape: what our own readers work from.

`reading.read` makes it of a model, `rewriting.rewrite` joins what exporters write apart, `writing.write` makes a model
of it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]
Attributes = Mapping[str, Any]
Order = tuple[int, ...]
"""In which the axes of a value stand: axis `i` is axis `order[i]` of what it is told of."""

MODULE_END = "cfi.module_end"
"""Metadata of a node that computes the output of a module with weights of its own, or of an activation module."""

SAMPLES = (2, 5)
"""The two numbers of samples for which values are known."""


LARGE = 2**14
"""Elements of a weight that stays where it is until somebody asks for it."""


@dataclass(frozen=True, eq=False)
class Lent:
    """A weight that another model holds, which must be copied wherever it is to stay."""

    array: np.ndarray

    @property
    def dims(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.array.shape

    @property
    def data_type(self) -> int:
        """ONNX's number of its type."""
        return int(helper.np_dtype_to_tensor_dtype(self.array.dtype))


Source: TypeAlias = np.ndarray | TensorProto | Lent


@dataclass(eq=False)
class Value:
    """What one operation makes and others take.

    Attributes:
        name: As in the ONNX graph.
        dtype: Its numpy type; None for sequences and optional values.
        shape: Its sizes, None for those that follow the number of samples; None if it is not known.
        source: Where `constant` comes from.
        varying: Its values for two and for five samples, where they depend on that number alone.
        multiples: For the sizes that follow the number of samples, how many there are for each sample.
    """

    name: str
    dtype: np.dtype | None = None
    shape: Shape | None = None
    source: Source | None = None
    varying: tuple[np.ndarray, np.ndarray] | None = None
    multiples: Mapping[int, int] = field(default_factory=dict)

    @property
    def constant(self) -> np.ndarray | None:
        """Its value, if that is the same for any samples; a large weight is unpacked anew each time."""
        return None if self.source is None else unpack(self.source)

    def borrow(self) -> np.ndarray | None:
        """The same for whoever makes a copy at once, without one of its own where that can be done without."""
        return self.source.array if isinstance(self.source, Lent) else self.constant

    @property
    def is_constant(self) -> bool:
        """Whether it is the same for any samples and inputs."""
        return self.source is not None

    @property
    def known(self) -> bool:
        """Whether it depends on no input's values."""
        return self.is_constant or self.varying is not None

    @property
    def is_leaf(self) -> bool:
        """Whether no operation has to make it: it is constant, or the same for each sample."""
        return self.is_constant or self.per_sample is not None

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating point numbers."""
        return self.dtype is not None and self.dtype.kind == "f"

    @property
    def rank(self) -> int | None:
        """Number of axes."""
        return None if self.shape is None else len(self.shape)

    @property
    def sizes(self) -> Shape | None:
        """Its integers, if it is a known list of them: None for an entry that is the number of samples (or of them)."""
        constant = self.constant
        if constant is not None:
            return tuple(int(one) for one in np.atleast_1d(constant))
        if self.varying is None or self.varying[0].shape != self.varying[1].shape:
            return None
        if self.varying[0].dtype.kind not in "iu":
            return None
        pairs = zip(*(np.atleast_1d(one) for one in self.varying), strict=True)
        return tuple(int(a) if a == b else None for a, b in pairs)

    @property
    def per_sample(self) -> np.ndarray | None:
        """The value for one sample, first axis 1, if it is known and the same for each sample."""
        return self.repeated_along(0) if self.varying is not None and self.varying[0].ndim else None

    def repeated_along(self, axis: int) -> np.ndarray | None:
        """The value for one sample, if it is known and repeats along an axis for each of them."""
        if self.varying is None:
            return None
        first = self.varying[0].take([0], axis)
        for one, samples in zip(self.varying, SAMPLES, strict=True):
            wanted = (*first.shape[:axis], samples, *first.shape[axis + 1 :])
            if one.shape != wanted or not repeats(one, first):
                return None
        return first

    @property
    def uniform(self) -> Any:
        """The one number that all its elements are, as a numpy scalar, if it is known and so; otherwise None."""
        constant = self.constant
        values = self.varying or () if constant is None else (constant,)
        elements = [one.reshape(-1) for one in values]
        if not elements or not elements[0].size:
            return None
        first = elements[0][0]
        return first if all((one == first).all() for one in elements) else None


@dataclass(eq=False)
class Operation:
    """A node.

    Attributes:
        kind: Operator, such as `Conv`. A `MatMul` may have a third input here, which is added to the product.
        name: The node's name, never empty and no other's.
        version: Version of the operator set in which its definition last changed.
        inputs: None for those left out.
        outputs: None for those left out.
        attributes: Those of the node, and the defaults of the others.
        ends_module: Whether its output is that of a module whose name it bears (see `MODULE_END`).
    """

    kind: str
    name: str
    version: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    attributes: Attributes
    ends_module: bool = False

    def input(self, position: int) -> Value | None:
        """An input, None also beyond the last."""
        return self.inputs[position] if position < len(self.inputs) else None

    @property
    def output(self) -> Value:
        """The first output."""
        first = self.outputs[0]
        assert first is not None
        return first

    @property
    def operands(self) -> tuple[Value, ...]:
        """The inputs that are given, once each."""
        return tuple(dict.fromkeys(one for one in self.inputs if one is not None))

    @property
    def results(self) -> tuple[Value, ...]:
        """The outputs that are given."""
        return tuple(one for one in self.outputs if one is not None)


def describe(node: NodeProto | Operation) -> str:
    """How messages name a node."""
    if isinstance(node, Operation):
        return f"operator {node.kind} (node {node.name!r})"
    return f"operator {node.op_type} (node {node.name or node.output[0]!r})"


@dataclass(eq=False)
class Program:
    """The operations of a model in the order in which they run, without those whose results are known.

    Attributes:
        name: The graph's.
        inputs: Values that a caller gives.
        outputs: Values that the model returns; they may be inputs or constants.
        operations: In an order in which each comes after what it takes.
        free: Whether the first axes are a sample axis of any length; otherwise all sizes are fixed.
        opset: Version of the default operator set.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    free: bool
    opset: int

    def users(self) -> dict[Value, list[Operation]]:
        """For each value the operations that take it, once each."""
        users: dict[Value, list[Operation]] = {}
        for operation in self.operations:
            for value in operation.operands:
                users.setdefault(value, []).append(operation)
        return users


Needs = Callable[[Operation, int, Value], bool]


def prune(operations: Sequence[Operation], outputs: Collection[Value], needs: Needs) -> list[Operation]:
    """The operations that the outputs depend on.

    Args:
        operations: In the order in which they run.
        outputs: What shall be computed.
        needs: Whether an operation needs its input at a position to be computed.
    """
    wanted = set(outputs)
    kept = []
    for operation in reversed(operations):
        if wanted.intersection(operation.results):
            kept.append(operation)
            inputs = enumerate(operation.inputs)
            wanted.update(one for i, one in inputs if one is not None and needs(operation, i, one))
    return kept[::-1]


def constant(name: str, array: np.ndarray) -> Value:
    """A value that is known."""
    return Value(name, array.dtype, tuple(array.shape), source=np.ascontiguousarray(array).reshape(array.shape))


def repeats(array: np.ndarray, one: np.ndarray) -> bool:
    """Whether an array is another one over and over.

    Floating point numbers were computed for each sample and may differ by rounding, relative to themselves or to the
    largest; to 1 at the most, as a mask may hold -1e9 beside numbers that matter.
    """
    if one.dtype.kind != "f":
        return np.array_equal(array, np.broadcast_to(one, array.shape))
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    rounding = 8 * float(np.finfo(one.dtype).eps)
    return np.allclose(array, one, rtol=rounding, atol=rounding * min(largest, 1.0), equal_nan=True)


def unpack(source: Source) -> np.ndarray:
    """The array of a weight."""
    if isinstance(source, Lent):
        return np.array(source.array, order="C")
    return numpy_helper.to_array(source) if isinstance(source, TensorProto) else source


def default_attributes(schema: onnx.defs.OpSchema) -> dict[str, Any]:
    """What the definition of an operator says of attributes that are left out."""
    return {
        name: plain(helper.get_attribute_value(one.default_value))
        for name, one in schema.attributes.items()
        if one.default_value.type
    }


def plain(value: Any) -> Any:
    """The value of an attribute as text, number, array, or tuple of these."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(plain(one) for one in value)
    return value
