"""Specs refuse what they cannot hold, with a message that says what was meant; and nobody can change them later."""

from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest

from cfi_core.contract import Axes, BridgedLayer, Converted, MethodResult
from cfi_core.specs import (
    ANY,
    CommandSpec,
    Defaults,
    FrameworkSpec,
    Head,
    Kind,
    MethodSpec,
    MetricSpec,
    Need,
    PlotterSpec,
    Role,
    ToolsetSpec,
    TranslatorSpec,
    WriterSpec,
)

FRAMEWORK = FrameworkSpec(
    name="paper", model_types=(("paper.models", "Sheet"),), tensor_types=(), adapter="folds:Adapter", module="paper"
)
TOOLSET = ToolsetSpec(name="stamps", framework="paper", requirements=("numpy>=1",))
METHOD = MethodSpec(
    key="stamp",
    toolset="stamps",
    kind=Kind.ATTRIBUTION,
    needs=frozenset({Need.FORWARD}),
    implementation="stamps:run",
    init_args=("ink", "method"),
    exec_args=("images",),
    roles={"images": Role.INPUTS},
)
TRANSLATOR = TranslatorSpec(
    name="unfold", source="paper", target="print", preserves=frozenset(Need), cost=1, implementation="folds:unfold"
)
PLOTTER = PlotterSpec(name="bars", implementation="bars:draw")
WRITER = WriterSpec(name="nifti", suffixes=(".nii",), implementation="files:write")
METRIC = MetricSpec(
    name="Evenness",
    library="scales",
    category="Complexity",
    better="lower",
    needs=frozenset({Need.FORWARD}),
    implementation="scales:weigh",
)
COMMAND = CommandSpec(name="weigh", help="Weighs attributions.", implementation="scales.command:weigh")
CONVERTED = Converted(object())


@pytest.mark.parametrize(
    ("spec", "changes", "match"),
    [
        (METHOD, {"optional": "target"}, r"MethodSpec 'stamp': optional='target' is no tuple; write \('target',\)"),
        (METHOD, {"required": ("input",)}, "holds 'input', which is none of 'inputs', 'target', 'layer', 'neuron'"),
        (METHOD, {"key": "Grad-CAM"}, "is not a key: lower-case"),
        (METHOD, {"key": 3}, "key=3 is not a key"),
        (METHOD, {"toolset": ""}, "toolset='' is not a name"),
        (METHOD, {"toolset": None}, "toolset=None is not a name"),
        (METHOD, {"kind": "attribution"}, "is no member of Kind, such as Kind.ATTRIBUTION"),
        (METHOD, {"needs": {"forward"}}, "holds 'forward', which is no member of Need, such as Need.FORWARD"),
        (METHOD, {"needs": Need.FORWARD}, r"is no set, such as frozenset\({Need.FORWARD}\)"),
        (METHOD, {"needs": (Need.FORWARD,)}, "is no set"),
        (METHOD, {"implementation": "stamps.run"}, "is not of the form 'module:attribute'"),
        (METHOD, {"implementation": "stamps:"}, "is not of the form 'module:attribute'"),
        (METHOD, {"implementation": len}, "is not of the form 'module:attribute'"),
        (METHOD, {"head": "logit"}, "is no member of Head"),
        (METHOD, {"exec_args": ("two words",)}, "holds 'two words', which is not the name of an argument"),
        (METHOD, {"roles": {"image": Role.INPUTS}}, "roles speaks of 'image', which init_args and exec_args"),
        (METHOD, {"roles": {"images": "inputs"}}, "is no member of Role"),
        (METHOD, {"roles": ("images",)}, "is no mapping"),
        (METHOD, {"native_only": ("side",)}, "native_only speaks of 'side'"),
        (METHOD, {"argument_needs": {"side": Need.MODULES}}, "argument_needs speaks of 'side'"),
        (METHOD, {"defaults": {"raw": {}}}, "is no Defaults"),
        (METHOD, {"defaults": Defaults(toolset={"abs": True})}, "defaults speaks of 'abs', which init_args"),
        (METHOD, {"wraps": "images"}, r"wraps='images' is none of init_args \('ink', 'method'\)"),
        (METHOD, {"alters_model": "no"}, "is neither True nor False"),
        (METHOD, {"citation": None}, "is not a string"),
        (TOOLSET, {"requirements": "numpy>=1"}, r"write \('numpy>=1',\)"),
        (TOOLSET, {"requirements": ("numpy >> 1",)}, "is no PEP 508 requirement, such as 'numpy>=1.26'"),
        (TOOLSET, {"name": " stamps"}, "begins or ends with a space"),
        (TOOLSET, {"framework": ANY}, "only the source of a bridge"),
        (TRANSLATOR, {"cost": -1}, "is no number of 0 or more"),
        (TRANSLATOR, {"cost": float("nan")}, "is no number of 0 or more"),
        (TRANSLATOR, {"cost": True}, "is no number of 0 or more"),
        (TRANSLATOR, {"kind": "converter"}, "is none of 'conversion', 'bridge'"),
        (TRANSLATOR, {"source": ANY}, "only the source of a bridge"),
        (TRANSLATOR, {"target": ANY, "kind": "bridge"}, "only the source of a bridge"),
        (TRANSLATOR, {"target": "paper"}, "leads from 'paper' to itself"),
        (TRANSLATOR, {"name": "bridge"}, "translator= calls a kind"),
        (TRANSLATOR, {"preserves": None}, "is no set"),
        (FRAMEWORK, {"model_types": ("paper.models", "Sheet")}, "holds 'paper.models', which is no pair"),
        (FRAMEWORK, {"model_types": (("paper:models", "Sheet"),)}, "is not the name of a module"),
        (FRAMEWORK, {"aliases": "sheet"}, r"write \('sheet',\)"),
        (FRAMEWORK, {"before_use": "folds.flatten"}, "is not of the form 'module:attribute'"),
        (FRAMEWORK, {"module": "paper-models"}, "is not the name of a module"),
        (FRAMEWORK, {"file_suffixes": ("onnx",)}, "is not a suffix: a dot"),
        (FRAMEWORK, {"offers": {"forward"}}, "is no member of Need"),
        (FRAMEWORK, {"name": ANY}, "only the source of a bridge"),
        (PLOTTER, {"accepts": "feature"}, r"write \('feature',\)"),
        (WRITER, {"suffixes": (".NII",)}, "is not a suffix"),
        (WRITER, {"suffixes": (".nii.gz",)}, "without another dot"),
        (METRIC, {"better": "smaller"}, "is none of 'higher', 'lower'"),
        (METRIC, {"needs": {"forward"}}, "is no member of Need"),
        (METRIC, {"explains": "yes"}, "is neither True nor False"),
        (METRIC, {"library": ""}, "MetricSpec 'Evenness': library='' is not a name"),
        (COMMAND, {"name": "weigh_all"}, "is not the name of a command: lower-case letters, digits and hyphens"),
        (COMMAND, {"help": ""}, "CommandSpec 'weigh': help='' is not a name"),
        (COMMAND, {"implementation": "scales.command"}, "is not of the form 'module:attribute'"),
        (CONVERTED, {"input_axes": ((0, 2, 2),)}, "is no permutation of axes: it must hold each of 0 to 2 once"),
        (CONVERTED, {"input_axes": (0, 2, 1)}, "holds 0, which is no tuple"),
        (CONVERTED, {"output_axes": ((1, 2, 3),)}, "is no permutation of axes"),
        (CONVERTED, {"layers": {"conv": "conv_1"}}, "is no BridgedLayer"),
        (BridgedLayer("conv"), {"axes": (0, 1.0)}, "is no permutation of axes"),
        (MethodResult((), Axes.INPUT), {"axes": "outputs"}, "is no member of Axes, such as Axes.INPUT"),
        (MethodResult((), Axes.INPUT), {"values": np.zeros((2, 3))}, r"of shape \(2, 3\)> is no tuple; write"),
        (MethodResult((), Axes.LAYER), {"layer": ""}, "is not a name"),
        (MethodResult((), Axes.INPUT), {"extras": [("delta", 1)]}, "is no mapping"),
    ],
)
def test_a_field_that_does_not_hold_what_it_should_is_refused(spec, changes, match):
    with pytest.raises(ValueError, match=match):
        replace(spec, **changes)


@pytest.mark.parametrize(
    "spec", [FRAMEWORK, TOOLSET, METHOD, TRANSLATOR, PLOTTER, WRITER, METRIC, CONVERTED, Defaults()]
)
def test_every_field_has_a_rule(spec):
    """None takes whatever comes, but the model that a translator makes."""
    for entry in fields(spec):
        if entry.name != "model":
            with pytest.raises(ValueError, match=f"{entry.name}="):
                replace(spec, **{entry.name: 1j})


def test_nobody_can_change_a_spec_through_what_it_was_made_of():
    roles, names, needs = {"images": Role.INPUTS}, ["images"], {Need.FORWARD}
    spec = replace(METHOD, roles=roles, exec_args=names, needs=needs)
    roles["images"] = Role.TARGET
    names.append("fill")
    needs.add(Need.MODULES)
    assert spec == METHOD and isinstance(spec.exec_args, tuple) and isinstance(spec.needs, frozenset)
    assert isinstance(spec.roles, MappingProxyType)
    extras = {"delta": 0.5}
    result = MethodResult([np.zeros(2)], Axes.INPUT, extras)
    extras["delta"] = 1.0
    assert result.extras == {"delta": 0.5} and isinstance(result.values, tuple)


def test_a_metric_prints_what_it_needs():
    assert "lower is better, needs forward" in repr(METRIC) and "explains again" not in repr(METRIC)
    again = repr(replace(METRIC, needs=frozenset(), explains=True))
    assert again.endswith("lower is better, needs the values alone, explains again")


def test_what_may_be_said_in_short_is_allowed():
    assert replace(METHOD, wraps="method").wraps == "method"
    assert replace(METHOD, head=Head.LOGIT, citation="").head is Head.LOGIT
    assert replace(TRANSLATOR, source=ANY, kind="bridge", cost=0).cost == 0
    assert replace(CONVERTED, input_axes=(None, (0, 2, 3, 1))).input_axes[1] == (0, 2, 3, 1)
