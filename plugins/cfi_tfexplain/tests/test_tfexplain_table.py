"""What the plugin registers, against tf-explain's own signatures."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from cfi_core.specs import Kind, Need
from cfi_tfexplain.table import METHODS, MULTIPLY, PICTURE, TOOLSET, ExplainMethod

MODULES = {
    "VanillaGradients": "vanilla_gradients",
    "GradientsInputs": "gradients_inputs",
    "IntegratedGradients": "integrated_gradients",
    "SmoothGrad": "smoothgrad",
    "OcclusionSensitivity": "occlusion_sensitivity",
    "GradCAM": "grad_cam",
    "ExtractActivations": "activations",
}
EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.key)


def tool(method: ExplainMethod) -> type:
    return getattr(import_module(f"tf_explain.core.{MODULES[method.tool]}"), method.tool)


def test_every_class_of_tf_explain_has_a_method() -> None:
    core = import_module("tf_explain.core")
    offered = {name for name, module in MODULES.items() if hasattr(import_module(f"tf_explain.core.{module}"), name)}
    assert {method.tool for method in METHODS.values()} == offered == set(MODULES)
    others = [name for name in dir(core) if name[0].isupper()]
    assert not set(others) - offered


@EVERY
def test_own_arguments_are_those_of_explain(method: ExplainMethod) -> None:
    names = [name for name in inspect.signature(tool(method).explain).parameters if name not in ("self", "model")]
    assert set(method.exec_args) == set(names)
    constructor = list(inspect.signature(tool(method)).parameters)
    assert method.init_args == tuple(constructor)
    assert set(method.own_args) <= {PICTURE, MULTIPLY}


@EVERY
def test_the_toolsets_defaults_are_those_of_its_signature(method: ExplainMethod) -> None:
    parameters = inspect.signature(tool(method).explain).parameters
    for name, value in method.spec.defaults.toolset.items():
        if name not in method.own_args:
            assert parameters[name].default == value
    assert method.spec.defaults.toolset[PICTURE] is True and method.spec.defaults.raw[PICTURE] is False


@EVERY
def test_the_spec_is_honest(method: ExplainMethod) -> None:
    spec = method.spec
    assert spec.toolset == TOOLSET and spec.citation
    assert (spec.kind is Kind.LAYER) == (Need.LAYER in spec.needs) == ("layer" in spec.required)
    assert Need.MODULES not in spec.needs  # bridges serve all of them
    assert method.definition and method.deviation
