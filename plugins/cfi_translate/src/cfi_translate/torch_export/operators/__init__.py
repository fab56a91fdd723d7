"""What each operator of torch becomes in ONNX, kind by kind."""

from cfi_translate.torch_export.operators import (  # noqa: F401 - importing them registers their operators
    activation,
    attention,
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
from cfi_translate.torch_export.table import operator

__all__ = ["operator"]
