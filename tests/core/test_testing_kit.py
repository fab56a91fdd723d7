"""The kit for plugin authors: the fake plugin passes, every planted fault is told; and the hooks are all documented."""

import inspect
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import hookspec
from cfi_core.contract import Axes, BridgedLayer, BridgeRequest, Converted, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.specs import ANY, RUNNABLE, Completeness, Kind, MethodSpec, Need, ToolsetSpec, Total, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.conformance import (
    BridgeConformance,
    PluginConformance,
    ToolsetConformance,
    TranslatorConformance,
)
from cfi_core.testing.fake import Painting, Print

pytestmark = pytest.mark.usefixtures("registry")
ROOT = Path(__file__).parents[2]


def weights() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.normal(size=(4, 3)), generator.normal(size=(5, 4))


class TestFake(PluginConformance):
    plugin = fake


class TestFakeBridge(PluginConformance):
    plugin = fake.bridge_plugin
    beside = (fake,)


class TestPress(ToolsetConformance):
    toolset = "press"
    arguments: ClassVar = {
        "press_gradient": {"target": 0},
        "press_probability": {"target": 0},
        "press_noise": {},
        "press_layer": {"layer": "relu"},
        "press_map": {"layer": "mix", "target": [0, 1]},
        "press_neuron": {"layer": "mix", "neuron": (1, 2, 3)},
    }

    def make_model(self):
        return Print(*weights())

    def make_inputs(self):
        return np.random.default_rng(2).normal(size=(2, 5, 7, 3))


class TestPaintToPrint(TranslatorConformance):
    target = "print"
    translator = "paint2print"

    def make_model(self):
        return Painting(*weights())

    def make_inputs(self):
        return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


class TestBridgeToPrint(BridgeConformance):
    translator = "bridge-to-print"

    @pytest.fixture(autouse=True)
    def with_bridge(self, registry):
        with use_plugins(fake, fake.bridge_plugin):
            yield

    def make_model(self):
        return Painting(*weights())

    def make_inputs(self):
        return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


SLOW = {"test_two_processes_give_the_same_bytes", "test_two_hundred_calls_leave_nothing_in_memory"}


def failures(conformance: type) -> str:
    """What the tests of a conformance class say that fail; those that take long have tests of their own."""
    found = []
    for name in [name for name in dir(conformance) if name.startswith("test_") and name not in SLOW]:
        try:
            getattr(conformance(), name)()
        except Exception as error:  # noqa: BLE001 - an error fails a test as well as a failed assertion
            found.append(f"{name}: {error}")
    return "\n".join(found)


@pytest.mark.parametrize("conformance", [TestFake, TestFakeBridge, TestPress, TestPaintToPrint])
def test_the_kit_passes_what_is_right(conformance):
    assert failures(conformance) == ""


# faults of plugins


def method(key: str = "stamp", **fields) -> MethodSpec:
    fields = {"toolset": "stamps", "implementation": "planted:run", "citation": "Ink 1999", **fields}
    return MethodSpec(key=key, kind=Kind.ATTRIBUTION, needs=frozenset({Need.FORWARD}), **fields)


def translator(**fields) -> TranslatorSpec:
    fields = {"source": "paint", "target": "print", "implementation": "planted:run", "cost": 0.5, **fields}
    return TranslatorSpec(name="planted", preserves=RUNNABLE, **fields)


def planted(framework: str = "print", contract: int = 1, **offers: Callable[[], list]):
    """A plugin with a toolset `stamps` (or without) and what else is given."""
    plugin = SimpleNamespace(__name__="planted", CFI_CONTRACT=contract)
    hooks = {"cfi_toolsets": lambda: [ToolsetSpec(name="stamps", framework=framework)], **offers}
    for name, hook in hooks.items():
        setattr(plugin, name, hookimpl(hook))
    return plugin


@pytest.fixture
def run(monkeypatch):
    """Makes a function importable as `planted:run`."""

    def put(function):
        module = ModuleType("planted")
        module.run = function
        monkeypatch.setitem(sys.modules, "planted", module)

    put(lambda request: None)
    return put


def leave():
    sys.exit("no licence")


@pytest.mark.parametrize(
    ("plugin", "match"),
    [
        (lambda: planted(cfi_methods=lambda: [method(optional="target")]), r"optional='target' .* \('target',\)"),
        (lambda: planted(cfi_methods=lambda: [method(optional=("targets",))]), "'targets', which is none of 'inputs'"),
        (lambda: planted(cfi_methods=lambda: [method(implementation="planted.run")]), "form 'module:attribute'"),
        (lambda: planted(cfi_methods=lambda: [method(), method()]), "returned the method 'stamp' of 'stamps' twice"),
        (lambda: planted(cfi_methods=lambda: [method(toolset="stamp")]), "describes the toolset 'stamp'"),
        (lambda: planted(cfi_toolsets=lambda: [ToolsetSpec(name="press", framework="print")]), "'press' is claimed by"),
        (lambda: planted(framework="tensorfow"), "stamps names the framework 'tensorfow'; known are"),
        (lambda: planted(cfi_translators=lambda: [translator(target="prnit")]), "names the framework 'prnit'"),
        (lambda: planted(cfi_translators=lambda: [translator(target="paint")]), "from 'paint' to itself"),
        (lambda: planted(cfi_translators=lambda: [translator()]), "cannot be called with 2 arguments"),
        (lambda: planted(cfi_methods=lambda: [method(implementation="planted:rnu")]), "'planted:rnu' .* imported"),
        (
            lambda: planted(cfi_methods=lambda: [method(implementation="absent:run")]),
            "'absent:run' of MethodSpec 'stamp' cannot be imported: ModuleNotFoundError",
        ),
        (lambda: planted(cfi_methods=lambda: [method(implementation="sys:path")]), "'sys:path' .* cannot be called"),
        (lambda: planted(cfi_method=lambda: [method()]), "leaves the plugin out.*cfi_method"),
        (lambda: planted(cfi_methods=lambda: "stamp"), "returned 's', which is no MethodSpec"),
        (
            lambda: planted(cfi_methods=lambda: [ToolsetSpec(name="stamps", framework="print")]),
            "returned the ToolsetSpec 'stamps', which is no MethodSpec",
        ),
        (lambda: planted(cfi_methods=leave), "SystemExit: no licence"),
        (lambda: planted(contract=2), "built for contract 2"),
    ],
)
def test_the_kit_tells_faults_of_a_plugin(run, plugin, match):
    class Faulty(PluginConformance):
        beside = (fake,)

    Faulty.plugin = plugin()
    assert re.search(match, failures(Faulty)), failures(Faulty)


def test_the_kit_passes_a_good_plugin(run):
    class Good(PluginConformance):
        beside = (fake,)
        plugin = planted(cfi_methods=lambda: [method()])

    assert failures(Good) == ""


def test_the_kit_tells_a_plugin_that_imports_a_framework(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jax.py").write_text("")
    (tmp_path / "heavy_plugin.py").write_text("import jax\n")

    class Heavy(PluginConformance):
        plugin = ModuleType("heavy_plugin")

    assert "importing heavy_plugin imports jax" in failures(Heavy)


def test_the_kit_tells_a_plugin_that_nobody_announces():
    class Unannounced(PluginConformance):
        plugin = fake
        distribution = "cfi-fake"

    assert "no entry point of cfi-fake names the plugin" in failures(Unannounced)


# faults of a toolset


def gradient(request: MethodRequest) -> np.ndarray:
    return np.ones_like(request.inputs[0]) * request.model(request.inputs[0])[:, :1, None, None]


def spoilt_inputs(request):
    INPUTS[:] += 1
    return MethodResult((gradient(request),), Axes.INPUT)


def spoilt_model(request):
    MODEL.head[:] *= 2
    return MethodResult((gradient(request),), Axes.INPUT)


def unrepeatable(request):
    return MethodResult((np.random.default_rng().normal(size=request.inputs[0].shape),), Axes.INPUT)


def test_the_kit_tells_a_promise_that_is_not_kept(run):
    class Faulty(ToolsetConformance):
        toolset = "stamps"
        arguments: ClassVar = {"stamp": {"target": 0}}

        def make_model(self):
            return Print(*weights())

        def make_inputs(self):
            return np.random.default_rng(2).normal(size=(2, 5, 7, 3))

    promise = Completeness(total=Total.DIFFERENCE)
    spec = method(optional=("target", "baselines"), completeness=promise)
    for factor in (1, 2):

        def stamp(request, factor=factor):
            sums = request.model(request.inputs[0])[:, 0] - request.model(0 * request.inputs[0])[:, 0]
            return MethodResult((np.ones((2, 5, 7, 3)) * sums[:, None, None, None] * factor / 105,), Axes.INPUT)

        run(stamp)
        with use_plugins(fake, planted(cfi_methods=lambda: [spec])), warnings.catch_warnings():
            warnings.simplefilter("ignore", cfi.CompletenessWarning)
            said = failures(Faulty)
        assert ("stamp misses f(inputs) - f(baselines)" in said) if factor == 2 else said == ""


INPUTS = np.zeros((2, 5, 7, 3))
MODEL = Print(*weights())


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda r: MethodResult((gradient(r).transpose(0, 3, 1, 2),), Axes.INPUT), "its axes are in another order"),
        (lambda r: MethodResult((gradient(r)[:1],), Axes.INPUT), "it has 1 for 2 samples"),
        (lambda r: MethodResult((gradient(r)[0],), Axes.INPUT), r"shape \(5, 7, 3\), where 'input' has shape"),
        (lambda r: MethodResult((gradient(r).sum(3, keepdims=True),), Axes.INPUT), r"of shape \(2, 5, 7, 1\)"),
        (lambda r: MethodResult((gradient(r),), Axes.INPUT_MAP), r"where 'input map' has shape \(2, 5, 7\)"),
        (lambda r: MethodResult((gradient(r),), Axes.LAYER), "the axes of a layer"),
        (lambda r: MethodResult(gradient(r), Axes.INPUT), "is no tuple; write"),
        (lambda r: MethodResult((gradient(r),), "inputs"), "no member of Axes, such as Axes.INPUT"),
        (lambda r: MethodResult((gradient(r),) * 2, Axes.INPUT), "2 values for 1 input"),
        (lambda r: MethodResult((), Axes.INPUT), "0 values for 1 input"),
        (lambda r: MethodResult((gradient(r) * 1j,), Axes.INPUT), "no tensor of real numbers"),
        (lambda r: MethodResult((gradient(r) * np.nan,), Axes.INPUT), "NaN"),
        (lambda r: gradient(r), "a ndarray where a MethodResult is expected"),
        (lambda r: None, "a NoneType where a MethodResult is expected"),
        (lambda r: sys.exit("licence"), r"failed in dist-of-planted 1\.0 \(SystemExit: licence"),
        (lambda: None, "TypeError"),
        (spoilt_inputs, "stamp changed the inputs"),
        (spoilt_model, "stamp changed the model"),
        (unrepeatable, "stamp gives other values with one seed"),
        (lambda r: MethodResult((gradient(r)[::-1],), Axes.INPUT), "as if samples stood in another order"),
        (
            lambda r: MethodResult((gradient(r) + gradient(r).mean(0),), Axes.INPUT),
            "gives the first sample other values",
        ),
    ],
)
def test_the_kit_tells_faults_of_a_toolset(run, function, match):
    run(function)

    class Faulty(ToolsetConformance):
        toolset = "stamps"
        arguments: ClassVar = {"stamp": {}}

        def make_model(self):
            return MODEL

        def make_inputs(self):
            return INPUTS

    INPUTS[:] = np.random.default_rng(2).normal(size=INPUTS.shape)
    MODEL.mix, MODEL.head = weights()
    with use_plugins(fake, planted(cfi_methods=lambda: [method()])):
        assert re.search(match, failures(Faulty)), failures(Faulty)


def test_the_kit_tells_a_toolset_that_is_not_all_tested(run):
    class Forgetful(TestPress):
        arguments: ClassVar = {"press_gradient": {"target": 0}}

    assert "without arguments: ['press_layer', 'press_map'" in failures(Forgetful)
    assert "without arguments: press_layer" in failures(Forgetful) and "KeyError" not in failures(Forgetful)

    class Forward(TestPress):
        arguments: ClassVar = {**TestPress.arguments, "press_forward": {}}

    assert failures(Forward).endswith("arguments for ['press_forward'], which 'press' does not offer")

    class Square(TestPress):
        def make_inputs(self):
            return np.ones((2, 5, 5, 3))

    assert "axes of one size; make them all different" in failures(Square)

    class Single(TestPress):
        def make_inputs(self):
            return np.ones((1, 5, 7, 3))

    assert "hold one sample; make two or more" in failures(Single)

    class Absent(TestPress):
        toolset = "stamps"

    told = [line.partition(": ")[2] for line in failures(Absent).splitlines()]
    assert len(told) == 8 and set(told) == {"no plugin offers a method of 'stamps'"}

    class Uncited(TestPress):
        toolset = "stamps"

    with use_plugins(fake, planted(cfi_methods=lambda: [method(citation="")])):
        assert "stamp cites nothing" in failures(Uncited)


# faults of a translator


def converted(model, **changes):
    fields = {"input_axes": ((0, 2, 3, 1),), "output_axes": (None,), **changes}
    return Converted(Print(model.mix, model.head), **fields)


HELD: list = []


def another(model):
    return Converted(Print(model.mix, model.head * (1 + 1e-9 * np.random.default_rng().random())), ((0, 2, 3, 1),))


def remembered(model):
    HELD.append([[], [], []])
    return converted(model)


def announced(model):
    os.environ["CFI_PLANTED"] = str(time.monotonic())
    return converted(model)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda model, inputs: converted(model, input_axes=((0, 2, 1),)), "of input 0, which has 4 axes"),
        (lambda model, inputs: converted(model, input_axes=((0, 2, 2, 1),)), "is no permutation of axes"),
        (lambda model, inputs: converted(model, input_axes=(0, 2, 3, 1)), "holds 0, which is no tuple"),
        (lambda model, inputs: converted(model, input_axes=((1, 2, 3, 0),)), "move the samples away"),
        (lambda model, inputs: converted(model, input_axes=((0, 2, 3, 1), None)), "2 inputs, where there are 1"),
        (lambda model, inputs: converted(model, output_axes=((1, 0),)), "planted (computes|does not run)"),
        (lambda model, inputs: converted(model, input_axes=()), "does not run on your inputs"),
        (lambda model, inputs: converted(model, layers={"mix": BridgedLayer("mix")}), "only a bridge is asked for"),
        (lambda model, inputs: Print(model.mix, model.head), "a Print where a Converted is expected"),
        (lambda model, inputs: Converted(None), "no model"),
        (lambda model, inputs: sys.exit("licence"), r"planted of dist-of-planted 1\.0 failed .*SystemExit: licence"),
        (lambda model: None, "TypeError"),
        (lambda model, inputs: another(model), "planted makes another model each time"),
        (lambda model, inputs: remembered(model), r"planted: 10 rounds leave [2-9]\d objects behind"),
        (lambda model, inputs: announced(model), "planted changed the process: the environment"),
    ],
)
def test_the_kit_tells_faults_of_a_conversion(run, monkeypatch, function, match):
    monkeypatch.setenv("CFI_PLANTED", "")
    run(function)

    class Faulty(TestPaintToPrint):
        translator = "planted"

    with use_plugins(fake, planted(cfi_translators=lambda: [translator()])):
        assert re.search(match, failures(Faulty)), failures(Faulty)


def test_the_kit_notices_an_unfaithful_translator():
    class Distorting(TestPaintToPrint):
        def make_model(self):
            return Painting(*weights(), distorts=True)

    assert "computes something else" in failures(Distorting)


def bridged(request: BridgeRequest, **changes) -> Converted:
    return replace(fake.as_print(request), **changes)


class Steep(fake.BridgedPrint):
    def gradients(self, images, cotangent):
        return {name: 1.01 * gradient for name, gradient in super().gradients(images, cotangent).items()}


def with_layers(request: BridgeRequest, change: Callable[[dict], dict]) -> Converted:
    good = fake.as_print(request)
    return replace(good, layers=change(dict(good.layers)))


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda request: with_layers(request, lambda layers: {}), "no layer for 'mix', which was asked for"),
        (lambda request: with_layers(request, lambda layers: layers | {"x": BridgedLayer("x")}), "'x', which nobody"),
        (
            lambda request: with_layers(request, lambda layers: {name: BridgedLayer(name, (0, 1)) for name in layers}),
            r"axes \(0, 1\) of layer 'mix', which has 4 axes",
        ),
        (
            lambda request: with_layers(request, lambda layers: {name: BridgedLayer(name) for name in layers}),
            "layer 'mix' is another one",
        ),
        (
            lambda request: bridged(request, input_axes=((0, 3, 2, 1),)),
            "layer 'mix' is another one",
        ),
        (lambda request: bridged(request, output_axes=((1, 0),)), "output 0 is another one"),
        (lambda request: bridged(request, model=Steep(request)), "the gradient for 1 samples is another one"),
        (lambda request: bridged(request, output_axes=(None, None)), "2 outputs, where there are 1"),
        (lambda request: None, "a NoneType where a Converted is expected"),
        (lambda request: sys.exit("licence"), "SystemExit: licence"),
    ],
)
def test_the_kit_tells_faults_of_a_bridge(run, function, match):
    run(function)

    class Faulty(TestBridgeToPrint):
        translator = "planted"

    plugin = planted(cfi_translators=lambda: [translator(source=ANY, kind="bridge")])
    with use_plugins(fake, plugin):
        assert re.search(match, failures(Faulty)), failures(Faulty)


def test_the_kit_tells_a_bridge_that_nobody_offers():
    class Misspelt(TestBridgeToPrint):
        translator = "bridge-to-prnit"

    told = [line.partition(": ")[2] for line in failures(Misspelt).splitlines()]
    assert len(told) == 3 and all(
        line.startswith("no plugin offers the bridge 'bridge-to-prnit'; there") for line in told
    )


def test_a_fault_at_the_bridge_stops_a_call_before_anything_is_labelled(run):
    run(lambda request: with_layers(request, lambda layers: {}))
    plugin = planted(cfi_translators=lambda: [translator(source=ANY, kind="bridge")])
    with use_plugins(fake, plugin), pytest.raises(cfi.TranslationError, match=r"planted \(dist-of-planted 1\.0\)"):
        cfi.attribute(
            Painting(*weights()),
            "press_layer",
            inputs=np.random.default_rng(2).normal(size=(2, 3, 5, 7)),
            layer="mix",
            translator="planted",
        )


def hooks() -> list[str]:
    return sorted(name for name in vars(hookspec) if name.startswith("cfi_"))


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_has_an_example_and_a_place_in_the_guide(hook):
    documentation = getattr(hookspec, hook).__doc__
    assert "@hookimpl" in documentation and f"def {hook}" in documentation
    rows = [line.split("|") for line in (ROOT / "docs" / "writing-a-plugin.md").read_text().splitlines()]
    (arguments,) = [row[2] for row in rows if len(row) == 6 and row[1].strip() == f"`{hook}`"]
    assert re.findall(r"`(\w+)`", arguments) == list(inspect.signature(getattr(hookspec, hook)).parameters)
