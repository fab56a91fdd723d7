"""TensorFlow models made ready to run: eagerly at first, as stages of one graph once that pays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record  # stops all tapes; a public tape can only stop itself

from cfi_core.framework import Pullback, Runner, flatten
from cfi_core.turns import Lock
from cfi_tensorflow.gradients import Split, call, split
from cfi_tensorflow.graphs import Trace
from cfi_tensorflow.outputs import same, seeds

EAGER_LOAD = 150
"""Rows that are run eagerly before a graph is made, each pass counting for `PASS_LOAD` more.

Measured with a ResNet-50 of 96 pixels: a pass forward and back takes 0.3 s longer eagerly, a row of it 0.02 s; to make
the graph takes 2.5 s.
"""
PASS_LOAD = 8
EAGER_ROWS = 40
"""Rows of one pass that no tape is to hold: of many it takes twice the memory of a graph."""

GRADIENTS = 1e-3
"""Relative difference of gradients up to which a graph takes the place of eager passes."""


class TapedRunner(Runner):
    """Gradients by `tf.GradientTape`."""

    @abstractmethod
    def _results(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """What the stage gives."""

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a stage."""
        with record.stop_recording():
            return self._results(stage, values)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The results of a stage, and its pullback."""
        # Another tensor for each value, on the same memory: one given twice would get the sum of both gradients.
        own = [tf.stop_gradient(value) for value in values]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch([value for value in own if value.dtype.is_floating])
            results = self._results(stage, own)

        def pullback(cotangents: Sequence[Any | None], wanted: Sequence[bool]) -> tuple[Any | None, ...]:
            sources = {i: value for i, value in enumerate(own) if wanted[i] and value.dtype.is_floating}
            targets, given = seeds(results, cotangents)
            found = tape.gradient(targets, sources, given) if targets and sources else {}
            gradients = [found.get(i) for i in range(len(own))]
            return tuple(None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients)

        return results, pullback


class GraphRunner(TapedRunner):
    """Stages cut out of one graph."""

    def __init__(self, trace: Trace, layers: Sequence[str]) -> None:
        position = {name: i for i, name in enumerate(trace.taps)}
        self.layers = tuple(sorted(layers, key=position.__getitem__))
        taps = [trace.taps[name] for name in self.layers]
        self._stages = [trace.between([*trace.inputs, *taps[:i]], [each]) for i, each in enumerate(taps)]
        self._stages.append(trace.between([*trace.inputs, *taps], flatten(trace.outputs)))
        self._inputs = len(trace.inputs)
        self._variables = trace.function.graph.variables  # which a graph does not hold
        self._splits: dict[int, Split | None] = {}
        self._lock = Lock()  # splitting adds to the stage's graph

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The results of a stage, and its pullback; without a tape, where the graph's gradient can be split."""
        halves = self._split(stage)
        if halves is None:
            return super().linearize(stage, values)
        values = list(values)
        with record.stop_recording():
            found = halves.forward(*values)
        results, kept = tuple(found[: halves.outputs]), found[halves.outputs :]

        def pullback(cotangents: Sequence[Any | None], wanted: Sequence[bool]) -> tuple[Any | None, ...]:
            if all(cotangent is None for cotangent in cotangents):
                return (None,) * len(values)
            marks = tuple(bool(mark) and value.dtype.is_floating for mark, value in zip(wanted, values, strict=True))
            with record.stop_recording():
                given = [tf.zeros_like(a) if b is None else b for a, b in zip(results, cotangents, strict=True)]
                return tuple(halves.backward(marks)(*values, *kept, *seeds(results, given)[1]))

        return results, pullback

    def _split(self, stage: int) -> Split | None:
        with self._lock:
            if stage not in self._splits:
                self._splits[stage] = split(self._stages[stage], self._inputs + stage)
            return self._splits[stage]

    def _results(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(call(self._stages[stage], values))


Pass = Callable[[Sequence[Any], Mapping[str, Any]], tuple[tuple[Any, ...], Mapping[str, Any]]]
"""From inputs, and activations to put in the place of layers, to all outputs and the opened layers' activations."""


class EagerRunner(TapedRunner):
    """Runs the model itself, every operation by itself."""

    def __init__(self, run: Pass, inputs: int, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self._pass, self._inputs = run, inputs
        self._one_pass = Lock()  # what opens a layer stands in its place, for one pass at a time

    def _results(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        given = dict(zip(self.layers, values[self._inputs :], strict=False))
        with self._one_pass if self.layers else nullcontext():
            outputs, activations = self._pass(values[: self._inputs], given)
        return outputs if stage == len(self.layers) else (activations[self.layers[stage]],)


class PatientRunner(Runner):
    """Runs a model eagerly, until so many rows have come that a graph of it pays; for that it has to agree first.

    What it does depends on the passes that came before, by their number and size, and never on the clock.
    """

    def __init__(self, eager: TapedRunner, make: Callable[[], TapedRunner | None], examples: Sequence[Any]) -> None:
        """Begins eagerly.

        Args:
            eager: Runs the model.
            make: The same model as a graph with the same layers; None if there is none.
            examples: Inputs on which both must agree.
        """
        self.layers = eager.layers
        self.current = eager
        self._make: Callable[[], TapedRunner | None] | None = make
        self._examples, self._load = tuple(examples), 0
        self._lock = Lock()

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a stage."""
        return self._after(values).run(stage, values)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The results of a stage, and its pullback."""
        return self._after(values).linearize(stage, values)

    def settle(self) -> None:
        """Makes the graph now."""
        with self._lock:
            make, self._make = self._make, None
            if make is not None and (graph := make()) is not None and self._agree(graph):
                self.current = graph

    def _after(self, values: Sequence[Any]) -> TapedRunner:
        """What is to run these values."""
        if self._make is not None:
            rows = values[0].shape[0] if values and values[0].shape.rank else 1
            self._load += rows + PASS_LOAD
            if self._load > EAGER_LOAD or rows > EAGER_ROWS:
                self.settle()
        return self.current

    def _agree(self, graph: TapedRunner) -> bool:
        """Whether the graph gives the results of the eager passes, and their gradients."""
        values = list(self._examples)
        generator = np.random.default_rng(0)
        try:
            for stage in range(len(self.layers) + 1):
                one, two = (runner.linearize(stage, values) for runner in (self.current, graph))
                if not same(two[0], one[0]):
                    return False
                cotangents = [_random_like(result, generator) for result in one[0]]
                wanted = [value.dtype.is_floating for value in values]
                expected, found = (pullback(cotangents, wanted) for _, pullback in (one, two))
                if not all(map(_alike, expected, found)):
                    return False
                values.extend(one[0] if stage < len(self.layers) else ())
        except (tf.errors.OpError, LookupError):
            return False  # what the graph cannot run, or has no gradient of
        return True


def _random_like(result: Any, generator: np.random.Generator) -> Any | None:
    if not result.dtype.is_floating:
        return None
    return tf.cast(tf.constant(generator.standard_normal(tuple(result.shape))), result.dtype)


def _alike(expected: Any | None, found: Any | None) -> bool:
    """Whether two gradients are the same within rounding; one that is not there is zero."""
    one, two = (np.zeros(1) if each is None else np.asarray(each, np.float64) for each in (expected, found))
    if expected is None or found is None:
        return not one.any() and not two.any()
    size = float(np.linalg.norm(one))
    return bool(np.array_equal(one, two, equal_nan=True) or np.linalg.norm(one - two) <= GRADIENTS * size)
