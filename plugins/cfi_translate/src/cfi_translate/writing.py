"""Writes a `Program` back as an ONNX model, for readers of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cfi_translate.names import claim
from cfi_translate.program import Operation, Program, Shape, Value, constant

_GLOBAL_POOLING = ("GlobalAveragePool", "GlobalMaxPool")


def needs_values(operation: Operation, position: int, value: Value) -> bool:
    """Whether an operation needs an input to be computed: the shape of a Reshape can say what follows the samples."""
    if value.is_constant:
        return False
    return operation.kind != "Reshape" or position != 1 or _reshaping_sizes(value.sizes) is None


def _reshaping_sizes(sizes: Shape | None) -> np.ndarray | None:
    """What Reshape takes for these sizes, if at most one of them follows the number of samples."""
    if sizes is None or sizes.count(None) > 1:
        return None
    if -1 in sizes and None in sizes:  # there may be only one -1; 0 copies the first axis
        return np.array([0, *sizes[1:]], np.int64) if sizes[0] is None else None
    return np.array([-1 if one is None else one for one in sizes], np.int64)


def write(program: Program) -> ModelProto:
    """The model, in the operator set of the program; its sample axis is free where the program's is.

    Args:
        program: Read with `needs_values` of this module.
    """
    names = _Names(program)
    nodes = [_node(one, names, program.opset) for operation in program.operations for one in _lower(operation)]
    made = {name for node in nodes for name in node.output}
    outputs: list[ValueInfoProto] = []
    for position, value in enumerate(program.outputs):
        name = names[value]
        if name not in made or any(name == one.name for one in outputs):
            name = names.new(f"{name}_output{position}")
            nodes.append(helper.make_node("Identity", [names[value]], [name], names.new(name)))
        outputs.append(_info(name, value))
    inputs = [_info(names[value], value) for value in program.inputs]
    graph = helper.make_graph(nodes, program.name, inputs, outputs, names.initialisers)
    opset = helper.make_opsetid("", program.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]))


class _Names:
    """A name for each value; constants become initialisers when they are asked for."""

    def __init__(self, program: Program) -> None:
        self.initialisers: list[TensorProto] = []
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()
        for value in (*program.inputs, *program.outputs):
            self._taken.add(value.name)
            self._add(value, value.name)
        for operation in program.operations:
            for value in operation.results:
                self[value]

    def new(self, wanted: str) -> str:
        """A name that nothing has yet."""
        return claim(wanted, self._taken)

    def __getitem__(self, value: Value | None) -> str:
        if value is None:
            return ""
        if value not in self._names:
            self._add(value, self.new(value.name))
        return self._names[value]

    def _add(self, value: Value, name: str) -> None:
        if value in self._names:
            return
        self._names[value] = name
        if isinstance(value.source, TensorProto):
            tensor = TensorProto()
            tensor.CopyFrom(value.source)
            tensor.name = name
            self.initialisers.append(tensor)
        elif value.source is not None:
            self.initialisers.append(numpy_helper.from_array(value.source, name))


def _lower(operation: Operation) -> Iterator[Operation]:
    """Operations as ONNX defines them: a bias of MatMul, and axes that pooling drops, are operations of their own."""
    sizes, shape = None, operation.input(1)
    if operation.kind == "Reshape" and (shape is None or not shape.is_constant):
        sizes = _reshaping_sizes(operation.output.shape if shape is None else shape.sizes)
    inner = Value(f"{operation.name}.inner", operation.results[0].dtype)
    if operation.kind == "MatMul" and len(operation.inputs) > 2:
        data, weight, bias = operation.inputs
        yield replace(operation, name=f"{operation.name}.product", inputs=(data, weight), outputs=(inner,))
        yield replace(operation, kind="Add", inputs=(inner, bias), attributes={})
    elif operation.kind in _GLOBAL_POOLING and not operation.attributes.get("keepdims", 1):
        yield replace(operation, name=f"{operation.name}.pool", outputs=(inner,))
        yield replace(operation, kind="Flatten", inputs=(inner,), attributes={"axis": 1})
    elif sizes is not None:
        yield replace(operation, inputs=(operation.inputs[0], constant(f"{operation.name}.shape", sizes)))
    else:
        yield operation


def _node(operation: Operation, names: _Names, opset: int) -> NodeProto:
    inputs, outputs = ([names[one] for one in ends] for ends in (operation.inputs, operation.outputs))
    node = helper.make_node(operation.kind, inputs, outputs, operation.name)
    types = onnx.defs.get_schema(operation.kind, opset, "").attributes if operation.attributes else {}
    for name, kind in types.items():
        value = operation.attributes.get(name)
        if isinstance(value, np.ndarray):
            value = numpy_helper.from_array(value)
        if value is not None and value != ():
            node.attribute.append(helper.make_attribute(name, value, attr_type=int(kind.type)))
    return node


def _info(name: str, value: Value) -> ValueInfoProto:
    if value.dtype is None:
        return helper.make_empty_tensor_value_info(name)
    shape = value.shape and ["batch" if axis == 0 and size is None else size for axis, size in enumerate(value.shape)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)
