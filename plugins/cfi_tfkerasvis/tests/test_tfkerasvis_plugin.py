"""What the plugin registers, and that registering costs no framework."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from cfi_core.specs import Head, Kind, MethodSpec, Need, resolve
from cfi_tfkerasvis.plugin import INIT_ARGS, cfi_methods, cfi_toolsets
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


def test_all_methods_are_registered() -> None:
    assert {spec.key for spec in SPECS} == set(CLASSES)
    assert {spec.toolset for spec in SPECS} == {spec.name for spec in cfi_toolsets()} == {"tf-keras-vis"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_own_argument_names_are_those_of_tf_keras_vis(spec: MethodSpec) -> None:
    call = inspect.signature(CLASSES[spec.key].__call__).parameters
    constructor = inspect.signature(ModelVisualization.__init__).parameters
    assert spec.exec_args == tuple(call)[1:]
    assert spec.init_args == INIT_ARGS == tuple(constructor)[2:]
    assert set(spec.roles) <= set(spec.exec_args)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_specs_are_honest(spec: MethodSpec) -> None:
    assert callable(resolve(spec.implementation))
    assert spec.head is Head.LOGIT
    assert spec.citation
    assert (Need.LAYER in spec.needs) == ("layer" in spec.required) == (spec.kind is Kind.LAYER)
    assert (Need.LAYER_GRADIENT in spec.needs) == (Need.LAYER in spec.needs and spec.key != "score_cam")
    assert ("inputs" in spec.required) == (spec.kind is not Kind.FEATURE_VISUALIZATION)


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
