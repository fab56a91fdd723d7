"""What reading an ONNX model may take: bounds for what a graph can grow into, which its owner can raise.

`cfi_onnx.limits` bounds what files hold and what passes take, and has read most models before a converter does. What is
here holds for models of any origin, by environment variables of the same names.
"""

from __future__ import annotations

import os

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto

from cfi_core.errors import ArgumentError, TranslationError

NODES = ("CFI_ONNX_NODES", 50_000)
"""Nodes of a graph, functions written out as often as they are called: reading takes a millisecond for each."""

DEPTH = ("CFI_ONNX_DEPTH", 32)
"""Functions that call functions. Exporters make fewer than ten levels."""

RESULT = ("CFI_ONNX_MEMORY", 640 * 2**20)
"""Bytes of one result, for the two and the five samples with which a graph is read."""

FOLDED_SECONDS = ("CFI_ONNX_SECONDS", 6)
"""After that long nothing more is computed beforehand: the converter refuses what it then lacks, or builds it."""


def limited(limit: tuple[str, int]) -> int:
    """The bound that holds now.

    Raises:
        ArgumentError: The environment variable holds no number.
    """
    variable, default = limit
    try:
        return int(float(os.environ.get(variable, default)))
    except (ValueError, OverflowError):
        raise ArgumentError(f"{variable} is {os.environ[variable]!r}. Set it to a number, or leave it out.") from None


def passed(limit: tuple[str, int], what: str) -> TranslationError:
    """The error that says what was found, and how to raise the limit."""
    return TranslationError(
        f"{what}; the limit is {limited(limit):,}. If you trust the model, raise it by the environment variable "
        f"{limit[0]} (os.environ[{limit[0]!r}] = '…')."
    )


def check_functions(model: ModelProto, translator: str) -> None:
    """Refuses a model that would become too many nodes once its functions are written out.

    Raises:
        TranslationError: It would.
    """
    functions = {(one.domain, one.name, one.overload): one for one in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    deepest = limited(DEPTH)

    def count(graph: GraphProto | FunctionProto, depth: int) -> int:
        if depth > deepest:
            raise passed(DEPTH, f"{translator} reads functions and subgraphs inside of each other, and these go deeper")
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
    if nodes > limited(NODES):
        raise passed(NODES, f"{translator} was given a model of {nodes:,} nodes, functions written out")
