"""What a parsed model is made of, counted before anything works on it: nodes, subgraphs, functions, weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from cfi_core.errors import InputError
from cfi_onnx.limits import DEPTH, MEMORY, NODES, UNSTORED, allowed_memory

MOST_AXES = 32
"""That numpy had before version 2, and more than any operator knows what to do with."""

_AXES_FROM = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Unsqueeze": 1}
"""Operators whose result has an axis for each element of an input."""

_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_TENSORS = (AttributeProto.TENSOR, AttributeProto.TENSORS)
_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)
_BITS = {
    **{kind: 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in onnx.helper.get_all_tensor_dtypes()},
    **{kind: 4 for name, kind in TensorProto.DataType.items() if name in ("INT4", "UINT4", "FLOAT4E2M1")},
    **{kind: 2 for name, kind in TensorProto.DataType.items() if name in ("INT2", "UINT2")},
    TensorProto.STRING: 1,  # at least
}


@dataclass(frozen=True)
class Structure:
    """What a model is made of.

    Attributes:
        nodes: Number of nodes, functions written out.
        weights: Bytes of its tensors.
        tensors: All of them: initialisers, those in attributes, and those inside of subgraphs and functions.
    """

    nodes: int
    weights: int
    tensors: tuple[TensorProto, ...]


def examine(model: ModelProto) -> Structure:
    """Counts what a model is made of.

    Raises:
        InputError: It has too much of something, or tensors of impossible sizes.
    """
    walk = _Walk(model)
    nodes = walk.graph(model.graph, 0)
    if nodes > NODES.value:
        raise NODES.error(f"The model has {nodes:,} nodes, functions written out as often as they are called", nodes)
    weights = sum(tensor_bytes(one) for one in walk.tensors)
    walk.check_axes()
    _check_inputs(model)
    return Structure(nodes, weights, tuple(walk.tensors))


def element_bits(kind: int) -> int:
    """Bits of an element of a type; 8 for one that is not known."""
    return _BITS.get(kind, 8)


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes that its sizes and type ask for.

    Raises:
        InputError: They are impossible.
    """
    dims = tuple(tensor.dims)
    name = f"The tensor {_short(tensor.name)}"
    if len(dims) > MOST_AXES:
        raise InputError(f"{name} has {len(dims):,} axes; at most {MOST_AXES} are possible. The file is broken.")
    if any(one < 0 for one in dims):
        raise InputError(f"{name} has an axis of negative size, {min(dims)}. The file is broken.")
    if tensor.data_type not in _BITS:
        raise InputError(f"{name} is of type {tensor.data_type}, which this version of ONNX does not know.")
    return -(-math.prod(dims) * _BITS[tensor.data_type] // 8)


def check_in_memory(structure: Structure) -> None:
    """Refuses weights that lie elsewhere.

    Raises:
        InputError: There is one.
    """
    for tensor in structure.tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise InputError(
                f"The tensor {_short(tensor.name)} lies in a file of its own. Pass the path of the .onnx file instead, "
                f"or call onnx.load_external_data_for_model first."
            )


def check_stored(claimed: int, stored: int, what: str = "The model's weights are") -> None:
    """Refuses weights that no file holds.

    Raises:
        InputError: What is claimed exceeds what is stored by more than the limit.
    """
    if claimed - stored > UNSTORED.value:
        raise UNSTORED.error(f"{what} {claimed:,} bytes, of which the disk holds {stored:,}", claimed - stored)


def _check_inputs(model: ModelProto) -> None:
    """Refuses inputs that are declared larger than any pass may be."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > MOST_AXES:
            raise InputError(
                f"The input {_short(value.name)} has {len(dims):,} axes; at most {MOST_AXES} are possible. The file is "
                f"broken."
            )
        size = math.prod(max(one.dim_value, 1) for one in dims)
        if size > allowed_memory(0, 0):
            raise MEMORY.error(f"The input {_short(value.name)} is declared with {size:,} elements", size)


class _Walk:
    """Goes through graphs and the functions that they call, each of these once."""

    def __init__(self, model: ModelProto) -> None:
        self.tensors: list[TensorProto] = []
        self._functions = {(one.domain, one.name, one.overload): one for one in model.functions}
        self._sizes: dict[tuple[str, str, str], int | None] = {}
        self._seen = 0
        self._lists: dict[str, int] = {}
        self._shaped: list[tuple[str, NodeProto]] = []
        self._most, self._deepest = NODES.value, DEPTH.value

    def graph(self, graph: GraphProto, depth: int) -> int:
        self.tensors.extend(graph.initializer)
        for one in graph.initializer:
            self._note_length(one.name, one)
        for sparse in graph.sparse_initializer:
            self._sparse(sparse)
        return self._nodes(graph, depth)

    def _nodes(self, graph: GraphProto | FunctionProto, depth: int) -> int:
        if depth > self._deepest:
            raise DEPTH.error(
                f"The model has subgraphs, or functions that call functions, to more than {self._deepest} levels"
            )
        found = len(graph.node)
        self._seen += found
        if self._seen > self._most:  # before they are looked at
            raise NODES.error(f"The model has {self._seen:,} nodes", self._seen)
        return found + sum(self._inside(one, depth) for one in graph.node)

    def check_axes(self) -> None:
        """Refuses operators that would make tensors of more axes than are possible."""
        for name, node in self._shaped:
            if self._lists.get(name, 0) > MOST_AXES:
                raise InputError(
                    f"Operator {node.op_type} (node {_short(node.name or name)}) asks for {self._lists[name]:,} axes; "
                    f"at most {MOST_AXES} are possible. The file is broken."
                )

    def _inside(self, node: NodeProto, depth: int) -> int:
        """Nodes that this one stands for, besides itself."""
        found = 0
        position = _AXES_FROM.get(node.op_type)
        if position is not None and position < len(node.input):
            self._shaped.append((node.input[position], node))
        for attribute in node.attribute:
            kind = attribute.type
            if kind in _GRAPHS:
                graphs = [attribute.g] if kind == AttributeProto.GRAPH else attribute.graphs
                found += sum(self.graph(one, depth + 1) for one in graphs)
            elif kind in _SPARSE:
                for sparse in [attribute.sparse_tensor] if kind == _SPARSE[0] else attribute.sparse_tensors:
                    self._sparse(sparse)
            elif kind in _TENSORS:
                given = [attribute.t] if kind == AttributeProto.TENSOR else attribute.tensors
                self.tensors.extend(given)
                if node.op_type == "Constant" and node.output:
                    self._note_length(node.output[0], given[0])
            elif kind == AttributeProto.INTS and node.op_type == "Constant" and node.output:
                self._lists[node.output[0]] = len(attribute.ints)
        if self._functions and (key := (node.domain, node.op_type, node.overload)) in self._functions:
            found += self._function(key, depth + 1)
        return found

    def _function(self, key: tuple[str, str, str], depth: int) -> int:
        if key not in self._sizes:
            self._sizes[key] = None
            self._sizes[key] = self._nodes(self._functions[key], depth)
        size = self._sizes[key]
        if size is None:
            raise InputError(f"The model's function {_short(key[1])} calls itself, which ONNX does not allow.")
        return size

    def _note_length(self, name: str, tensor: TensorProto) -> None:
        if len(tensor.dims) == 1 and tensor.dims[0] > MOST_AXES:
            self._lists[name] = tensor.dims[0]

    def _sparse(self, sparse: onnx.SparseTensorProto) -> None:
        """A sparse tensor becomes a dense one wherever it is used."""
        self.tensors.extend((sparse.values, sparse.indices))
        size = tensor_bytes(TensorProto(name=sparse.values.name, dims=sparse.dims, data_type=sparse.values.data_type))
        if size > allowed_memory(0, 0):
            raise MEMORY.error(f"The sparse tensor {_short(sparse.values.name)} would be {size:,} bytes", size)


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
