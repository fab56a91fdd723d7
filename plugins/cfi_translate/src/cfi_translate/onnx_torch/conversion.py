"""The way from an ONNX model to a module of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import fx

from cfi_core.contract import Converted
from cfi_translate.failures import failure, name_failures
from cfi_translate.grammar import require
from cfi_translate.onnx_torch.builder import DTYPES, TorchBuilder, torch_type
from cfi_translate.onnx_torch.operators import operator
from cfi_translate.program import Operation, Program, Value, prune
from cfi_translate.reading import read
from cfi_translate.rewriting import IN_ANY_LAYOUT, rewrite
from cfi_translate.rewriting.channels_first import to_channels_first
from cfi_translate.translators import ONNX_TORCH

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


@name_failures(ONNX_TORCH)
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
    program = rewrite(read(model, inputs, ONNX_TORCH, known=operator.__contains__), IN_ANY_LAYOUT)
    program, input_axes = to_channels_first(program)
    program = rewrite(program)
    builder = TorchBuilder(program)
    for operation in prune(program.operations, program.outputs, lambda op, position, value: not value.is_leaf):
        _convert(operation, builder)
    module = builder.graph.finish([builder.tensor(value) for value in program.outputs])
    _probe(module, program, inputs, input_axes)
    return Converted(module, input_axes, (None,) * len(program.outputs))


def _convert(operation: Operation, to: TorchBuilder) -> None:
    with operator.name_refusals(operation):
        _require_types(operation)
        originals = _give_signed_inputs(operation, to)
        result = operator.convert(operation.kind, operation, to, *operation.inputs)
        for value, node in originals.items():
            to.put(value, node)
        results = result if isinstance(result, tuple) else (result,)
        for position, made in enumerate(operation.outputs):
            if made is None:
                continue
            is_given = position < len(results) and results[position] is not None
            require(is_given, f"its output {position} is not supported")
            to.put(made, _restore_unsigned(operation, made, results[position], to))


def _require_types(operation: Operation) -> None:
    """Refuses types with which torch does not compute."""
    for value in (*operation.operands, *operation.results):
        require(value.dtype is not None, f"{value.name!r} is not known to be a tensor")
        require(value.dtype in DTYPES, f"values of type {value.dtype} are not supported")
        possible = value.dtype != _LONG or operation.kind in _ANY_BITS | _OWN_TYPES
        require(possible, "torch does not compute with unsigned integers of 64 bits")


def _give_signed_inputs(operation: Operation, to: TorchBuilder) -> dict[Value, fx.Node]:
    """Gives the operation signed integers for unsigned ones, with which torch does not compute."""
    originals: dict[Value, fx.Node] = {}
    if operation.kind in _OWN_TYPES:
        return originals
    for value in operation.operands:
        if value.dtype in _WIDE or value.dtype == _LONG:
            originals[value] = to.tensor(value)
            to.put(value, to.method("view" if value.dtype == _LONG else "to", value, torch.int64))
    return originals


def _restore_unsigned(operation: Operation, value: Value, node: Any, to: TorchBuilder) -> fx.Node:
    if operation.kind in _OWN_TYPES:
        return node
    if value.dtype in _WIDE:
        return to.cast(node, torch_type(value))
    return to.method("view", node, torch.uint64) if value.dtype == _LONG else node


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
        raise failure(ONNX_TORCH, "made a module that does not run", error) from error
    results = results if isinstance(results, tuple) else (results,)
    for value, result in zip(program.outputs, results, strict=True):
        if value.dtype is not None and torch_type(value) != result.dtype:
            raise failure(ONNX_TORCH, f"made {result.dtype} of the output {value.name!r}, which is {value.dtype}")
        if value.shape is None:
            continue
        expected, found = tuple(value.shape), tuple(result.shape)
        if len(found) != len(expected) or any(a not in (None, b) for a, b in zip(expected, found, strict=True)):
            raise failure(ONNX_TORCH, f"made shape {found} of the output {value.name!r}, which is {expected}")
