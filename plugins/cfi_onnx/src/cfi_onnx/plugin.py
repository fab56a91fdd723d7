"""What this plugin offers. Importing it imports neither onnx nor onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, Need


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """ONNX models, in memory and in files."""
    return [
        FrameworkSpec(
            name="onnx",
            model_types=(("onnx", "ModelProto"),),
            tensor_types=(),
            adapter="cfi_onnx.adapter:OnnxAdapter",
            module="onnx",
            file_suffixes=(".onnx",),
            offers=frozenset({Need.FORWARD, Need.LAYER}),
            without_gradients="ONNX Runtime computes no gradients: pip install cfi-translate, which converts the model "
            "into one that has them.",
        ),
    ]
