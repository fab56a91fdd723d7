"""The operators of ONNX, by kind; importing them enters them into the table."""

from cfi_translate.onnx_keras.operators import (  # noqa: F401 - importing them registers their operators
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    recurrent,
    reduction,
    resizing,
    shaping,
)
from cfi_translate.onnx_keras.table import operator

__all__ = ["operator"]
