"""The functions that build each operator."""

from __future__ import annotations

from collections.abc import Mapping

from cfi_translate.onnx_keras import (
    activations,
    convolutions,
    elementwise,
    indexing,
    normalizations,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from cfi_translate.onnx_keras.building import Handler

OPERATORS: Mapping[str, Handler] = {
    **activations.OPERATORS,
    **convolutions.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **normalizations.OPERATORS,
    **pooling.OPERATORS,
    **products.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **resizing.OPERATORS,
    **shapes.OPERATORS,
}
