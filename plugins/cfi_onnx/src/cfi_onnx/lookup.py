"""ONNX models from the output of their embedding on: of the Gather that looks vectors up for tokens."""

from __future__ import annotations

import onnx

from cfi_onnx.runner import real_inputs

_FLOATING = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.UNDEFINED,
    }
)


def find_lookup(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The one Gather by the first input alone from a table that no input decides on; None if there is not one."""
    inputs = [value.name for value in real_inputs(model)]
    types = {value.name: value.data_type for value in model.graph.initializer}
    sources = {name: frozenset({name}) for name in inputs}
    found = []
    for node in model.graph.node:  # in the order of the computation
        given = [sources.get(name, frozenset()) for name in node.input]
        sources.update(dict.fromkeys(node.output, frozenset().union(*given)))
        is_one = node.op_type == "Gather" and given == [frozenset(), frozenset(inputs[:1])]
        if is_one and _axis(node) == 0 and types.get(node.input[0], onnx.TensorProto.UNDEFINED) in _FLOATING:
            found.append(node)
    return found[0] if len(found) == 1 else None


def from_lookup(model: onnx.ModelProto, name: str, kind: int, width: int) -> onnx.ModelProto:
    """The graph with what a node gives, the tensor of that name, as an input in front of its own.

    Args:
        model: The model; it is left as it is.
        name: Of the tensor.
        kind: Its type, in ONNX's numbers.
        width: Size of its last axis; the others are those of the tokens.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = [node for node in made.graph.node if name not in node.output]
    vectors = onnx.ValueInfoProto()
    vectors.CopyFrom(real_inputs(model)[0])
    vectors.name = name
    vectors.type.tensor_type.elem_type = kind
    vectors.type.tensor_type.shape.dim.add().dim_value = width
    inputs = [vectors, *made.graph.input]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend(kept)
    made.graph.input.extend(copies)
    return made


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
