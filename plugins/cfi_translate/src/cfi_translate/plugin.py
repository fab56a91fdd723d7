"""What this plugin registers; imports no framework."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import Need, TranslatorSpec

_TORCH = "torch>=2.13"
_KERAS = ("tensorflow>=2.20", "keras>=3.15")
_ONNX = ("onnx>=1.23", "onnxruntime>=1.27")
_ONNX2TORCH = ("onnx2torch>=1.5.15", "torchvision>=0.28")
_TF2ONNX = "tf2onnx>=1.17"
_LIBRARIES = "cfi-translate[libraries]"

# Name, source and target, cost, module, requirements, and the extra that brings them.
_OURS = (
    ("keras-torch", "tensorflow", "torch", 5, "keras_torch", (*_KERAS, _TORCH), ""),
    ("torch-export", "torch", "onnx", 5, "torch_export", (_TORCH, *_ONNX), ""),
    ("onnx-keras", "onnx", "tensorflow", 5, "onnx_keras", (*_KERAS, *_ONNX), ""),
    ("onnx-torch", "onnx", "torch", 5, "onnx_torch", (_TORCH, *_ONNX), ""),
)
_OF_LIBRARIES = (
    ("torch-onnx", "torch", "onnx", 10, "torch_to_onnx", (_TORCH, *_ONNX), ""),
    ("onnx2keras", "onnx", "tensorflow", 10, "onnx_to_keras", ("onnx2keras>=0.0.25", *_KERAS, *_ONNX), _LIBRARIES),
    ("tf2onnx", "tensorflow", "onnx", 10, "tf_to_onnx", (_TF2ONNX, *_KERAS, *_ONNX), _LIBRARIES),
    ("keras-onnx-export", "tensorflow", "onnx", 15, "keras_export", (_TF2ONNX, *_KERAS, *_ONNX), _LIBRARIES),
    ("onnx2torch", "onnx", "torch", 10, "onnx_to_torch", (*_ONNX2TORCH, _TORCH, *_ONNX), _LIBRARIES),
)


# What ours change for the whole process: torch.export its settings, and `nn.Module` while it traces one.
_PATCHES = {"torch-export": ("torch",), "keras-torch": (), "onnx-keras": (), "onnx-torch": ()}


@hookimpl
def cfi_translators() -> Iterable[TranslatorSpec]:
    """Our own converters, and more expensive ones by other libraries: through ONNX, one translator for each step.

    The other libraries are an extra of this distribution.
    """
    for name, source, target, cost, module, requirements, extra in (*_OURS, *_OF_LIBRARIES):
        yield TranslatorSpec(
            name=name,
            source=source,
            target=target,
            preserves=frozenset(Need),
            cost=cost,
            implementation=f"cfi_translate.{module}:convert",
            requirements=requirements,
            extra=extra,
            patches=_PATCHES.get(name),
        )
