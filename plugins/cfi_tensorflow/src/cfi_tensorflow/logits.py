"""A model without its final softmax, where its layers cannot be put together anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cfi_core.errors import InputError, LayerError
from cfi_core.framework import Layer, State, flatten
from cfi_tensorflow.graphs import Trace
from cfi_tensorflow.outputs import dense
from cfi_tensorflow.runners import GraphRunner, TapedRunner


class TracedLogits:
    """A model, as it was when it was traced, with the input of each final softmax for an output; it is its own view."""

    def __init__(self, original: Any, trace: Trace) -> None:
        """Takes a view of the original model and its trace without the softmax."""
        self._original, self._trace = original, trace
        self._fingerprint = f"{original.fingerprint()}:logits"

    def __call__(self, *inputs: Any) -> Any:
        """The logits."""
        return self.run(inputs)

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

    def declares_integer(self, position: int) -> bool | None:
        """As the original."""
        return self._original.declares_integer(position)

    def floating_type(self) -> Any:
        """As the original."""
        return self._original.floating_type()

    def state(self) -> State:
        """A trace writes to nothing of its own."""
        return State()

    def precision(self) -> frozenset[str]:
        """Of the first floating point input."""
        dtype = self.floating_type()
        return frozenset({"float32" if dtype is None else dtype.name})

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

    def split_embedding(self, inputs: Sequence[Any], layer: str | None) -> None:
        """A graph that was cut already is not cut again."""

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


def traced_logits(original: Any, inputs: Sequence[Any], trace: Trace | None) -> TracedLogits | None:
    """What a view (of such a trace, for these inputs) gives without the softmax; None if there is none, or no graph."""
    logits = trace.without_softmax() if trace is not None and trace.differentiable else None
    if trace is None or logits is None or (inputs and not trace.agrees(inputs, flatten(dense(original.run(inputs))))):
        return None
    return TracedLogits(original, logits)
