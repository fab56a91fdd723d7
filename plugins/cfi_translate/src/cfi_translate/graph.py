"""Looking things up in an ONNX graph, and changing it node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Shape = tuple[int | None, ...]

NCHW_TO_NHWC = (0, 2, 3, 1)
NHWC_TO_NCHW = (0, 3, 1, 2)


class Graph:
    """An index over a model: who makes a value, who reads it, its constant or its shape.

    The index is taken once; build a new one after the model has changed.

    Attributes:
        model: The indexed model.
        constants: Values of the initialisers.
        producers: The node that makes each value.
        consumers: The nodes that read each value.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants = _Constants(model.graph.initializer)
        self.producers = {name: node for node in model.graph.node for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = [one.name for one in model.graph.output]
        self._shapes: dict[str, Shape] | None = None

    def shape(self, name: str) -> Shape | None:
        """Inferred shape of a value; None for its unknown sizes, None if its rank is unknown."""
        if name in self.constants:
            return self.constants.shape(name)
        if self._shapes is None:
            self._shapes = inferred_shapes(self.model)
        return self._shapes.get(name)

    def rank(self, name: str) -> int | None:
        """Number of axes of a value, where known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def only_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads the value; None if there are more, or if it is an output."""
        consumers = self.consumers.get(name, [])
        return consumers[0] if len(consumers) == 1 and name not in self.outputs else None

    def constant(self, node: NodeProto, position: int) -> np.ndarray | None:
        """Value of a node's input, if it is given and constant."""
        if len(node.input) <= position:
            return None
        return self.constants.get(node.input[position])


class _Constants(Mapping[str, np.ndarray]):
    """Values of initialisers, unpacked when they are asked for."""

    def __init__(self, initialisers: Iterable[TensorProto]) -> None:
        self._packed = {one.name: one for one in initialisers}
        self._values: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            self._values[name] = numpy_helper.to_array(self._packed[name])
        return self._values[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a value, which need not be unpacked for them."""
        return tuple(self._packed[name].dims)

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def inferred_shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes of all values that ONNX shape inference can tell."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
    return shapes


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def set_attributes(node: NodeProto, **values: Any) -> None:
    """Sets attributes of a node; a value of None removes the attribute."""
    kept = [one for one in node.attribute if one.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items() if value is not None)


def add_constant(model: ModelProto, name: str, value: np.ndarray) -> str:
    """Adds an initialiser under a name that is still free, and returns that name."""
    taken = {one.name for one in model.graph.initializer}
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), unique))
    return unique


def replace_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Gives the graph these nodes, in this order."""
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def inline_constants(model: ModelProto) -> None:
    """Constant nodes become initialisers."""
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            (value,) = ReferenceEvaluator(node).run(None, {})
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), node.output[0]))
        else:
            kept.append(node)
    replace_nodes(model, kept)


def rename_value(model: ModelProto, old: str, new: str) -> None:
    """Renames a value wherever it is made or read."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        if value.name == old:
            value.name = new


def describe(node: NodeProto) -> str:
    """How messages name a node."""
    return f"operator {node.op_type} (node {node.name or node.output[0]!r})"


def graph_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give: those without an initialiser."""
    initialised = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in initialised]


def output_axes(model: ModelProto, permutation: Sequence[int]) -> tuple[tuple[int, ...] | None, ...]:
    """The permutation for each output that has as many axes, None for the others."""
    graph = Graph(model)
    return tuple(tuple(permutation) if graph.rank(name) == len(permutation) else None for name in graph.outputs)
