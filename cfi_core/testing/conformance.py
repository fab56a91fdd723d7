"""Tests that a plugin inherits: what core expects of every toolset and every translator.

from cfi_core.testing.conformance import ToolsetConformance

class TestMyToolset(ToolsetConformance):
    toolset = "my-toolset"

    def make_model(self):
        return ...                      # native to the toolset's framework

    def make_inputs(self):
        return numpy_array              # sample axis first, at least two samples

    arguments = {"my_method": {"target": 0}}   # for each method key, what cfi.attribute needs besides the inputs
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.contract import MethodRequest
from cfi_core.detection import detect_framework
from cfi_core.registry import registry
from cfi_core.running import run
from cfi_core.specs import UNIFORM_ARGUMENTS, Kind, resolve


class ToolsetConformance(ABC):
    """Every method of a toolset, run natively."""

    toolset: ClassVar[str]
    arguments: ClassVar[Mapping[str, Mapping[str, Any]]]

    @abstractmethod
    def make_model(self) -> Any:
        """A small model of the toolset's framework that all its methods can explain."""

    @abstractmethod
    def make_inputs(self) -> np.ndarray:
        """Two samples or more, in the model's axis order, best not square."""

    def test_specs_are_complete(self) -> None:
        """Implementations exist, citations are given, argument names are understood."""
        for method in cfi.methods(toolset=self.toolset):
            assert list(inspect.signature(resolve(method.implementation)).parameters), method.key
            assert method.citation, f"{method.key} cites nothing"
            assert set(method.required) | set(method.optional) <= set(UNIFORM_ARGUMENTS), method.key
            assert set(method.roles) <= {*method.init_args, *method.exec_args, *UNIFORM_ARGUMENTS}, method.key

    def test_arguments_are_given_for_every_method(self) -> None:
        """No method is left untested."""
        assert set(self.arguments) == {method.key for method in cfi.methods(toolset=self.toolset)}

    def test_every_method_runs_and_leaves_the_model_as_it_was(self) -> None:
        """Values are finite, named by axes, repeatable by seed; the model's content is unchanged."""
        model, inputs = self.make_model(), self.make_inputs()
        adapter = adapter_for(registry(), detect_framework(registry(), model).name)
        before, given = adapter.fingerprint(model), inputs.copy()
        for method in cfi.methods(toolset=self.toolset):
            if method.kind is Kind.FEATURE_VISUALIZATION:
                result: Any = cfi.visualize_features(
                    model, method.key, self.toolset, inputs=inputs, seed=1, **self.arguments[method.key]
                )
            else:
                call = dict(inputs=inputs, seed=1, **self.arguments[method.key])
                result = cfi.attribute(model, method.key, self.toolset, **call)
                again = cfi.attribute(model, method.key, self.toolset, **call)
                assert isinstance(result, cfi.Attribution) and isinstance(again, cfi.Attribution), method.key
                for (values, _), (repeated, _) in zip(result.parts, again.parts, strict=True):
                    np.testing.assert_allclose(values, repeated, rtol=1e-5, atol=1e-7, err_msg=method.key)
            for values, dims in result.parts:
                assert values.ndim == len(dims), method.key
                assert np.isfinite(values).all(), method.key
            assert result.route == (), method.key
            assert result.provenance["applied"] is not None
            assert adapter.fingerprint(model) == before, f"{method.key} changed the model"
            np.testing.assert_array_equal(inputs, given, err_msg=f"{method.key} changed the inputs")

    def test_failures_are_typed(self) -> None:
        """Whatever the toolset raises reaches the user as an error of CFI."""
        method = next(m for m in cfi.methods(toolset=self.toolset) if m.kind is Kind.ATTRIBUTION)
        adapter = adapter_for(registry(), registry().toolsets[self.toolset].framework)
        try:
            run(adapter, MethodRequest(method=method, model=object(), inputs=(object(),)))
        except cfi.CFIError:
            return
        raise AssertionError(f"{method.key} accepted an object that is no model")


class TranslatorConformance(ABC):
    """A route, on a model and inputs of its source framework."""

    target: ClassVar[str]
    translator: ClassVar[str | list[str]]

    @abstractmethod
    def make_model(self) -> Any:
        """A small model of the source framework."""

    @abstractmethod
    def make_inputs(self) -> np.ndarray:
        """Two samples or more, in the model's axis order, best not square."""

    def translation(self) -> cfi.Translation:
        """The translated model."""
        return cfi.translate(self.make_model(), self.target, inputs=self.make_inputs(), translator=self.translator)

    def test_it_is_faithful(self) -> None:
        """The certificate says so, and it measured something."""
        certificate = self.translation().certificate
        assert certificate.faithful, str(certificate)
        assert len(certificate.measurements) == 2

    def test_other_batch_sizes_work(self) -> None:
        """The number of samples is not baked in."""
        model, inputs = self.make_model(), self.make_inputs()
        source = adapter_for(registry(), detect_framework(registry(), model).name)
        target = adapter_for(registry(), self.target)
        translation = cfi.translate(model, self.target, inputs=inputs, translator=self.translator)
        for samples in (1, 5):
            batch = np.resize(inputs, (samples, *inputs.shape[1:]))
            axes = translation.input_axes[0] if translation.input_axes else None
            turned = batch if axes is None else np.transpose(batch, axes)
            ours = source.outputs(source.twin(model), [source.tensor(batch, model)])
            theirs = target.outputs(translation.model, [target.tensor(turned, translation.model)])
            np.testing.assert_allclose(np.ravel(ours), np.ravel(theirs), rtol=1e-3, atol=1e-4)

    def test_layers_are_found(self) -> None:
        """At least one layer has a counterpart, and matches name layers of the translated model."""
        translation = self.translation()
        names = {layer.name for layer in cfi.layers(translation.model)}
        assert len(translation.layer_map) > 0
        assert {translation.layer_map[name] for name in translation.layer_map} <= names

    def test_the_model_is_unchanged(self) -> None:
        """Translating leaves the original as it was."""
        model = self.make_model()
        adapter = adapter_for(registry(), detect_framework(registry(), model).name)
        before = adapter.fingerprint(model)
        cfi.translate(model, self.target, inputs=self.make_inputs(), translator=self.translator)
        assert adapter.fingerprint(model) == before
