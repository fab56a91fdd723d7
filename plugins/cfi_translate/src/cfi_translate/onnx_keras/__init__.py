"""ONNX to Keras: one native layer for each operator, channels-last by propagation.

The model is read into operations of known shapes (`cfi_translate.program`), operations that exporters write apart are
joined (`cfi_translate.rewriting`), and each one is built by its function in `operators`. A tensor knows which axis of
the ONNX model each of its axes is (`tensors`), so that a transposition costs nothing until an operation needs another
order.

What has no layer becomes a named `keras.ops` operation, which saves and loads as layers do. There are no Lambda
layers and no classes of our own.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted, passage
from cfi_translate.failures import failure, name_failures
from cfi_translate.program import Lent
from cfi_translate.reading import read
from cfi_translate.rewriting import rewrite
from cfi_translate.translators import ONNX_KERAS


@name_failures(ONNX_KERAS)
def convert(model: ModelProto, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts an ONNX model to a functional Keras model whose images are channels-last.

    Args:
        model: The ONNX model; it is not changed.
        inputs: One example per input, sample axis first; the Keras model takes inputs of their size and any number
            of samples, or of exactly their shapes where the first axes are no sample axis.

    Returns:
        A Keras model of native layers and `keras.ops` operations that carry the node names.

    Raises:
        TranslationError: An operator, or a way to use it, is not supported.
    """
    load_safely()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise failure(ONNX_KERAS, f"needs Keras on tensorflow, and this process runs it on {keras.backend.backend()}")
    from cfi_translate.onnx_keras.builder import KerasBuilder
    from cfi_translate.onnx_keras.layouts import input_layouts
    from cfi_translate.onnx_keras.operators import operator

    inputs = tuple(np.asarray(one) for one in inputs)
    lent = {name: one for name, one in passage().taken.items() if isinstance(one, Lent)}
    program = rewrite(read(model, inputs, ONNX_KERAS, operator.__contains__, lent=lent))
    builder = KerasBuilder(program, inputs, input_layouts(program))
    for operation in program.operations:
        builder.step(operation)
    return builder.finish()
