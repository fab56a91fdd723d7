"""What this plugin offers. Importing it imports neither onnx nor onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, ModelFormat, Need


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """ONNX models, in memory and in files, and sessions of ONNX Runtime."""
    return [
        FrameworkSpec(
            name="onnx",
            models="an onnx.ModelProto, the path of an .onnx file",
            model_types=(("onnx", "ModelProto"),),
            tensor_types=(),
            adapter="cfi_onnx.adapter:OnnxAdapter",
            module="onnx",
            file_suffixes=(".onnx",),
            formats=(
                ModelFormat(
                    name="an ONNX model",
                    suffixes=(".onnx",),
                    model="cfi_onnx.files:read_model",
                    requirements=("onnx>=1.23",),  # before 1.21, weights were read from anywhere
                ),
            ),
            offers=frozenset({Need.FORWARD, Need.LAYER}),
            without_gradients="ONNX Runtime computes no gradients: pip install cfi-translate, which converts the model "
            "into one that has them.",
        ),
        FrameworkSpec(
            name="onnxruntime",
            models="an ONNX Runtime session",
            model_types=(("onnxruntime.capi.onnxruntime_inference_collection", "InferenceSession"),),
            tensor_types=(),
            adapter="cfi_onnx.sessions:SessionAdapter",
            module="onnxruntime",
            offers=frozenset({Need.FORWARD}),
            without_gradients="An ONNX Runtime session has outputs only: use a perturbation method such as "
            "feature_ablation, occlusion, lime, kernel_shap or shapley_value_sampling, or pass the .onnx file, which "
            "can be converted into a model with gradients.",
        ),
    ]
