"""The way from an ONNX model to a module of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import fx

from cfi_core.contract import Converted
from cfi_translate.failures import failure, refusal, typed
from cfi_translate.grammar import Refusal
from cfi_translate.graph import attribute
from cfi_translate.onnx_torch import (  # noqa: F401 - importing them registers their operators
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resizing,
    sampling,
    shaping,
)
from cfi_translate.onnx_torch.reader import DTYPES, HANDLERS, NAME, Reader, refuse, torch_type
from cfi_translate.program import Operation, Program, Value, needed
from cfi_translate.reading import read
from cfi_translate.rewriting import IN_ANY_LAYOUT, rewrite
from cfi_translate.rewriting.channels_first import to_channels_first

_WIDE = {np.dtype(np.uint16), np.dtype(np.uint32)}
_LONG = np.dtype(np.uint64)
# What gives the same bits for unsigned integers of 64 bits as for signed ones.
_ANY_BITS = {
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Concat", "Equal", "Expand"),
    *("Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Mul", "Pad", "Reshape", "Slice", "Split"),
    *("Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Shape", "Size", "CumSum", "ReduceSum"),
    *("EyeLike", "ScatterElements", "ScatterND", "Scatter", "Compress", "DepthToSpace", "SpaceToDepth"),
}
_OWN_TYPES = {"Cast", "CastLike", "BitCast", "Identity", "Shape", "Size"}
_MOST_PROBED = 4


@typed(NAME)
def convert(model: ModelProto, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts an ONNX model to a `torch.fx.GraphModule` in inference mode.

    Args:
        model: The ONNX model; it is not changed.
        inputs: One array per input, sample axis first.

    Returns:
        A module of torch's own modules and functions, whose submodules carry the node names (dots part containers; what
        an attribute cannot hold becomes `_`). An input that the model itself transposes to channels-first becomes
        channels-first.

    Raises:
        TranslationError: An operator, a type or a size is not known to come out right.
    """
    _refuse_disputed(model)
    program = read(model, inputs, NAME, known=HANDLERS.__contains__)
    program, input_axes = to_channels_first(rewrite(program, IN_ANY_LAYOUT))
    program = rewrite(program)
    reader = Reader(program, model.graph.name)
    for operation in needed(program.operations, program.outputs, lambda op, position, value: not value.is_leaf):
        _translate(operation, reader)
    module = reader.graph.finish([reader.tensor(value) for value in program.outputs])
    _probe(module, program, inputs, input_axes)
    return Converted(module, input_axes, (None,) * len(program.outputs))


def _refuse_disputed(model: ModelProto) -> None:
    """Refuses what ONNX Runtime computes otherwise than ONNX defines it."""
    for node in model.graph.node:
        if node.op_type == "Attention" and len(node.output) > 3 and node.output[3] and attribute(node, "is_causal", 0):
            raise refusal(NAME, node, "ONNX and ONNX Runtime differ in the scores of what the mask hides")


def _translate(operation: Operation, reader: Reader) -> None:
    handler = HANDLERS.get(operation.kind)
    if handler is None:
        raise refuse(operation, "the operator is not supported")
    _check_types(operation)
    originals = _with_signed_inputs(operation, reader)
    try:
        result = handler(operation, reader)
    except Refusal as error:
        raise refuse(operation, str(error)) from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
        raise refuse(operation, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    for value, node in originals.items():
        reader.put(value, node)
    results = result if isinstance(result, tuple) else (result,)
    for position, made in enumerate(operation.outputs):
        if made is None:
            continue
        if position >= len(results) or results[position] is None:
            raise refuse(operation, f"its output {position} is not supported")
        reader.put(made, _unsigned_again(operation, made, results[position], reader))


def _check_types(operation: Operation) -> None:
    for value in (*operation.inputs, *operation.outputs):
        if value is None:
            continue
        if value.dtype is None:
            raise refuse(operation, f"{value.name!r} is not known to be a tensor")
        if value.dtype not in DTYPES:
            raise refuse(operation, f"values of type {value.dtype} are not supported")
        if value.dtype == _LONG and operation.kind not in _ANY_BITS | _OWN_TYPES:
            raise refuse(operation, "torch does not compute with unsigned integers of 64 bits")


def _with_signed_inputs(operation: Operation, reader: Reader) -> dict[Value, fx.Node]:
    """Gives the operation signed integers for unsigned ones, with which torch does not compute."""
    originals: dict[Value, fx.Node] = {}
    if operation.kind in _OWN_TYPES:
        return originals
    for value in dict.fromkeys(one for one in operation.inputs if one is not None):
        if value.dtype not in _WIDE and value.dtype != _LONG:
            continue
        if value.is_constant and not reader.has(value):
            continue
        node = reader.tensor(value)
        originals[value] = node
        how = "view" if value.dtype == _LONG else "to"
        reader.put(value, reader.method(how, node, torch.int64))
    return originals


def _unsigned_again(operation: Operation, value: Value, node: Any, reader: Reader) -> fx.Node:
    if operation.kind in _OWN_TYPES:
        return node
    if value.dtype in _WIDE:
        return reader.method("to", node, torch_type(value))
    return reader.method("view", node, torch.uint64) if value.dtype == _LONG else node


def _probe(
    module: fx.GraphModule,
    program: Program,
    inputs: Sequence[np.ndarray],
    input_axes: Sequence[tuple[int, ...] | None],
) -> None:
    """Runs the module once, so that what it cannot run is told now; types and shapes must be those of the program."""
    some = [array[:_MOST_PROBED] if program.free else array for array in inputs]
    turned = [one if axes is None else one.transpose(axes) for one, axes in zip(some, input_axes, strict=True)]
    try:
        with torch.no_grad():
            # Unlike a call, the interpreter prints nothing where it fails.
            results = fx.Interpreter(module).run(*(torch.from_numpy(np.array(one)) for one in turned))
    except Exception as error:  # torch raises whatever an operator runs into
        raise failure(NAME, "made a module that does not run", error) from error
    results = results if isinstance(results, tuple) else (results,)
    for value, result in zip(program.outputs, results, strict=True):
        if value.dtype is not None and torch_type(value) != result.dtype:
            raise failure(NAME, f"made {result.dtype} of the output {value.name!r}, which is {value.dtype}")
        if value.shape is None:
            continue
        expected = tuple(value.shape)
        found = tuple(result.shape)
        if len(found) != len(expected) or any(a not in (None, b) for a, b in zip(expected, found, strict=True)):
            raise failure(NAME, f"made shape {found} of the output {value.name!r}, which is {expected}")
