"""TensorFlow models made ready to run many times: as stages of one graph, or eagerly where they cannot be traced."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # stops all tapes; a public tape can only stop itself

from cfi_core.framework import Pullback, Runner, flatten
from cfi_core.turns import Lock
from cfi_tensorflow.gradients import Split, call, split
from cfi_tensorflow.graphs import Trace
from cfi_tensorflow.outputs import same, seeds


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

    def agrees(self, inputs: Sequence[Any], outputs: Sequence[Any], activations: Mapping[str, Any]) -> bool:
        """Whether the stages compute these outputs, and these activations of the layers."""
        values = list(inputs)
        try:
            for stage in range(len(self.layers)):
                values.extend(self.run(stage, values))
            found = self.run(len(self.layers), values)
        except tf.errors.OpError:
            return False
        expected = [*outputs, *(activations[name] for name in self.layers)]
        return same([*found, *values[len(inputs) :]], expected)

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

    def _results(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        given = dict(zip(self.layers, values[self._inputs :], strict=False))
        outputs, activations = self._pass(values[: self._inputs], given)
        return outputs if stage == len(self.layers) else (activations[self.layers[stage]],)
