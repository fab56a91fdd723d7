"""A graph of Keras layers as compiled functions, for a model that is run again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from cfi_core.framework import flatten
from cfi_tensorflow.graphs import open_batch
from cfi_tensorflow.outputs import pull_back, same

Pulled = tuple[list[Any], list[Any]]
"""Outputs, one after the other, and gradients."""


class CompiledModel:
    """Stands for a Keras model, whose weights it shares, in forward passes and gradients.

    Each kind of pass is compiled when it is first asked for, and compared with the model then. One that cannot be
    compiled, or is another, runs as the model does.
    """

    def __init__(self, run: Callable[[Sequence[Any]], Any], inputs: Sequence[Any]) -> None:
        """Takes what runs the model, and an example."""
        self._run, self._specs = run, open_batch(inputs)
        self._functions: dict[tuple[bool, ...], Any] = {}

    def run(self, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        return self._function((), lambda values: self._run(values), [list(inputs)])

    def pull(self, inputs: Sequence[Any], cotangents: Sequence[Any | None]) -> Pulled:
        """Outputs, and the gradient of `sum(output * cotangent)` at each input."""
        wanted = tuple(one is not None for one in cotangents)
        given = [tf.constant(one) for one in cotangents if one is not None]
        return self._function(wanted, lambda *values: self._pull(wanted, *values), [list(inputs), given])

    def _pull(self, wanted: Sequence[bool], inputs: list[Any], given: list[Any]) -> Pulled:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
            outputs = flatten(self._run(inputs))
        rest = iter(given)
        return outputs, pull_back(tape, outputs, [next(rest) if mark else None for mark in wanted], inputs)

    def _function(self, kind: tuple[bool, ...], function: Callable[..., Any], values: list[Any]) -> Any:
        """What the compiled function gives."""
        if kind not in self._functions:
            self._functions[kind] = function
            specs = [self._specs, *map(open_batch, values[1:])]
            try:
                compiled = tf.function(function, autograph=False, input_signature=specs)
                found, expected = compiled(*values), function(*values)
            except (tf.errors.OpError, TypeError, ValueError):  # whatever of the model needs values
                return function(*values)
            # Of gradients rounding may make others, where a unit is at the edge of its ReLU.
            outputs = [flatten(one[0] if kind else one) for one in (found, expected)]
            if same(*outputs):
                self._functions[kind] = compiled
        return self._functions[kind](*values)
