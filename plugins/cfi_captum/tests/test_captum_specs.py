"""The plugin's table against captum itself."""

from __future__ import annotations

import inspect
import subprocess
import sys

import captum.attr
import pytest
from captum.attr import Attribution
from captum.attr._core.noise_tunnel import NoiseTunnelType
from captum.attr._utils.approximation_methods import SUPPORTED_METHODS

from cfi_captum.plugin import cfi_methods, cfi_toolsets
from cfi_captum.table import (
    CHOICES,
    FAULTY_RULES,
    METHODS,
    NOISE_TUNNEL,
    QUADRATURES,
    TUNNELLED,
    WORKAROUNDS,
    Rule,
    method_spec,
)
from cfi_core.specs import Head, Kind, Need, Role, resolve

# Base classes and what explains language models, data loaders or a model of one's own.
NOT_METHODS = {
    "Attribution",
    "DataLoaderAttribution",
    "GradientAttribution",
    "LLMAttribution",
    "LLMGradientAttribution",
    "LayerAttribution",
    "LimeBase",
    "NeuronAttribution",
    "PerturbationAttribution",
    "RemoteLLMAttribution",
}


def _names(function: object) -> tuple[str, ...]:
    parameters = list(inspect.signature(function).parameters.values())[1:]  # type: ignore[arg-type]
    return tuple(parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD)


def test_choices_are_those_of_captum() -> None:
    assert set(QUADRATURES) == set(SUPPORTED_METHODS)
    assert set(CHOICES["nt_type"]) == {kind.name for kind in NoiseTunnelType}
    assert method_spec(METHODS["integrated_gradients"]).choices == {"method": QUADRATURES}
    assert method_spec(METHODS[NOISE_TUNNEL]).common == {"nt_samples": "samples", "stdevs": "noise"}


@pytest.mark.parametrize("key", METHODS)
def test_arguments_are_those_of_captum(key: str) -> None:
    method = METHODS[key]
    captum_class = getattr(captum.attr, method.captum_class)
    assert method.init_args == _names(captum_class.__init__)[1:]
    assert method.exec_args == _names(captum_class.attribute)


@pytest.mark.parametrize("key", METHODS)
def test_captum_takes_the_model_first(key: str) -> None:
    first = _names(getattr(captum.attr, METHODS[key].captum_class).__init__)[0]
    assert first in ("model", "forward_func", "attribution_method")


def test_every_attribution_class_is_offered() -> None:
    classes = {
        name
        for name in captum.attr.__all__
        if inspect.isclass(getattr(captum.attr, name)) and issubclass(getattr(captum.attr, name), Attribution)
    }
    assert {method.captum_class for method in METHODS.values()} == classes - NOT_METHODS


@pytest.mark.parametrize("key", TUNNELLED)
def test_required_is_what_captum_has_no_default_for(key: str) -> None:
    captum_class = getattr(captum.attr, METHODS[key].captum_class)
    spec = method_spec(METHODS[key])
    no_default = {
        name
        for function in (captum_class.__init__, captum_class.attribute)
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    words = {"neuron_selector": "neuron"}
    uniform = {words.get(name, name) for name in no_default} - {"model", "forward_func", "sliding_window_shapes"}
    assert set(spec.required) == uniform


@pytest.mark.parametrize(
    ("key", "needs"),
    [
        ("saliency", {Need.FORWARD, Need.INPUT_GRADIENT}),
        ("occlusion", {Need.FORWARD}),
        ("deep_lift", {Need.FORWARD, Need.INPUT_GRADIENT, Need.MODULES}),
        ("grad_cam", {Need.FORWARD, Need.LAYER, Need.LAYER_GRADIENT}),
        ("layer_activation", {Need.LAYER}),
    ],
)
def test_needs(key: str, needs: set[Need]) -> None:
    assert METHODS[key].needs == needs


def test_methods_with_rules_need_modules() -> None:
    for method in METHODS.values():
        assert (Need.MODULES in method.needs) == (method.rule is not Rule.NONE)


def test_kinds() -> None:
    kinds = {key: method.kind for key, method in METHODS.items()}
    assert kinds["grad_cam"] is Kind.LAYER
    assert kinds["guided_grad_cam"] is Kind.ATTRIBUTION
    assert kinds["neuron_gradient"] is Kind.NEURON
    assert sum(kind is Kind.LAYER for kind in kinds.values()) == 12
    assert sum(kind is Kind.NEURON for kind in kinds.values()) == 9


def test_heads() -> None:
    assert METHODS["saliency"].head is Head.LOGIT
    assert METHODS["integrated_gradients"].head is Head.OUTPUT


def test_only_relevance_alters_weights() -> None:
    assert {spec.key for spec in cfi_methods() if spec.alters_model} == {"lrp", "layer_lrp"}


def test_noise_tunnel_takes_the_arguments_of_what_it_wraps() -> None:
    spec = method_spec(METHODS[NOISE_TUNNEL])
    assert {"method", "multiply_by_inputs", "layer"} <= set(spec.init_args)
    assert {"nt_type", "abs", "n_steps", "sliding_window_shapes", "upsample"} <= set(spec.exec_args)
    assert spec.roles["layer"] is Role.LAYER
    assert spec.roles["feature_mask"] is Role.LIKE_INPUTS


def test_own_arguments_are_listed() -> None:
    specs = {spec.key: spec for spec in cfi_methods()}
    own = {
        key: {*spec.init_args, *spec.exec_args} - {*METHODS[key].init_args, *METHODS[key].exec_args}
        for key, spec in specs.items()
    }
    assert own.pop("grad_cam") == {"upsample"}
    assert {"method", "upsample", WORKAROUNDS} <= own.pop(NOISE_TUNNEL)
    assert own == {key: {WORKAROUNDS} if METHODS[key].rule in FAULTY_RULES else set() for key in own}


@pytest.mark.parametrize("key", METHODS)
def test_the_sets_of_defaults(key: str) -> None:
    """Both name the same settings, without a uniform meaning; those of the toolset are captum's own defaults."""
    spec = method_spec(METHODS[key])
    defaults, own = spec.defaults, {"method", "upsample", WORKAROUNDS}
    assert defaults.raw.keys() == defaults.toolset.keys() <= {*spec.init_args, *spec.exec_args} - spec.roles.keys()
    explainer = getattr(captum.attr, METHODS[key].captum_class)
    parameters = {**inspect.signature(explainer).parameters, **inspect.signature(explainer.attribute).parameters}
    for name in defaults.toolset.keys() - own:
        assert defaults.toolset[name] == parameters[name].default


def test_raw_and_captum_differ_in_absolute_values_and_workarounds() -> None:
    differing = {
        key: {name for name, value in spec.defaults.raw.items() if value != spec.defaults.toolset[name]}
        for key, spec in ((key, method_spec(method)) for key, method in METHODS.items())
    }
    assert differing.pop("saliency") == {"abs"}
    assert differing == {key: {WORKAROUNDS} if METHODS[key].rule in FAULTY_RULES else set() for key in differing}


def test_implementations_resolve() -> None:
    for spec in cfi_methods():
        assert callable(resolve(spec.implementation))


def test_toolset() -> None:
    (toolset,) = cfi_toolsets()
    assert (toolset.name, toolset.framework) == ("captum", "torch")


def test_listing_imports_no_framework() -> None:
    code = (
        "import sys, cfi_captum.plugin as p; list(p.cfi_methods()); list(p.cfi_toolsets());"
        "found = {'torch', 'captum', 'matplotlib.pyplot', 'sklearn', 'numpy'} & set(sys.modules);"
        "assert not found - {'numpy'}, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
