"""The functions that convert layers and operations of Keras; importing them fills the table of `calls`."""

from cfi_translate.keras_torch.operators import (  # noqa: F401
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
