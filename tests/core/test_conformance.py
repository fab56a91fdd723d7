"""The kit's tests of answers, endurance, frameworks, plotters and writers: planted faults are told.

Faults of plugins, toolsets, conversions and bridges are told in `test_testing_kit`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.framework import FrameworkAdapter, Layer, Runner
from cfi_core.hookspec import hookimpl
from cfi_core.specs import (
    Completeness,
    FrameworkSpec,
    Kind,
    MethodSpec,
    Need,
    PlotterSpec,
    ToolsetSpec,
    Total,
    WriterSpec,
)
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.conformance import (
    FrameworkConformance,
    InvarianceConformance,
    KnownAnswerConformance,
    Law,
    PlotterConformance,
    ToolsetConformance,
    WriterConformance,
)
from cfi_core.testing.conformance.answers import LAWS
from cfi_core.testing.conformance.processes import FINDINGS


def failures(conformance: type, *names: str) -> str:
    """What the tests of a conformance class (those named, or all) say that fail."""
    found = []
    for name in names or [name for name in dir(conformance) if name.startswith("test_")]:
        try:
            getattr(conformance(), name)()
        except Exception as error:  # noqa: BLE001 - an error fails a test as well as a failed assertion
            found.append(f"{name}: {type(error).__name__} {error}")
    return "\n".join(found)


# a framework of affine functions with a rectifier, and a toolset for it, whose methods are written down here


class Affine:
    """`head @ rectify(x @ weights + bias)`; without a head, the affine function alone."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, head: np.ndarray | None = None) -> None:
        self.weights, self.bias, self.head = weights.astype(float), bias.astype(float), head
        self.hooks: list[Any] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        scores = x.reshape(len(x), -1) @ self.weights.T + self.bias
        return scores if self.head is None else np.maximum(scores, 0) @ self.head.T


class AffineRunner(Runner):
    def __init__(self, adapter: AffineAdapter, model: Affine) -> None:
        self.adapter, self.model = adapter, model

    def run(self, stage: int, values: Any) -> tuple[Any, ...]:
        return (self.model(values[0]),)

    def linearize(self, stage: int, values: Any) -> Any:
        def pull(cotangents: Any, wanted: Any) -> Any:
            return tuple(self.adapter.vjp(self.model, values, cotangents)[1])

        return self.run(stage, values), pull


class AffineAdapter(FrameworkAdapter):
    name = "affine"

    def channel_axis(self, model: Any, shape: Any, *, layer: str | None = None) -> int | None:
        return 1 if len(shape) > 2 else None

    def outputs(self, model: Affine, inputs: Any) -> Any:
        return model(*inputs)

    def vjp(self, model: Affine, inputs: Any, cotangents: Any) -> Any:
        (x,), (cotangent,) = inputs, cotangents
        scores = x.reshape(len(x), -1) @ model.weights.T + model.bias
        at_scores = cotangent if model.head is None else (cotangent @ model.head) * (scores > 0)
        return [model(x)], [(at_scores @ model.weights).reshape(x.shape)]

    def runner(self, model: Affine, inputs: Any, layers: Any = ()) -> AffineRunner:
        return AffineRunner(self, model)

    def fingerprint(self, model: Affine) -> str:
        return repr(
            [model.weights.tobytes(), model.bias.tobytes(), None if model.head is None else model.head.tobytes()]
        )

    def shared_parts(self, model: Any) -> tuple[Any, ...]:
        return ()  # so that calls on one model run side by side


def target_gradient(request: MethodRequest, x: np.ndarray) -> np.ndarray:
    """By differences, so that any target can be had; exact where the score has no third derivative."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros(x.shape[1:])
        step[place] = 2.0**-10
        gradient[(slice(None), *place)] = (score(request, x + step) - score(request, x - step)) / 2**-9
    return gradient


def score(request: MethodRequest, x: np.ndarray) -> np.ndarray:
    outputs, target = request.model(x), request.target
    if target.function is not None:
        return target.function(outputs)
    return np.array([row[index] for row, index in zip(outputs, target.indices(len(x)), strict=True)])


def input_result(values: np.ndarray) -> MethodResult:
    return MethodResult((values,), Axes.INPUT)


def saliency(request: MethodRequest) -> MethodResult:
    return input_result(target_gradient(request, request.inputs[0]))


def integrated(request: MethodRequest) -> MethodResult:
    (x,), (baseline,) = request.inputs, request.baselines
    return input_result((x - baseline) * target_gradient(request, (x + baseline) / 2))


def ablation(request: MethodRequest) -> MethodResult:
    (x,), (baseline,) = request.inputs, request.baselines
    values = np.zeros_like(x)
    for place in np.ndindex(x.shape[1:]):
        without = x.copy()
        without[(slice(None), *place)] = np.broadcast_to(baseline, x.shape)[(slice(None), *place)]
        values[(slice(None), *place)] = score(request, x) - score(request, without)
    return input_result(values)


def guided(request: MethodRequest) -> MethodResult:
    (x,), model = request.inputs, request.model
    if model.head is None:
        return saliency(request)
    passing = np.maximum(model.head[[index for (index,) in request.target.indices(len(x))]], 0)
    passing = passing * (x @ model.weights.T > 0)
    return input_result(passing @ model.weights)


METHODS: dict[str, Callable[[MethodRequest], MethodResult]] = {
    "saliency": saliency,
    "integrated_gradients": integrated,
    "feature_ablation": ablation,
    "guided_backprop": guided,
}


def run(request: MethodRequest) -> MethodResult:
    return METHODS[request.method.key](request)


def affine_plugin(*others: MethodSpec) -> Any:
    here = __name__
    sys.modules.setdefault(here, ModuleType(here)).__dict__.update(globals())
    framework = FrameworkSpec(
        name="affine", model_types=((here, "Affine"),), tensor_types=(), adapter=f"{here}:AffineAdapter", module="numpy"
    )
    framework = replace(framework, offers=frozenset({Need.FORWARD, Need.INPUT_GRADIENT}))
    specs = [
        MethodSpec(
            key=key,
            toolset="slopes",
            kind=Kind.ATTRIBUTION,
            needs=frozenset({Need.MODULES if key == "guided_backprop" else Need.FORWARD}),
            implementation=f"{here}:run",
            citation="this file",
            optional=("target", "baselines") if key in ("integrated_gradients", "feature_ablation") else ("target",),
        )
        for key in METHODS
    ]
    plugin = SimpleNamespace(__name__="affine")
    plugin.cfi_frameworks = hookimpl(lambda: [framework])
    plugin.cfi_toolsets = hookimpl(lambda: [ToolsetSpec(name="slopes", framework="affine", patches=())])
    plugin.cfi_methods = hookimpl(lambda: [*specs, *others])
    return plugin


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    with use_plugins(affine_plugin(), fake):
        yield


class TestSlopes(KnownAnswerConformance):
    toolset = "slopes"

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        return Affine(weights, bias)

    def make_rectified_model(self, hidden: np.ndarray, head: np.ndarray) -> Any:
        return Affine(hidden, np.zeros(len(hidden)), head)


class TestAffine(FrameworkConformance):
    framework = "affine"

    def make_model(self) -> Any:
        return Affine(np.random.default_rng(0).normal(size=(4, 60)), np.ones(4))

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 4, 5))

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        return Affine(weights, bias)


class TestFunctions(TestAffine):
    """Functions of arrays, which core itself knows."""

    framework = "numpy"

    def make_model(self) -> Any:
        return super().make_model().__call__

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        return lambda x: Affine(weights, bias)(x)


@pytest.mark.parametrize(
    ("key", "values", "match"),
    [
        ("saliency", lambda request: np.abs(target_gradient(request, request.inputs[0])), "else than the gradient"),
        (
            "integrated_gradients",
            lambda request: integrated(replace(request, baselines=(np.zeros((1, 1)),))).values[0],
            "else than the Shapley value",
        ),
        # Right on a linear model, wrong where inputs interact.
        (
            "integrated_gradients",
            lambda r: (r.inputs[0] - r.baselines[0]) * target_gradient(r, r.inputs[0]),
            "test_products.*else than the Shapley value",
        ),
        ("feature_ablation", lambda r: integrated(r).values[0], "test_products.*else than what the score loses"),
        ("guided_backprop", lambda r: target_gradient(r, r.inputs[0]), "test_rectifiers.*else than the gradient, of"),
        ("saliency", lambda r: saliency(r).values[0] + 1e-12, "without influence 9.99.*e-13, where 0"),
        (
            "saliency",
            lambda r: saliency(r).values[0] * (1 + 1e-4 * np.arange(5)),
            "saliency gives something else than the gradient",
        ),
    ],
)
def test_wrong_answers_are_told(monkeypatch, key, values, match):
    assert failures(TestSlopes) == ""
    monkeypatch.setitem(METHODS, key, lambda request: input_result(values(request)))
    assert re.search(match, failures(TestSlopes), re.S), failures(TestSlopes)


def test_a_method_without_a_law_is_told():
    spec = MethodSpec(
        key="own",
        toolset="slopes",
        kind=Kind.ATTRIBUTION,
        needs=frozenset({Need.FORWARD}),
        implementation=f"{__name__}:saliency",
        citation="this file",
        optional=("target",),
    )

    class Named(TestSlopes):
        laws: ClassVar = {"own": Law.GRADIENT}

    class Labelled(TestSlopes):
        laws: ClassVar = {"own": Law.NONE}

    class Misspelt(TestSlopes):
        laws: ClassVar = {"own": Law.NONE, "owm": Law.NONE}

    with use_plugins(affine_plugin(spec), fake):
        assert "nobody says what ['own'] give" in failures(TestSlopes)
        assert failures(Named) == failures(Labelled) == ""
        assert "laws for ['owm'], which explain no inputs" in failures(Misspelt)
    # A spec that promises a sum says enough.
    promise = replace(spec, completeness=Completeness(total=Total.DIFFERENCE))
    assert TestSlopes().law(promise) is Law.SHAPLEY and "own" not in LAWS


def test_rules_on_rectifiers_need_a_model_that_has_some():
    class Forgetful(TestSlopes):
        make_rectified_model = KnownAnswerConformance.make_rectified_model

    assert "needs make_rectified_model" in failures(Forgetful)


# faults of a framework


@pytest.mark.parametrize(
    ("name", "fault", "match"),
    [
        ("outputs", lambda self, model, inputs: model(*inputs) * 1.0001, "test_outputs_and_gradients"),
        ("outputs", lambda self, model, inputs: model(inputs[0]) - model(inputs[0])[-1:], "test_any_number_of_samples"),
        ("fingerprint", lambda self, model: "the same", "test_other_weights"),
        ("tensor", lambda self, value, model: np.array(value) + 1, "test_tensors_come_back"),
        ("dims", lambda self, model, shape, layer=None: ("sample", "x"), "test_axes_have_names"),
        ("twin", lambda self, model, share_weights=True: Affine(model.weights * 2, model.bias), "test_a_twin"),
        ("layers", lambda self, model, inputs=None: (Layer("lost", "Lost"),), "layer 'lost', given as .*, is None"),
        (
            "outputs",
            lambda self, model, inputs: _hooked(model, inputs),
            "running it left marks on the model: model.hooks",
        ),
        ("outputs", lambda self, model, inputs: _seeded(model, inputs), "changed the process: numpy's generator"),
        ("outputs", lambda self, model, inputs: _held(model, inputs), r"leave 1\d\d objects behind"),
        ("outputs", lambda self, model, inputs: _late(model, inputs), "test_several_threads"),
        ("seed", lambda self, seed: None, "test_generators"),
    ],
)
def test_faults_of_a_framework_are_told(monkeypatch, name, fault, match):
    assert failures(TestAffine) == ""
    if name in ("layers", "seed"):
        monkeypatch.setattr(AffineAdapter, "layer_object", lambda self, model, name: name)
        monkeypatch.setattr(AffineAdapter, "random_state", lambda self: "always")
    monkeypatch.setattr(AffineAdapter, name, fault)
    assert re.search(match, failures(TestAffine)), failures(TestAffine)


HELD: list[Any] = []
RUNNING: list[int] = []


def _hooked(model: Affine, inputs: Any) -> Any:
    model.hooks.append(print)
    return model(*inputs)


def _seeded(model: Affine, inputs: Any) -> Any:
    np.random.seed()
    return model(*inputs)


def _held(model: Affine, inputs: Any) -> Any:
    HELD.append([inputs])
    return model(*inputs)


def _late(model: Affine, inputs: Any) -> Any:
    RUNNING.append(1)
    time.sleep(0.05)
    beside = len(RUNNING) - 1
    RUNNING.pop()
    return model(*inputs) + beside


def test_a_framework_without_gradients_says_so(monkeypatch):
    monkeypatch.setattr(AffineAdapter, "vjp", lambda self, model, inputs, cotangents: ([model(*inputs)], [None]))
    plugin = affine_plugin()
    (spec,) = plugin.cfi_frameworks()
    plugin.cfi_frameworks = hookimpl(lambda: [replace(spec, offers=frozenset({Need.FORWARD}))])
    with use_plugins(plugin):
        assert "raises no NoGradientError" in failures(TestAffine)


# endurance of a toolset


class TestSlopesEndure(ToolsetConformance):
    toolset = "slopes"
    arguments: ClassVar = {
        "saliency": {"target": 0},
        "integrated_gradients": {"target": 0, "baselines": 0.0},
        "feature_ablation": {"target": 0, "baselines": 0.0},
        "guided_backprop": {"target": 0},
    }

    def make_model(self) -> Any:
        return Affine(np.random.default_rng(0).normal(size=(4, 5)), np.ones(4))

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(3, 5))


def planting(fault: Callable[[MethodRequest], np.ndarray]) -> Callable[[MethodRequest], MethodResult]:
    return lambda request: input_result(fault(request))


def test_calls_that_disturb_each_other_are_told(monkeypatch):
    def late(request: MethodRequest) -> np.ndarray:
        RUNNING.append(1)
        time.sleep(0.05)
        beside = len(RUNNING) - 1
        RUNNING.pop()
        return saliency(request).values[0] + beside

    monkeypatch.setitem(METHODS, "saliency", planting(late))
    said = failures(TestSlopesEndure, "test_several_threads_get_the_values_of_one")
    assert said.endswith("several threads call at the same time: saliency")


def test_what_stays_in_memory_is_told(monkeypatch):
    def hold(request: MethodRequest) -> np.ndarray:
        HELD.append([request.inputs])
        return saliency(request).values[0]

    monkeypatch.setitem(METHODS, "saliency", planting(hold))
    said = failures(TestSlopesEndure, "test_two_hundred_calls_leave_nothing_in_memory")
    assert re.search(r"the methods of slopes: 25 rounds leave \d+ objects behind", said), said


def test_marks_and_changed_generators_are_told(monkeypatch):
    def mark(request: MethodRequest) -> np.ndarray:
        request.model.hooks.append(print)
        return saliency(request).values[0]

    def draw(request: MethodRequest) -> np.ndarray:
        os.environ["CFI_PLANTED"] = str(time.monotonic())
        return saliency(request).values[0]

    name = "test_every_method_runs_and_leaves_the_model_as_it_was"
    monkeypatch.setitem(METHODS, "saliency", planting(mark))
    assert "saliency left marks on the model: model.hooks" in failures(TestSlopesEndure, name)
    monkeypatch.setitem(METHODS, "saliency", planting(draw))
    monkeypatch.setenv("CFI_PLANTED", "")
    assert "saliency changed the process: the environment" in failures(TestSlopesEndure, name)


def test_changed_arguments_are_told(monkeypatch):
    class Written(TestSlopesEndure):
        arguments: ClassVar = {**TestSlopesEndure.arguments}

    given = np.zeros((1, 5))
    Written.arguments["integrated_gradients"] = {"target": 0, "baselines": given}

    def write(request: MethodRequest) -> np.ndarray:
        given[:] += 1
        return integrated(request).values[0]

    monkeypatch.setitem(METHODS, "integrated_gradients", planting(write))
    said = failures(Written, "test_every_method_runs_and_leaves_the_model_as_it_was")
    assert "integrated_gradients changed its arguments" in said


PROCESSES = """
from cfi_core.testing.conformance.processes import compare_processes

class TestSet:
    def test_it(self):
        found = {"order": str({"a", "b", "c", "d", "e", "f"}), "kept": "1"}
        apart = compare_processes(type(self), "test_it", lambda: found)
        assert not apart, str(apart)

    def test_same(self):
        assert not compare_processes(type(self), "test_same", lambda: {"kept": "1"})

    def test_broken(self):
        compare_processes(type(self), "test_broken", lambda: 1 / 0)
"""


def test_two_processes_that_differ_are_told(monkeypatch, tmp_path):
    """Each hashes strings in its own way."""
    monkeypatch.delenv(FINDINGS, raising=False)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("test_set")
    module.__file__ = str(tmp_path / "test_set.py")
    Path(module.__file__).write_text(PROCESSES)
    monkeypatch.setitem(sys.modules, "test_set", module)
    exec(PROCESSES, module.__dict__)
    assert "['order']" in failures(module.TestSet, "test_it")
    assert failures(module.TestSet, "test_same") == ""
    assert "ZeroDivisionError" in failures(module.TestSet, "test_broken")


def test_a_child_writes_what_it_found(monkeypatch, tmp_path):
    monkeypatch.setenv(FINDINGS, str(tmp_path / "found.json"))
    assert failures(TestSlopesEndure, "test_two_processes_give_the_same_bytes") == ""
    assert set(json.loads((tmp_path / "found.json").read_text())) == set(METHODS)


# one function as two models


class TestInvariance(InvarianceConformance):
    toolset = "press"
    arguments: ClassVar = {
        "press_gradient": {"target": 0},
        "press_probability": {"target": 0},
        "press_noise": {},
        "press_layer": {"layer": "relu"},
        "press_map": {"layer": "mix", "target": [0, 1]},
        "press_neuron": {"layer": "mix", "neuron": (1, 2, 3)},
    }
    twin_arguments: ClassVar = {"press_neuron": {"layer": "mix", "neuron": (3, 1, 2)}}
    varying: ClassVar = {"press_noise": "draws for the axes of the model that runs"}
    distorted = False

    def make_model(self) -> Any:
        return fake.Print(*self.weights())

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(2).normal(size=(2, 5, 7, 3))

    def make_twin(self) -> Any:
        mix, head = self.weights()
        return fake.Painting(mix, head * (1.01 if self.distorted else 1))

    def make_twin_inputs(self) -> np.ndarray:
        return np.moveaxis(self.make_inputs(), -1, 1)

    @staticmethod
    def weights() -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(1)
        return generator.normal(size=(4, 3)), generator.normal(size=(5, 4))


def test_a_twin_that_is_explained_otherwise_is_told():
    class Other(TestInvariance):
        distorted = True

    class Excused(TestInvariance):
        varying: ClassVar = {"press_nosie": ""}

    assert failures(TestInvariance) == ""
    assert "press_gradient gives a model of another framework other values: relative 1.0e-02" in failures(Other)
    assert "does not offer ['press_nosie']" in failures(Excused)


# plotters and writers


class Figure:
    def __init__(self, picture: bytes) -> None:
        self.picture = picture

    def savefig(self, file: Any, **options: Any) -> None:
        file.write(self.picture)


def draw(attribution: cfi.Attribution) -> Figure:
    return Figure(b"".join(values.tobytes() + bytes(str(dims), "ascii") for values, dims in attribution.parts))


def blank(attribution: cfi.Attribution) -> Figure:
    return Figure(b"aaaa")


def nothing(attribution: cfi.Attribution) -> None:
    return None


def scale(attribution: cfi.Attribution) -> Figure:
    if not attribution.values.any():
        raise ZeroDivisionError
    attribution.values[:] /= attribution.values.max()
    return draw(attribution)


def dice(attribution: cfi.Attribution) -> Figure:
    return Figure(np.random.default_rng().bytes(9))


def write(attribution: cfi.Attribution, path: Path) -> None:
    np.save(path, attribution.values)


def write_more(attribution: cfi.Attribution, path: Path) -> None:
    write(attribution, path)
    Path(f"{path}.log").write_text("done")


def write_single(attribution: cfi.Attribution, path: Path) -> None:
    np.save(path, attribution.values.astype(np.float32))


def write_time(attribution: cfi.Attribution, path: Path) -> None:
    path.write_text(repr(time.monotonic()))


def write_with_anything(attribution: cfi.Attribution, path: Path, **options: Any) -> None:
    write(attribution, path)


def write_with_options(attribution: cfi.Attribution, path: Path, *, compressed: bool = False) -> None:
    write(attribution, path)


def write_elsewhere(attribution: cfi.Attribution, path: Path) -> None:
    if path.parent.exists():
        write(attribution, path)


class Drawing(PlotterConformance):
    plotter = "planted"


class Arrays(WriterConformance):
    suffix = ".npy"

    def read(self, path: Path) -> tuple[np.ndarray, ...]:
        return (np.load(path),)


class TestBuiltin(WriterConformance):
    """Of the core itself."""

    suffix = ".npz"

    def read(self, path: Path) -> tuple[np.ndarray, ...]:
        with np.load(path) as file:
            return (file["values"],)


def outlets(function: Callable[..., Any], accepts: tuple[str, ...] = ()) -> Any:
    where = f"{__name__}:{function.__name__}"
    plugin = SimpleNamespace(__name__="outlets")
    plugin.cfi_plotters = hookimpl(lambda: [PlotterSpec(name="planted", implementation=where, accepts=accepts)])
    plugin.cfi_writers = hookimpl(lambda: [WriterSpec(name="npy", suffixes=(".npy",), implementation=where)])
    return plugin


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (draw, "^$"),
        (blank, "draws nothing for axes.*\n.*draws other values alike"),
        (nothing, "returns a NoneType, which is no figure"),
        (scale, "test_zeros.*ZeroDivisionError|changed the values"),
        (dice, "draws one attribution in 4 ways"),
    ],
)
def test_faults_of_a_plotter_are_told(function, match):
    with use_plugins(outlets(function)):
        assert re.search(match, failures(Drawing)), failures(Drawing)


def test_a_plotter_is_asked_for_what_its_spec_accepts():
    with use_plugins(outlets(draw, accepts=("feature",))):
        assert [one.dims for one in Drawing().attributions()] == [("sample", "feature")]
        assert failures(Drawing) == ""
    with use_plugins(outlets(draw, accepts=("frequency",))):
        assert "accepts none of the forms" in failures(Drawing)
    with use_plugins():
        assert "no plugin offers the plotter 'planted'" in failures(Drawing)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (write, "^$"),
        (write_more, "test_it_writes_one_file"),
        (write_single, "not equal"),
        (write_time, "npy files of one attribution differ"),
        (write_elsewhere, "raises no OSError"),
        (write_with_anything, "given an option that it does not have, raises no CFIError"),
        (write_with_options, "^$"),
    ],
)
def test_faults_of_a_writer_are_told(function, match):
    with use_plugins(outlets(function)):
        assert re.search(match, failures(Arrays)), failures(Arrays)
    with use_plugins():
        assert "no plugin writes '.npy' files" in failures(Arrays)
