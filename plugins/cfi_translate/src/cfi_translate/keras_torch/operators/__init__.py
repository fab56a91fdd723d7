"""The functions that convert layers and operations of Keras; importing them fills the table of `calls`."""

from cfi_translate.keras_torch.calls import operator
from cfi_translate.keras_torch.operators import (  # noqa: F401 - importing them registers their operators
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
    sampling,
    shaping,
)

__all__ = ["operator"]
