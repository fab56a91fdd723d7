"""What reading an ONNX model may take: bounds for what a graph can grow into, which its owner can raise.

`cfi_onnx.limits` bounds what files hold and what passes take, and has read most models before a converter does. What is
here holds for models of any origin, by environment variables of the same names.
"""

from __future__ import annotations

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto

from cfi_core.errors import TranslationError
from cfi_core.framework import Limit

NODES = Limit("CFI_ONNX_NODES", 50_000, "nodes")
"""Nodes of a graph, functions written out as often as they are called: reading takes a millisecond for each."""

DEPTH = Limit("CFI_ONNX_DEPTH", 32, "levels")
"""Functions that call functions. Exporters make fewer than ten levels."""

RESULT = Limit("CFI_ONNX_MEMORY", 640 * 2**20, "bytes")
"""Bytes of one result, for the two and the five samples with which a graph is read."""

FOLDED_SECONDS = Limit("CFI_ONNX_SECONDS", 6, "seconds")
"""After that long nothing more is computed beforehand: the converter refuses what it then lacks, or builds it."""


def check_functions(model: ModelProto, translator: str) -> None:
    """Refuses a model that would become too many nodes once its functions are written out.

    Raises:
        TranslationError: It would.
    """
    functions = {(one.domain, one.name, one.overload): one for one in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    deepest = DEPTH.value

    def count(graph: GraphProto | FunctionProto, depth: int) -> int:
        if depth > deepest:
            raise DEPTH.error_of(
                TranslationError,
                f"{translator} reads functions and subgraphs inside of each other, and these go deeper",
            )
        found = len(graph.node)
        for node in graph.node:
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                if key not in sizes:
                    sizes[key] = count(functions[key], depth + 1)
                found += sizes[key]
            for one in node.attribute:
                if one.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                    found += sum(count(inner, depth + 1) for inner in (one.g, *one.graphs))
        return found

    nodes = count(model.graph, 0)
    if nodes > NODES.value:
        raise NODES.error_of(
            TranslationError, f"{translator} was given a model of {nodes:,} nodes, functions written out"
        )
