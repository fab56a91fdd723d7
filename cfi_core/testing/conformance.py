"""Tests that a plugin inherits: what core expects of a plugin, and of every toolset, translator and bridge.

from cfi_core.testing.conformance import PluginConformance, ToolsetConformance

class TestMyPlugin(PluginConformance):
    plugin = my_plugin.plugin

class TestMyToolset(ToolsetConformance):
    toolset = "my-toolset"

    def make_model(self):
        return ...                      # native to the toolset's framework

    def make_inputs(self):
        return numpy_array              # sample axis first, two samples or more, no two axes of one size

    arguments = {"my_method": {"target": 0}}   # for each method key, what cfi.attribute needs besides the inputs
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.boundary import build_bridge, run_method
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK
from cfi_core.comparison import Side
from cfi_core.contract import BridgeRequest, MethodRequest
from cfi_core.detection import detect_framework
from cfi_core.discovery import PluginInfo, announcements
from cfi_core.errors import FOREIGN, PluginWarning, summary
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.framework.axes import permute
from cfi_core.hookspec import ENTRY_POINT_GROUP
from cfi_core.registry import Registry, registry
from cfi_core.requirements import unmet
from cfi_core.specs import (
    ANY,
    FrameworkSpec,
    Kind,
    MethodSpec,
    MetricSpec,
    PlotterSpec,
    TranslatorSpec,
    WriterSpec,
    resolve,
)
from cfi_core.testing import use_plugins


class PluginConformance(ABC):
    """What a plugin announces and offers, before any model comes into it.

    Attributes:
        plugin: The plugin's module (or an object with hook implementations).
        beside: Plugins that bring what this one builds on, such as the toolset that its methods belong to.
        distribution: Name of the installed distribution that announces it; empty if it is not installed.
    """

    plugin: ClassVar[Any]
    beside: ClassVar[tuple[Any, ...]] = ()
    distribution: ClassVar[str] = ""

    def load(self) -> tuple[Registry, PluginInfo]:
        """The plugin, loaded beside nothing but those that it builds on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # the tests tell what it says
            with use_plugins(*self.beside, self.plugin) as current:
                return current, current.plugins[-1]

    def test_it_loads(self) -> None:
        """It was built for this contract, its hooks are core's, and its specs hold what they should."""
        _, plugin = self.load()
        assert not plugin.error, f"core leaves the plugin out: {plugin.error}"

    def test_all_that_it_offers_can_be_used(self) -> None:
        """Its names are its own, and its methods belong to toolsets that somebody describes."""
        _, plugin = self.load()
        assert not plugin.withdrawn, f"core withdraws a part of it: {'; '.join(plugin.withdrawn)}"

    def test_its_frameworks_are_known(self) -> None:
        """Toolsets and translators name frameworks that it, one beside it, or a plugin of the project describes."""
        current, _ = self.load()
        known = {ANY, *current.frameworks, *DISTRIBUTION_OF_FRAMEWORK}
        for spec in self._specs(current):
            for field in ("framework", "source", "target"):  # of a toolset; of a translator
                name = getattr(spec, field, ANY)
                assert name in known, f"{spec.name} names the framework {name!r}; known are {sorted(known)}"

    def test_its_implementations_exist_and_take_what_core_passes(self) -> None:
        """Those whose requirements are installed."""
        current, _ = self.load()
        for spec in self._specs(current):
            reference, arguments = _entrance(current, spec)
            if not reference:
                continue
            try:
                implementation = resolve(reference)
            except FOREIGN as error:
                raise AssertionError(f"{reference!r} of {spec.title} cannot be imported: {summary(error)}") from error
            try:
                inspect.signature(implementation).bind(*[None] * arguments)
            except TypeError as error:
                what = f"{reference!r} of {spec.title} cannot be called with {arguments} arguments"
                raise AssertionError(f"{what}: {error}") from error

    def test_importing_it_imports_no_framework(self) -> None:
        """Listing what is installed stays quick; implementations are named by strings."""
        if not isinstance(self.plugin, ModuleType):
            return
        name = self.plugin.__name__
        current, _ = self.load()
        heavy = {spec.module for spec in current.frameworks.values()} | set(DISTRIBUTION_OF_FRAMEWORK)
        script = f"""
            import sys, cfi_core.testing
            before = set(sys.modules)
            sys.path[:] = {sys.path!r}
            import {name}
            print(*sorted({heavy - {name}!r} & set(sys.modules) - before))
        """
        ran = subprocess.run([sys.executable, "-c", inspect.cleandoc(script)], capture_output=True, text=True)
        assert ran.returncode == 0, f"{name} cannot be imported by itself: {ran.stderr.strip()}"
        assert not ran.stdout.strip(), f"importing {name} imports {ran.stdout.strip()}"

    def test_it_is_announced(self) -> None:
        """An entry point of its distribution names it."""
        if not self.distribution:
            return
        found = [pair for pair in announcements(ENTRY_POINT_GROUP) if pair[0].distribution == self.distribution]
        named = any(point is not None and point.load() is self.plugin for _, point in found)
        assert named, f"no entry point of {self.distribution} names the plugin: {found}"

    def _specs(self, current: Registry) -> list[Any]:
        owners, mine = current.origins.items(), current.plugins[-1].name
        return [getattr(current, table)[name] for (table, name), owner in owners if owner.name == mine]


def _entrance(current: Registry, spec: Any) -> tuple[str, int]:
    """What core imports for a spec, and how many arguments it passes; nothing where something is not installed."""
    match spec:
        case FrameworkSpec() if find_spec(spec.module.partition(".")[0]) is not None:
            return spec.adapter, 0
        case MethodSpec() if not current.lacks(current.toolsets[spec.toolset]):
            return spec.implementation, 1
        case TranslatorSpec() if not current.lacks(spec):
            return spec.implementation, 1 if spec.kind == "bridge" else 2
        case PlotterSpec() if not unmet(spec.requirements):
            return spec.implementation, 1
        case WriterSpec() if not unmet(spec.requirements):
            return spec.implementation, 2
        case MetricSpec() if not unmet(spec.requirements):
            return spec.implementation, 3
    return "", 0


class _Conformance(ABC):
    """Tests on a small model and its inputs."""

    @abstractmethod
    def make_model(self) -> Any:
        """A small model: of the toolset's framework, of the translator's source, of any framework to bridge from."""

    @abstractmethod
    def make_inputs(self) -> np.ndarray:
        """Two samples or more, in the model's axis order, with no two axes of one size."""

    def test_the_inputs_tell_axes_and_samples_apart(self) -> None:
        """A transposed value, a permutation told wrongly, or one sample for all would go unnoticed otherwise."""
        shape = self.make_inputs().shape
        assert shape[0] >= 2, f"inputs of shape {shape} hold one sample; make two or more"
        advice = "make them all different, so that none can be swapped"
        assert len(set(shape)) == len(shape), f"inputs of shape {shape} have axes of one size; {advice}"


class ToolsetConformance(_Conformance):
    """Every method of a toolset, run natively, on a model that all its methods can explain.

    Attributes:
        toolset: Its name.
        arguments: For each method key, what `cfi.attribute` needs besides the inputs.
        mixing: Keys of the methods whose values of a sample depend on the others by definition.
    """

    toolset: ClassVar[str]
    arguments: ClassVar[Mapping[str, Mapping[str, Any]]]
    mixing: ClassVar[frozenset[str]] = frozenset()

    def test_specs_are_complete(self) -> None:
        """There are methods, and each cites where it comes from."""
        for method in self._methods():
            assert method.citation, f"{method.key} cites nothing"

    def test_arguments_are_given_for_every_method(self) -> None:
        """No method is left untested."""
        offered, given = {method.key for method in self._methods()}, set(self.arguments)
        assert offered <= given, f"without arguments: {sorted(offered - given)}; give {{}} if inputs are enough"
        assert given <= offered, f"arguments for {sorted(given - offered)}, which {self.toolset!r} does not offer"

    def test_every_method_runs_and_leaves_the_model_as_it_was(self) -> None:
        """Values are finite, named by axes, repeatable by seed; the model's content is unchanged."""
        model, inputs = self.make_model(), self.make_inputs()
        given = inputs.copy()
        for method in self._methods():
            assert method.key in self.arguments, f"without arguments: {method.key}"
            visualized = method.kind is Kind.FEATURE_VISUALIZATION
            call: Callable[..., Any] = cfi.visualize_features if visualized else cfi.attribute
            arguments = dict(inputs=inputs, seed=1, **self.arguments[method.key])
            with _check_unchanged(model, method.key):
                results = [call(model, method.key, self.toolset, **arguments) for _ in range(1 if visualized else 2)]
            first = results[0]
            assert isinstance(first, cfi.Attribution), f"{method.key} needs a layer: give one in arguments"
            np.testing.assert_array_equal(inputs, given, err_msg=f"{method.key} changed the inputs")
            for (values, dims), (repeated, _) in zip(first.parts, results[-1].parts, strict=True):
                assert values.ndim == len(dims) and np.isfinite(values).all(), method.key
                message = f"{method.key} gives other values with one seed"
                np.testing.assert_allclose(values, repeated, rtol=1e-5, atol=1e-7, err_msg=message)
            assert first.route == () and first.provenance["applied"] is not None, method.key

    def test_samples_keep_their_order(self) -> None:
        """Values of the first sample are the same whatever the others are, so they are its own."""
        model, inputs = self.make_model(), self.make_inputs()
        for method in self._methods():
            if method.kind is Kind.FEATURE_VISUALIZATION or method.key in self.mixing:
                continue
            batches = inputs, np.repeat(inputs[:1], len(inputs), axis=0)
            arguments = dict(seed=1, **self.arguments[method.key])
            found: list[Any] = [
                cfi.attribute(model, method.key, self.toolset, inputs=batch, **arguments) for batch in batches
            ]
            for (values, _), (others, _) in zip(*(one.parts for one in found), strict=True):
                same = np.allclose(values[0], others[0], rtol=1e-3, atol=1e-4 * np.abs(values[0]).max())
                assert same, f"{method.key} gives the first sample other values, as if samples stood in another order"

    def test_values_add_up_as_promised(self) -> None:
        """Where the spec says that they add up to something, they do."""
        model, inputs = self.make_model(), self.make_inputs()
        for method in self._methods():
            if method.completeness is None or method.completeness.unmeasured:
                continue
            arguments = dict(inputs=inputs, seed=1, **self.arguments[method.key])
            found: Any = cfi.attribute(model, method.key, self.toolset, **arguments)
            measured = found.provenance["completeness"]
            assert measured["gap"] is not None, f"the sum of {method.key} is not measured: {measured['why']}"
            assert measured["gap"] <= measured["bound"], f"{method.key} misses {measured['against']}: {measured['gap']}"

    def test_failures_are_typed(self) -> None:
        """Whatever the toolset raises reaches the user as an error of CFI."""
        method = self._methods()[0]
        with suppress(cfi.CFIError):
            run_method(MethodRequest(method=method, model=object(), inputs=(np.zeros((2, 3)),)), self.toolset)
            raise AssertionError(f"{method.key} accepted an object that is no model")

    def _methods(self) -> list[MethodSpec]:
        methods = cfi.methods(toolset=self.toolset)
        assert methods, f"no plugin offers a method of {self.toolset!r}"
        return methods


def _assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=f"{what} is another one")


def _adapter_of(model: Any) -> FrameworkAdapter:
    return adapter_for(registry(), detect_framework(registry(), model).name)


@contextmanager
def _check_unchanged(model: Any, culprit: str) -> Iterator[None]:
    """Fails if the model is another one afterwards, as far as its adapter can tell."""
    adapter = _adapter_of(model)
    before = adapter.fingerprint(model)
    known = adapter.fingerprint(model) == before  # otherwise it is another one each time, and cannot tell a change
    yield
    assert not known or adapter.fingerprint(model) == before, f"{culprit} changed the model"


class TranslatorConformance(_Conformance):
    """A route of conversions, on a model and inputs of its source framework."""

    target: ClassVar[str]
    translator: ClassVar[str | list[str]]

    def translation(self, model: Any = None) -> cfi.Translation:
        """A model, or else a new one, translated."""
        model = self.make_model() if model is None else model
        return cfi.translate(model, self.target, inputs=self.make_inputs(), translator=self.translator)

    def test_it_is_faithful(self) -> None:
        """The certificate says so, and it measured something."""
        certificate = self.translation().certificate
        assert certificate.faithful, str(certificate)
        assert len(certificate.measurements) == 2

    def test_other_batch_sizes_work(self) -> None:
        """The number of samples is not baked in."""
        model, inputs = self.make_model(), self.make_inputs()
        source, target = _adapter_of(model), adapter_for(registry(), self.target)
        made = self.translation(model)
        sides = Side(source, source.twin(model)), Side(target, made.model, made.input_axes, made.output_axes)
        for samples in (1, 5):
            batch = np.resize(inputs, (samples, *inputs.shape[1:]))
            for expected, found in zip(*(side.outputs([batch]) for side in sides), strict=True):
                _assert_close(found, expected, f"the output for {samples} samples")

    def test_layers_are_found(self) -> None:
        """At least one layer has a counterpart, and matches name layers of the translated model."""
        translation = self.translation()
        names = {layer.name for layer in cfi.layers(translation.model)}
        matches = {translation.layer_map[name] for name in translation.layer_map}
        assert matches and matches <= names

    def test_the_model_is_unchanged(self) -> None:
        """Translating leaves the original as it was."""
        model = self.make_model()
        with _check_unchanged(model, str(self.translator)):
            self.translation(model)


class BridgeConformance(_Conformance):
    """A bridge, on a model and inputs of some framework that can be run."""

    translator: ClassVar[str]

    def test_it_opens_the_layers_that_are_asked_for_and_computes_the_same(self) -> None:
        """Outputs, and activations at no layer, each alone, and all at once."""
        step, model, inputs = self._step(), self.make_model(), self.make_inputs()
        source, target = _adapter_of(model), adapter_for(registry(), step.target)
        twin = source.twin(model)
        tensors = (source.tensor(inputs, twin),)
        outputs, activations = flatten(source.outputs(twin, tensors)), source.activations(twin, tensors)
        forms, shapes = [array.shape for array in outputs], {name: activations[name].shape for name in activations}
        for names in ((), *((name,) for name in activations), tuple(activations)):
            request = BridgeRequest(source, source.twin(model), tensors, names)
            bridged = build_bridge(step, request, self.translator, outputs=forms, layers=shapes)
            side = Side(target, bridged.model, bridged.input_axes, bridged.output_axes)
            for position, (output, other) in enumerate(zip(side.outputs([inputs]), outputs, strict=True)):
                _assert_close(output, other, f"output {position}")
            opened = [layer.name for layer in bridged.layers.values()]
            layers = target.activations(bridged.model, side.tensors([inputs]), opened)
            for name, layer in bridged.layers.items():
                _assert_close(layers[layer.name], permute(activations[name], layer.axes), f"layer {name!r}")

    def test_the_model_is_unchanged(self) -> None:
        """A bridge leaves the original as it was."""
        step, model = self._step(), self.make_model()
        source = _adapter_of(model)
        tensors = (source.tensor(self.make_inputs(), model),)
        with _check_unchanged(model, self.translator):
            build_bridge(step, BridgeRequest(source, source.twin(model), tensors), self.translator)

    def _step(self) -> TranslatorSpec:
        known = registry().translators
        assert self.translator in known, f"no plugin offers the bridge {self.translator!r}; there are {sorted(known)}"
        return known[self.translator]
