"""How much memory a pass will take, told from the graph and the sizes of the inputs before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from cfi_onnx.files import hollow
from cfi_onnx.structure import element_bits

# Operators whose work is as large as their results and inputs: ONNX Runtime may compute them while it prepares a model.
_CHEAP = frozenset(
    (
        *(
            "Abs",
            "Add",
            "And",
            "Cast",
            "CastLike",
            "Ceil",
            "Clip",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "Cos",
            "Div",
        ),
        *("DequantizeLinear", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "Identity"),
        *("Less", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "QuantizeLinear", "Range"),
        *("Reciprocal", "ReduceMean", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sin"),
        *(
            "Size",
            "Slice",
            "Split",
            "Sqrt",
            "Squeeze",
            "Sub",
            "Tanh",
            "Tile",
            "Transpose",
            "Trilu",
            "Unsqueeze",
            "Where",
        ),
    )
)
_MOST_FOLDED = 2**26
_LONG = 2**12
_TEXT = 32  # bytes of a string object besides its letters


@dataclass(frozen=True)
class Sizes:
    """What a pass takes.

    Attributes:
        peak: Bytes of the results that are alive together; of those whose size is known.
        complete: Whether the sizes of all results are known.
        slow_constants: Whether preparing the model would compute much that depends on no input.
        longest: Elements of its longest list of integers.
    """

    peak: int
    complete: bool
    slow_constants: bool
    longest: int = 0


def sizes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> Sizes:
    """Tells what a pass takes.

    Args:
        model: The model.
        shapes: Of the inputs.
    """
    outline = hollow(model)
    constants = {one.name for one in outline.graph.initializer}
    for value in outline.graph.input:
        if value.name in shapes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shapes[value.name])
        else:
            constants.add(value.name)  # a large weight
    for value in outline.graph.output:  # what is declared may be anything
        value.type.tensor_type.ClearField("shape")
    del outline.graph.value_info[:]
    found = _infer(outline, constants)
    if found.complete or found.longest > _LONG:
        return found
    # What is computed from sizes is followed too: by inference that writes every element out, so only for short lists.
    return _infer(outline, constants, data_prop=True)


def _infer(outline: ModelProto, constants: set[str], *, data_prop: bool = False) -> Sizes:
    graph = onnx.shape_inference.infer_shapes(outline, data_prop=data_prop).graph
    values = (*graph.value_info, *graph.output)
    has_texts = any(one.type.tensor_type.elem_type == TensorProto.STRING for one in values)
    text = _text_bytes(graph) if has_texts else None
    known = {value.name: _bytes(value, text) for value in values}
    found = _follow(graph.node, known, set(constants), {value.name for value in graph.output})
    return replace(found, longest=max(map(_length, graph.value_info), default=0))


def _length(value: onnx.ValueInfoProto) -> int:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value if len(dims) == 1 else 0


def _follow(
    nodes: Sequence[NodeProto], known: Mapping[str, int | None], constants: set[str], outputs: set[str]
) -> Sizes:
    last = {name: position for position, node in enumerate(nodes) for name in node.input}
    alive = peak = folded = 0
    complete, slow = True, False
    for position, node in enumerate(nodes):
        made = [known.get(name) for name in node.output if name]
        complete = complete and None not in made and not _has_insides(node)
        size = sum(one or 0 for one in made)
        alive += size
        peak = max(peak, alive)
        if all(not name or name in constants for name in node.input):
            constants.update(node.output)
            folded += size
            slow = slow or folded > _MOST_FOLDED or (node.op_type not in _CHEAP and size > 2**16) or None in made
        for name in set(node.input):
            if last[name] == position and name not in outputs:
                alive -= known.get(name) or 0
    return Sizes(peak, complete, slow)


def _has_insides(node: NodeProto) -> bool:
    """Whether a node has subgraphs, or is of no known kind: what happens inside does not show."""
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return node.domain not in ("", "ai.onnx") or any(one.type in graphs for one in node.attribute)


def _bytes(value: onnx.ValueInfoProto, text: int | None) -> int | None:
    """Bytes of a result, where a text takes so many; None if they are not known."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    dims = kind.shape.dim
    if kind.elem_type == TensorProto.STRING and text is None:
        return None
    if not all(one.HasField("dim_value") and one.dim_value >= 0 for one in dims):
        return None
    elements = math.prod(one.dim_value for one in dims)
    return (
        elements * (text or 0) if kind.elem_type == TensorProto.STRING else elements * element_bits(kind.elem_type) // 8
    )


def _text_bytes(graph: onnx.GraphProto) -> int | None:
    """What a text in the graph may take; None if texts are joined to longer ones."""
    longest = 0
    for tensor in graph.initializer:
        longest = max(longest, *map(len, tensor.string_data), 0)
    for node in graph.node:
        if node.op_type in ("StringConcat", "StringNormalizer"):
            return None
        for one in node.attribute:
            longest = max(longest, len(one.s), *map(len, one.strings), *map(len, one.t.string_data))
    return longest + _TEXT


def most_samples(feeds: Mapping[str, np.ndarray]) -> int:
    """The number of samples."""
    return max((len(one) for one in feeds.values() if np.ndim(one)), default=1)
