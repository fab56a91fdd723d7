"""What this plugin registers; imports no framework."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import Need, TranslatorSpec

_ALL_NEEDS = frozenset(Need)
_TORCH = "torch>=2.12"
_KERAS = ("tensorflow>=2.20", "keras>=3.14")
_ONNX = ("onnx>=1.21", "onnxruntime>=1.20")
_LIBRARIES = "cfi-translate[libraries]"


@hookimpl
def cfi_translators() -> Iterable[TranslatorSpec]:
    """Our own converters, and more expensive ones by other libraries: through ONNX, one translator for each step.

    The other libraries are an extra of this distribution.
    """
    return [
        TranslatorSpec(
            name="keras-torch",
            source="tensorflow",
            target="torch",
            preserves=_ALL_NEEDS,
            cost=5,
            implementation="cfi_translate.keras_torch:convert",
            requirements=(*_KERAS, _TORCH),
        ),
        TranslatorSpec(
            name="torch-export",
            source="torch",
            target="onnx",
            preserves=_ALL_NEEDS,
            cost=5,
            implementation="cfi_translate.torch_export:convert",
            requirements=(_TORCH, *_ONNX),
        ),
        TranslatorSpec(
            name="onnx-keras",
            source="onnx",
            target="tensorflow",
            preserves=_ALL_NEEDS,
            cost=5,
            implementation="cfi_translate.onnx_keras:convert",
            requirements=(*_KERAS, *_ONNX),
        ),
        TranslatorSpec(
            name="onnx-torch",
            source="onnx",
            target="torch",
            preserves=_ALL_NEEDS,
            cost=5,
            implementation="cfi_translate.onnx_torch:convert",
            requirements=(_TORCH, *_ONNX),
        ),
        TranslatorSpec(
            name="torch-onnx",
            source="torch",
            target="onnx",
            preserves=_ALL_NEEDS,
            cost=10,
            implementation="cfi_translate.torch_to_onnx:convert",
            requirements=(_TORCH, *_ONNX),
        ),
        TranslatorSpec(
            name="onnx2keras",
            source="onnx",
            target="tensorflow",
            preserves=_ALL_NEEDS,
            cost=10,
            implementation="cfi_translate.onnx_to_keras:convert",
            requirements=("onnx2keras>=0.0.25", *_KERAS, *_ONNX),
            extra=_LIBRARIES,
        ),
        TranslatorSpec(
            name="tf2onnx",
            source="tensorflow",
            target="onnx",
            preserves=_ALL_NEEDS,
            cost=10,
            implementation="cfi_translate.tf_to_onnx:convert",
            requirements=("tf2onnx>=1.17", *_KERAS, *_ONNX),
            extra=_LIBRARIES,
        ),
        TranslatorSpec(
            name="keras-onnx-export",
            source="tensorflow",
            target="onnx",
            preserves=_ALL_NEEDS,
            cost=15,
            implementation="cfi_translate.keras_export:convert",
            requirements=("tf2onnx>=1.17", *_KERAS, *_ONNX),
            extra=_LIBRARIES,
        ),
        TranslatorSpec(
            name="onnx2torch",
            source="onnx",
            target="torch",
            preserves=_ALL_NEEDS,
            cost=10,
            implementation="cfi_translate.onnx_to_torch:convert",
            requirements=("onnx2torch>=1.5.15", "torchvision>=0.27", _TORCH, *_ONNX),
            extra=_LIBRARIES,
        ),
    ]
