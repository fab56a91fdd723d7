"""What the plugin registers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cfi_core.specs import Need, resolve
from cfi_translate.plugin import cfi_translators

SPECS = {spec.name: spec for spec in cfi_translators()}


def test_edges() -> None:
    assert {name: (spec.source, spec.target) for name, spec in SPECS.items()} == {
        "keras-torch": ("tensorflow", "torch"),
        "torch-export": ("torch", "onnx"),
        "onnx-keras": ("onnx", "tensorflow"),
        "onnx-torch": ("onnx", "torch"),
        "torch-onnx": ("torch", "onnx"),
        "onnx2keras": ("onnx", "tensorflow"),
        "tf2onnx": ("tensorflow", "onnx"),
        "keras-onnx-export": ("tensorflow", "onnx"),
        "onnx2torch": ("onnx", "torch"),
    }


@pytest.mark.parametrize("name", sorted(SPECS))
def test_specs(name: str) -> None:
    spec = SPECS[name]
    assert callable(resolve(spec.implementation))
    assert spec.preserves == frozenset(Need)
    assert spec.kind == "conversion"
    assert spec.cost > 0


def test_registering_imports_no_framework() -> None:
    code = (
        "import sys, cfi_translate.plugin as p; p.cfi_translators(); "
        "print([m for m in ('torch', 'tensorflow', 'keras', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
