"""The operators of ONNX, by kind; importing them enters them into the table."""

from cfi_translate.onnx_torch.operators import (
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

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resizing",
    "sampling",
    "shaping",
]
