"""The operators of ONNX, by kind; importing them enters them into the table."""

from cfi_translate.onnx_torch.operators import (  # noqa: F401 - importing them registers their operators
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
from cfi_translate.onnx_torch.table import operator

__all__ = ["operator"]
