"""ONNX models for the readers of other libraries: read, rewritten, and written back in operators that they know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, version_converter

from cfi_core.framework import Permutation
from cfi_translate.failures import failure
from cfi_translate.program import Operation, Program
from cfi_translate.reading import read
from cfi_translate.rewriting import Rule, rewrite
from cfi_translate.rewriting.batch_normalization import scale_to_batch_normalization, shift_to_batch_normalization
from cfi_translate.rewriting.channels_first import to_channels_first
from cfi_translate.rewriting.flatten import reshape_to_flatten
from cfi_translate.rewriting.gemm import product_to_gemm
from cfi_translate.rewriting.padding import explicit_padding
from cfi_translate.rewriting.pooling import mean_to_pooling
from cfi_translate.writing import needs_values

# Those that make operators of old operator sets.
_RULES: tuple[Rule, ...] = (
    explicit_padding,
    mean_to_pooling,
    reshape_to_flatten,
    product_to_gemm,
    scale_to_batch_normalization,
    shift_to_batch_normalization,
)


def prepare(
    model: ModelProto,
    inputs: Sequence[np.ndarray],
    translator: str,
    opsets: tuple[int, int],
    *rules: Rule,
    preferred: int = 13,
) -> tuple[Program, tuple[Permutation, ...]]:
    """The program in a supported operator set, its padding explicit, its layers restored, its sizes constant.

    Args:
        model: The model; it is not changed.
        inputs: One array per input, sample axis first.
        translator: Who asks, for messages.
        opsets: Lowest and highest operator set that the reader understands.
        rules: Rewritings that this reader asks for besides.
        preferred: Operator set to convert to if the model's is outside.

    Returns:
        The program, to be written back, and the order in which the axes of each input come now (None: as before).
    """
    model = _convert_opset(model, translator, opsets, preferred)
    program, axes = to_channels_first(read(model, inputs, translator, needs=needs_values))
    return rewrite(program, (*rules, *_RULES)), axes


def _convert_opset(model: ModelProto, translator: str, opsets: tuple[int, int], preferred: int) -> ModelProto:
    """The model in an operator set from the range."""
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    lowest, highest = opsets
    if lowest <= version <= highest:
        return model
    try:
        return version_converter.convert_version(model, preferred)
    except Exception as error:  # the converter raises RuntimeError, and C++ errors of no fixed type
        what = f"needs opset {lowest} to {highest}; this model has {version} and does not convert"
        raise failure(translator, what, error) from error


def require_computed_outputs(program: Program, translator: str) -> dict[str, Operation]:
    """The operation that makes each output.

    Raises:
        TranslationError: An output is an input, or a constant.
    """
    makers = {value: one for one in program.operations for value in one.results}
    for value in program.outputs:
        if value not in makers:
            what = f"{value.name!r} is an input or a constant"
            raise failure(translator, f"needs outputs that an operator computes, and {what}")
    return {value.name: makers[value] for value in program.outputs}
