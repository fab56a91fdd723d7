"""The way from an ONNX model to a Keras model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from cfi_core.contract import Converted
from cfi_translate.onnx_keras import operators
from cfi_translate.onnx_keras.builder import KerasBuilder
from cfi_translate.onnx_keras.layouts import input_layouts
from cfi_translate.onnx_keras.table import operator
from cfi_translate.reading import read
from cfi_translate.rewriting import rewrite
from cfi_translate.translators import ONNX_KERAS

assert operators  # importing them fills the table


def build(model: ModelProto, inputs: Sequence[np.ndarray]) -> Converted:
    """Reads the model and builds it anew in Keras.

    Raises:
        TranslationError: An operator, or a way to use it, is not supported.
    """
    program = rewrite(read(model, inputs, ONNX_KERAS, operator.__contains__))
    builder = KerasBuilder(program, inputs, input_layouts(program))
    for operation in program.operations:
        builder.step(operation)
    return builder.finish()
