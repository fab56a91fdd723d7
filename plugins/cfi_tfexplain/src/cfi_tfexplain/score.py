"""What is explained, as tf-explain asks for it: one column of a model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from cfi_core.contract import Target
from cfi_core.errors import TargetError


class Scored:
    """A model that gives one column, the score of each row, so that tf-explain's `class_index` is 0.

    Rows may be several copies of each sample, one after the other (all of the first sample first), which is how
    tf-explain lays out the points of a path and noisy inputs.

    Attributes:
        model: Callable with one tensor.
        target: What is explained; None for an output of one value.
        samples: Number of samples of the call.
    """

    def __init__(self, model: Callable[[Any], Any], target: Target | None, samples: int) -> None:
        self.model = model
        self.target = target or Target()
        self.samples = samples

    def __call__(self, inputs: Any) -> Any:
        """Scores of shape (rows, 1)."""
        return tf.reshape(self.of_outputs(self.model(inputs)), (-1, 1))

    def of_outputs(self, outputs: Any) -> Any:
        """The score of each row of what the model gives."""
        if self.target.output is not None:
            outputs = _choose(outputs, self.target.output)
        if self.target.function is not None:
            return self._by_function(outputs, self.target.function)
        if self.target.index is None:
            return tf.reshape(outputs, (-1,))
        copies = int(outputs.shape[0]) // self.samples
        indices = tf.repeat(tf.constant(self.target.indices(self.samples), tf.int32), copies, axis=0)
        return tf.gather_nd(outputs, indices, batch_dims=1)

    def _by_function(self, outputs: Any, function: Callable[[Any], Any]) -> Any:
        """The user's function sees each copy of the batch by itself, as many samples as the user gave."""
        copies = int(tf.nest.flatten(outputs)[0].shape[0]) // self.samples
        columns = [
            self._one_each(function(tf.nest.map_structure(lambda rows, i=i: rows[i::copies], outputs)))
            for i in range(copies)
        ]
        return tf.reshape(tf.stack(columns, axis=1), (-1,))

    def _one_each(self, values: Any) -> Any:
        if isinstance(values, list | tuple):
            values = tf.stack([tf.convert_to_tensor(value) for value in values]) if values else tf.zeros(0)
        values = tf.convert_to_tensor(values)
        shape = tuple(values.shape)
        if values.shape.num_elements() != self.samples or (shape and shape[0] != self.samples):
            raise TargetError(
                f"the target function gives values of shape {shape} for {self.samples} samples; it must return one "
                "value for each sample"
            )
        return tf.reshape(values, (-1,))


def _choose(outputs: Any, which: int | str) -> Any:
    if isinstance(outputs, Mapping):
        return outputs[which]
    if isinstance(which, int) and isinstance(outputs, Sequence):
        return outputs[which]
    raise TargetError(f"the model gives {type(outputs).__name__}, which has no output {which!r}")
