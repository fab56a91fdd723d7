"""What each operator of torch becomes in ONNX."""

from cfi_translate.torch_export.operators import (
    arithmetic,
    attention,
    layers,
    pooling,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from cfi_translate.torch_export.operators.registry import WRITERS, Writer

__all__ = [
    "WRITERS",
    "Writer",
    "arithmetic",
    "attention",
    "layers",
    "pooling",
    "recurrent",
    "reductions",
    "resizing",
    "shapes",
]
