"""The operators of ONNX, by kind; importing them enters them into the table."""

from cfi_translate.onnx_keras.operators import (
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

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resizing",
    "shaping",
]
