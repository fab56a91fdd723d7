"""Changes of an ONNX graph, node by node: what exporters leave behind, and names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from cfi_translate.failures import refusal
from cfi_translate.names import unique
from cfi_translate.program import MODULE_END, Shape

_LONGEST_LIST = 2**16
NCHW_TO_NHWC = (0, 2, 3, 1)
NHWC_TO_NCHW = (0, 3, 1, 2)


def inferred_shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes of all values that ONNX shape inference can tell."""
    shapes: dict[str, Shape] = {}
    # What is computed from sizes is written out, element by element: only where no list is long.
    plain = _inferred_values(model)
    lists = (one.type.tensor_type.shape.dim for one in plain)
    is_short = all(len(dims) != 1 or dims[0].dim_value <= _LONGEST_LIST for dims in lists)
    for value in _inferred_values(model, data_prop=True) if is_short else plain:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
    return shapes


def _inferred_values(model: ModelProto, **options: bool) -> list[onnx.ValueInfoProto]:
    graph = shape_inference.infer_shapes(model, **options).graph
    return [*graph.input, *graph.value_info, *graph.output]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def add_constant(model: ModelProto, name: str, value: np.ndarray) -> str:
    """Adds an initialiser under a name that is still free, and returns that name."""
    name = unique(name, {one.name for one in model.graph.initializer})
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
    return name


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


def remove_dead_nodes(model: ModelProto) -> None:
    """Removes nodes and initialisers that no output depends on."""
    needed = {one.name for one in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    replace_nodes(model, reversed(kept))
    initialisers = [one for one in model.graph.initializer if one.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initialisers)


def remove_identities(model: ModelProto, translator: str) -> None:
    """Removes Identity, inference-mode Dropout, and casts of a value to the type that it has.

    What a module of the original computes stays, and so does an Identity between an input and an output of the graph.

    Raises:
        TranslationError: A Dropout is in training mode.
    """
    outputs = {one.name for one in model.graph.output}
    read = outputs.union(*(node.input for node in model.graph.node))
    producers = {name: node for node in model.graph.node for name in node.output if name}
    types = _element_types(model) if any(node.op_type == "Cast" for node in model.graph.node) else {}
    constants = {one.name: one for one in model.graph.initializer}
    renamed: dict[str, str] = {}

    def does_nothing(node: NodeProto) -> bool:
        if any(one.key == MODULE_END for one in node.metadata_props):
            return False
        if node.op_type == "Dropout":
            _refuse_training(node, constants, translator)
            is_known = len(node.input) < 3 or node.input[2] in constants
            return is_known and not read.intersection(node.output[1:])
        is_same = types.get(node.input[0]) == attribute(node, "to") if node.op_type == "Cast" else False
        return is_same or node.op_type == "Identity"

    def is_removed(node: NodeProto) -> bool:
        if not node.input or not does_nothing(node):
            return False
        source, target = renamed.get(node.input[0], node.input[0]), node.output[0]
        if target not in outputs:
            renamed[target] = source
            return True
        producer = producers.get(source)
        if producer is None or source in outputs or source in renamed.values():
            return False
        # The output keeps its name: what made the source now makes the output.
        producer.output[list(producer.output).index(source)] = target
        renamed[source] = target
        return True

    kept = [node for node in model.graph.node if not is_removed(node)]
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    replace_nodes(model, kept)


def _refuse_training(dropout: NodeProto, constants: dict[str, onnx.TensorProto], translator: str) -> None:
    given = [numpy_helper.to_array(constants[name]) if name in constants else None for name in dropout.input]
    ratio, training = (*given, None, None)[1:3]
    if training is not None and bool(training) and (ratio is None or ratio != 0):
        raise refusal(translator, dropout, "it is in training mode; export the model in inference mode")


def _element_types(model: ModelProto) -> dict[str, int]:
    types = {one.name: one.type.tensor_type.elem_type for one in _inferred_values(model)}
    return types | {one.name: one.data_type for one in model.graph.initializer}


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


def graph_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give: those without an initialiser."""
    initialised = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in initialised]
