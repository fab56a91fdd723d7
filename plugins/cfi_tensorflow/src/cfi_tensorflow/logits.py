"""A model without its final softmax, where its layers cannot be put together anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cfi_core.errors import InputError, LayerError
from cfi_core.framework import Layer
from cfi_tensorflow.graphs import Trace
from cfi_tensorflow.runners import GraphRunner, TapedRunner


class View(Protocol):
    """What the adapter does with one kind of model; see `cfi_core.framework.base.FrameworkAdapter`."""

    def twin(self, *, share_weights: bool) -> Any:
        """Another model that computes the same."""

    def in_double(self) -> Any | None:
        """A copy that computes in double precision, where one can be made."""

    def fingerprint(self) -> str:
        """Changes with the model."""

    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes that the model declares."""

    def declared_integer(self, position: int) -> bool | None:
        """Whether the model declares that input as integer."""

    def floating_type(self) -> Any:
        """The type that floating point inputs get; None: their own."""

    def without_softmax(self, inputs: Sequence[Any]) -> Any | None:
        """The model that returns the logits."""

    def run(self, inputs: Sequence[Any]) -> Any:
        """The outputs, as tensors in the structure that the model returns."""

    def layers(self, inputs: Sequence[Any] | None) -> tuple[Layer, ...]:
        """All layers."""

    def layer_name(self, reference: Any) -> str | None:
        """Name of the layer that the user refers to."""

    def layer_object(self, name: str) -> Any:
        """The layer of that name."""

    def activations(self, inputs: Sequence[Any], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Outputs of layers, as tensors."""

    def gradients(
        self, inputs: Sequence[Any], cotangents: Sequence[np.ndarray], names: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Gradients at the outputs of layers, as tensors."""

    def runner(self, inputs: Sequence[Any], layers: Sequence[str]) -> TapedRunner:
        """The model opened at layers."""


class TracedLogits:
    """A model, as it was when it was traced, with the input of each final softmax for an output; it is its own view."""

    def __init__(self, original: View, trace: Trace) -> None:
        self._original, self._trace = original, trace
        self._fingerprint = f"{original.fingerprint()}:logits"

    def twin(self, *, share_weights: bool) -> TracedLogits:
        """The model itself: nothing can be marked on it.

        Raises:
            InputError: Weights are to be changed, and they are frozen.
        """
        if not share_weights:
            raise InputError(
                "The model's softmax can only be left out with frozen weights, and this method changes weights. Pass a "
                "functional Keras model, a model that returns logits, or head='output'."
            )
        return self

    def in_double(self) -> None:
        """A traced graph has its types built in."""

    def fingerprint(self) -> str:
        """Of the original, when it was traced."""
        return self._fingerprint

    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """As the original."""
        return self._original.input_shapes()

    def declared_integer(self, position: int) -> bool | None:
        """As the original."""
        return self._original.declared_integer(position)

    def floating_type(self) -> Any:
        """As the original."""
        return self._original.floating_type()

    def without_softmax(self, inputs: Sequence[Any]) -> TracedLogits | None:
        """Without another softmax, if there was one behind the other."""
        trace = self._trace.without_softmax()
        return None if trace is None else TracedLogits(self, trace)

    def run(self, inputs: Sequence[Any]) -> Any:
        """The logits, in the structure that the original returns."""
        return self._trace.call(inputs)

    def layers(self, inputs: Sequence[Any] | None) -> tuple[Layer, ...]:
        """Those of the original."""
        return self._original.layers(inputs)

    def layer_name(self, reference: Any) -> str | None:
        """As the original."""
        return self._original.layer_name(reference)

    def layer_object(self, name: str) -> Any:
        """The original's layer."""
        return self._original.layer_object(name)

    def activations(self, inputs: Sequence[Any], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Of a layer that ends in the softmax: the logits."""
        return self._trace.activations(inputs, names)

    def gradients(
        self, inputs: Sequence[Any], cotangents: Sequence[np.ndarray], names: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """By the graph."""
        return self._trace.gradients(inputs, cotangents, names)

    def runner(self, inputs: Sequence[Any], layers: Sequence[str]) -> TapedRunner:
        """By the graph."""
        return open_graph(self._trace, layers)


def open_graph(trace: Trace, layers: Sequence[str]) -> GraphRunner:
    """The graph opened at some of its taps.

    Raises:
        LayerError: One of the names is not among them.
    """
    for name in layers:
        if name in trace.repeated:
            raise LayerError(
                f"Layer {name!r} is computed more than once, so it has no single activation. Choose another."
            )
        if name not in trace.taps:
            known = list(trace.taps)
            raise LayerError(
                f"{name!r} cannot be read in the model's graph (it does not occur there, or lies inside a loop, a "
                f"branch or a compiled function). Choose one of: {', '.join(known[-12:]) or 'none, there are none'}."
            )
    return GraphRunner(trace, layers)
