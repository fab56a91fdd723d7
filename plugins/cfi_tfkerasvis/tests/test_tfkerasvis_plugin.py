"""What the plugin registers, and that registering costs no framework."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from cfi_core.specs import Head, Kind, MethodSpec, Need, resolve
from cfi_tfkerasvis.plugin import FITTED, INIT_ARGS, KEEP_STEPS, WORKAROUNDS, cfi_methods, cfi_toolsets
from cfi_tfkerasvis.workarounds import (
    ActivationMaximization,
    Gradcam,
    GradcamPlusPlus,
    Layercam,
    ModelVisualization,
    Saliency,
    Scorecam,
)

CLASSES = {
    "saliency": Saliency,
    "smooth_grad": Saliency,
    "grad_cam": Gradcam,
    "grad_cam_plus_plus": GradcamPlusPlus,
    "layer_cam": Layercam,
    "score_cam": Scorecam,
    "activation_maximization": ActivationMaximization,
}
SPECS = list(cfi_methods())
MAXIMIZATION = "activation_maximization"
MENDED = {"grad_cam_plus_plus", "score_cam", MAXIMIZATION}


def test_all_methods_are_registered() -> None:
    assert {spec.key for spec in SPECS} == set(CLASSES)
    assert {spec.toolset for spec in SPECS} == {spec.name for spec in cfi_toolsets()} == {"tf-keras-vis"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_own_argument_names_are_those_of_tf_keras_vis(spec: MethodSpec) -> None:
    call = inspect.signature(CLASSES[spec.key].__call__).parameters
    constructor = inspect.signature(ModelVisualization.__init__).parameters
    assert spec.exec_args == tuple(call)[1:]
    assert tuple(constructor)[2:] == INIT_ARGS
    own = ((WORKAROUNDS,) if spec.key in MENDED else ()) + ((KEEP_STEPS,) if spec.key == MAXIMIZATION else ())
    assert spec.init_args == (*INIT_ARGS, *own)
    assert set(spec.roles) <= set(spec.exec_args)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_specs_are_honest(spec: MethodSpec) -> None:
    assert callable(resolve(spec.implementation))
    assert spec.head is Head.LOGIT
    assert spec.citation
    assert (Need.LAYER in spec.needs) == ("layer" in spec.required) == (spec.kind is Kind.LAYER)
    assert (Need.LAYER_GRADIENT in spec.needs) == (Need.LAYER in spec.needs and spec.key != "score_cam")
    assert ("inputs" in spec.required) == (spec.kind is not Kind.FEATURE_VISUALIZATION)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_the_set_of_the_toolset_is_its_signature(spec: MethodSpec) -> None:
    signature = inspect.signature(CLASSES[spec.key].__call__).parameters
    settings = dict(spec.defaults.toolset)
    assert settings.pop(WORKAROUNDS, None) is (False if spec.key in MENDED else None)
    if spec.key == "smooth_grad":  # as its documentation calls it
        assert settings.pop("smooth_samples") == 20
    for name, value in settings.items():
        assert spec.roles.get(name) is None and name in spec.exec_args
        theirs, ours = signature[name].default, resolve(value) if isinstance(value, str) else value
        if callable(theirs):
            example = np.linspace(-2, 3, 24, dtype=np.float32).reshape(2, 3, 4)
            np.testing.assert_array_equal(ours(example), theirs(example))
        elif isinstance(theirs, list):
            assert [(type(entry), settings_of(entry)) for entry in ours] == [
                (type(entry), settings_of(entry)) for entry in theirs
            ]
        else:
            assert ours == theirs and type(ours) is type(theirs)


def settings_of(entry: object) -> dict[str, object]:
    return {name: value for name, value in vars(entry).items() if name != "random_generator"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_whatever_the_toolset_does_to_values_the_raw_set_turns_off(spec: MethodSpec) -> None:
    raw, toolset = spec.defaults.raw, spec.defaults.toolset
    assert set(toolset) - set(raw) == ({"input_range"} if spec.key == "activation_maximization" else set())
    assert set(raw) <= set(toolset)
    post = {"normalize_map": False, "keepdims": True, "expand_cam": False, "normalize_cam": False}
    assert {name: value for name, value in raw.items() if name in post} == {
        name: value for name, value in post.items() if name in signature_of(spec)
    }
    if spec.kind is Kind.FEATURE_VISUALIZATION:
        assert {name for name, value in raw.items() if value == FITTED} == {
            "input_modifiers",
            "regularizers",
            "optimizer",
        }


def signature_of(spec: MethodSpec) -> set[str]:
    return set(inspect.signature(CLASSES[spec.key].__call__).parameters)


def test_plugin_module_imports_no_framework() -> None:
    code = (
        "import sys, cfi_tfkerasvis.plugin as p; list(p.cfi_methods()); list(p.cfi_toolsets());"
        "print({'tensorflow', 'keras', 'tf_keras_vis', 'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_import_is_quiet_and_leaves_the_environment() -> None:
    code = (
        "import os, keras, tensorflow, warnings; before = dict(os.environ); filters = list(warnings.filters);"
        "format = keras.config.image_data_format(); warnings.simplefilter('error', DeprecationWarning);"
        "import cfi_tfkerasvis.run; assert dict(os.environ) == before, 'environment';"
        "assert keras.config.image_data_format() == format; print('quiet')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "quiet", done.stderr
