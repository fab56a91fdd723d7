"""One function as two models: what explains a function, and not how it is built, gives both the same."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.specs import Kind
from cfi_core.testing.conformance.samples import SampleConformance
from cfi_core.testing.conformance.toolset import Methods


class InvarianceConformance(SampleConformance, Methods):
    """Every method of a toolset, natively and on a model of another framework that computes the same.

    Attributes:
        toolset: Its name.
        arguments: For each method key, what `cfi.attribute` needs besides the inputs, in the axes of the native model.
        twin_arguments: The same for the other model, where its axes are others.
        translator: How the other model reaches the toolset; None leaves that to core.
        varying: Keys of methods that depend on how a model is built, each with the reason: these are not compared.
        within: How far values may be off, relative to the largest one.
    """

    twin_arguments: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    translator: ClassVar[str | None] = None
    varying: ClassVar[Mapping[str, str]] = {}
    within: ClassVar[float] = 1e-4

    @abstractmethod
    def make_twin(self) -> Any:
        """A model of another framework that computes the same."""

    def make_twin_inputs(self) -> np.ndarray:
        """The inputs, in the axes of the other model."""
        return self.make_inputs()

    def test_methods_that_vary_are_offered(self) -> None:
        """Nothing is excused that nobody offers."""
        unknown = set(self.varying) - {method.key for method in self.methods()}
        assert not unknown, f"{self.toolset!r} does not offer {sorted(unknown)}, which `varying` names"

    def test_both_models_are_explained_alike(self) -> None:
        """Values and names of axes, whatever their order."""
        model, twin = self.make_model(), self.make_twin()
        given, others = self.make_inputs(), self.make_twin_inputs()
        for method in self.methods():
            if method.kind is Kind.FEATURE_VISUALIZATION or method.key in self.varying:
                continue
            arguments = self.arguments.get(method.key, {})
            native = self.attribute(model, method, inputs=given, **arguments)
            arguments = {"translator": self.translator, **self.twin_arguments.get(method.key, arguments)}
            brought = self.attribute(twin, method, inputs=others, **arguments)
            assert native.route == () and brought.route, f"{method.key} reached both models by {brought.route}"
            self._compare(method.key, native, brought)

    def _compare(self, key: str, native: cfi.Attribution, brought: cfi.Attribution) -> None:
        for (expected, dims), (values, other_dims) in zip(native.parts, brought.parts, strict=True):
            assert sorted(dims) == sorted(other_dims), f"{key} names the axes {dims} and {other_dims}"
            found = np.transpose(values, [other_dims.index(name) for name in dims])
            off = np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
            assert off <= self.within, f"{key} gives a model of another framework other values: relative {off:.1e}"
