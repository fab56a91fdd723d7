"""What the plugin registers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from distributions import distributions, split

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


LIBRARIES = ("onnx2keras", "onnx2torch", "tf2onnx", "torchvision")


def test_the_libraries_are_an_extra_and_every_translator_that_needs_one_names_it() -> None:
    project = distributions()["cfi-translate"].project
    extra = project["optional-dependencies"]["libraries"]
    assert tuple(sorted(split(text)[0] for text in extra)) == LIBRARIES
    assert not {split(text)[0] for text in project["dependencies"]} & set(LIBRARIES)
    for spec in SPECS.values():
        needs_one = {split(text)[0] for text in spec.requirements} & set(LIBRARIES)
        assert spec.extra == ("cfi-translate[libraries]" if needs_one else ""), spec.name


CONVERSIONS = """
import sys
for name in {libraries}:
    sys.modules[name] = None  # importing it fails
import keras, numpy as np, torch
import cfi_translate.keras_torch, cfi_translate.onnx_keras, cfi_translate.onnx_torch, cfi_translate.torch_export
from cfi_core.specs import resolve

images = np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype("float32")
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 5))
expected = model(torch.tensor(images)).detach().numpy()
exported = resolve("cfi_translate.torch_export:convert")(model.eval(), (images,))
back = resolve("cfi_translate.onnx_torch:convert")(exported.model, (images,))
np.testing.assert_allclose(back.model(torch.tensor(images)).detach().numpy(), expected, atol=1e-5)
to_keras = resolve("cfi_translate.onnx_keras:convert")(exported.model, (images,))
last = np.transpose(images, to_keras.input_axes[0])
np.testing.assert_allclose(to_keras.model(last).numpy(), expected, atol=1e-5)
to_torch = resolve("cfi_translate.keras_torch:convert")(to_keras.model, (last,))
turned = torch.tensor(last.transpose(to_torch.input_axes[0]).copy())
np.testing.assert_allclose(to_torch.model(turned).detach().numpy(), expected, atol=1e-5)
"""


def test_our_own_converters_import_none_of_the_libraries() -> None:
    script = CONVERSIONS.format(libraries=LIBRARIES)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
