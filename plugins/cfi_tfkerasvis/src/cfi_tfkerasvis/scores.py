"""Targets as score functions, and the user's own score functions checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_core.contract import Target
from cfi_core.errors import TargetError
from cfi_core.turns import aside
from cfi_tfkerasvis.workarounds import BinaryScore, CategoricalScore

NO_WAY = (
    "the score does not depend on the inputs; a target or score function must be made of TensorFlow operations on the "
    "model's output"
)


class SampleScore:
    """A score function that gives exactly one value for each sample.

    tf-keras-vis sums whatever it gets: a function that returns values for some of the samples only
    gives the others a gradient of zero, silently.

    Attributes:
        function: Maps an output tensor of the model to one value per sample (a tensor, or a list of values).
        samples: Number of samples in the batch.
        name: What to call it in errors.
        indices: Which value of the output it is, for each sample; None of any other function.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        samples: int,
        name: str,
        indices: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        self.function = function
        self.samples = samples
        self.name = name
        self.indices = indices

    def __call__(self, output: Any) -> Any:
        """One score per sample, checked."""
        values = self.function(output)
        if isinstance(values, list | tuple):
            values = tf.stack([tf.convert_to_tensor(value) for value in values]) if values else tf.zeros(0)
        values = tf.convert_to_tensor(values)
        if values.shape.rank == 0 and self.samples == 1:
            return tf.reshape(values, (1,))
        if values.shape.rank == 0 or values.shape[0] != self.samples:
            raise TargetError(
                f"{self.name} gives values of shape {tuple(values.shape)} for {self.samples} samples; "
                "it must return one value for each sample"
            )
        # tf-keras-vis's own scores of an output with spatial axes are means over them.
        return tf.reduce_mean(values, axis=tuple(range(1, values.shape.rank)))

    def of_sample(self, sample: int) -> SampleScore:
        """The score of one sample of the batch, for a model output that holds that sample alone."""

        def alone(output: Any) -> Any:
            return self(tf.repeat(output, self.samples, axis=0))[sample : sample + 1]

        return SampleScore(alone, 1, self.name)

    def of_rows(self, output: Any, sample: int) -> Any:
        """Its values for any number of rows, each of which stands for that sample."""
        if self.indices is None:
            alone = self.of_sample(sample)
            return tf.concat([alone(output[row : row + 1]) for row in range(len(output))], 0)
        rows = len(output)
        return SampleScore(_gather((self.indices[sample],) * rows, rows), rows, self.name)(output)


def target_score(target: Target | None, samples: int) -> SampleScore:
    """The score function of a target."""
    if target is not None and target.function is not None:
        return SampleScore(_one_value_each(target.function, samples), samples, "the target function")
    if target is not None and target.index is not None:
        indices = target.indices(samples)
        return SampleScore(_gather(indices, samples), samples, "the target", indices)
    return SampleScore(_only_value, samples, "the output")


def neuron_score(neuron: Any, samples: int, channel_axis: int) -> SampleScore:
    """The score function of one unit, or of one channel (its mean over space), of a layer's output.

    Args:
        neuron: A channel `(c,)`, a unit (indices of all axes after the first), or a function of the layer's output.
        samples: Number of samples in the batch.
        channel_axis: Position of the channel axis of the layer's output.
    """
    if callable(neuron):
        return SampleScore(_one_value_each(neuron, samples), samples, "the neuron function")
    indices = tuple(neuron) if isinstance(neuron, Sequence) else (neuron,)
    index = tuple(plain_ints(indices))

    def unit(output: Any) -> Any:
        if len(index) == 1 and output.shape.rank > 2:
            _check_index(index, (output.shape[channel_axis],), "neuron", "the layer's channels")
            channel = tf.gather(output, index[0] % output.shape[channel_axis], axis=channel_axis)
            return tf.reduce_mean(tf.reshape(channel, (output.shape[0], -1)), axis=1)
        return _gather((index,) * samples, samples, "neuron", "the layer's output")(output)

    return SampleScore(unit, samples, "the neuron")


def own_scores(score: Any, samples: int, outputs: int) -> list[SampleScore]:
    """The user's own score functions (tf-keras-vis's words), one for each output of the model.

    Raises:
        TargetError: Not one callable for each output, or one that names another number of samples.
    """
    scores = list(score) if isinstance(score, list | tuple) else [score]
    if len(scores) != outputs:
        raise TargetError(
            f"`score` holds {len(scores)} score functions and the model has {outputs} outputs; give one for each "
            "(tf_keras_vis.utils.scores.InactiveScore() leaves an output out)"
        )
    for entry in scores:
        if not callable(entry):
            raise TargetError(
                f"`score` holds {entry!r}, which cannot be called; give a function of the model's output, "
                "CategoricalScore(…), or use the uniform argument `target`"
            )
    checked = [aside(_check_score(entry, samples)) for entry in scores]  # the user's, which may wait for other calls
    return [SampleScore(one, samples, f"the score {_name(entry)}") for one, entry in zip(checked, scores, strict=True)]


def own_samples(score: Any) -> int:
    """How many samples the user's own score functions name; 1 if they name none."""
    scores = score if isinstance(score, list | tuple) else [score]
    counts = [
        len(plain_ints(entry.indices) if isinstance(entry, CategoricalScore) else entry.target_values)
        for entry in scores
        if isinstance(entry, CategoricalScore | BinaryScore)
    ]
    return max(counts, default=1)


def check_dependence(model: Any, inputs: Sequence[Any], scores: Sequence[SampleScore]) -> None:
    """Refuses scores that do not depend on the inputs; a map of zeros or of regularizers alone would come out.

    Raises:
        TargetError: TensorFlow finds no way from the scores to any input.
    """
    tensors = [tf.convert_to_tensor(value) for value in inputs]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = tf.nest.flatten(model(tensors, training=False))
        total = sum(tf.reduce_sum(score(output)) for score, output in zip(scores, outputs, strict=True))
    if all(gradient is None for gradient in tape.gradient(total, tensors)):
        raise TargetError(NO_WAY)


def plain_ints(values: Any) -> list[int]:
    """Integers out of whatever holds them: numbers, numpy arrays, tensors of any framework, lists of these."""
    if isinstance(values, list | tuple):
        return [number for value in values for number in plain_ints(value)]
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TargetError(f"class indices must be integers, got {values!r}")
    return [int(value) for value in array.reshape(-1)]


def _check_score(score: Any, samples: int) -> Callable[[Any], Any]:
    if isinstance(score, CategoricalScore):
        return _categorical(score, samples)
    if isinstance(score, BinaryScore) and len(score.target_values) not in (1, samples):
        raise _wrong_count(score, len(score.target_values), samples)
    return score


def _categorical(score: Any, samples: int) -> Callable[[Any], Any]:
    indices = plain_ints(score.indices)
    if len(indices) not in (1, samples):
        raise _wrong_count(score, len(indices), samples)
    # The user's own object stays as it is; a copy keeps what a subclass adds.
    score = copy.copy(score)
    score.indices = indices

    def categorical(output: Any) -> Any:
        for index in indices:
            _check_index((index,), (output.shape[-1],), "class index", "the output's last axis")
        return score(output)

    return categorical


def _wrong_count(score: Any, count: int, samples: int) -> TargetError:
    return TargetError(
        f"{_name(score)} names {count} targets for {samples} samples; give one for each sample, or one for all"
    )


def _gather(
    indices: tuple[tuple[int, ...], ...], samples: int, what: str = "target", where: str = "the output"
) -> Callable[[Any], Any]:
    def gather(output: Any) -> Any:
        if len(indices) != samples or output.shape[0] != samples:
            raise TargetError(
                f"{len(indices)} targets for {samples} samples (the model gave {output.shape[0]}); "
                "give one target for each sample, or one for all"
            )
        sizes = tuple(output.shape[1:])
        for index in indices:
            _check_index(index, sizes, what, where)
        positions = [
            [sample, *(i % size for i, size in zip(index, sizes, strict=True))] for sample, index in enumerate(indices)
        ]
        return tf.gather_nd(output, positions)

    return gather


def _check_index(index: tuple[int, ...], sizes: tuple[int, ...], what: str, where: str) -> None:
    # On a GPU, TensorFlow gathers zeros for an index that is out of range, without an error.
    if len(index) != len(sizes) or any(not -size <= i < size for i, size in zip(index, sizes, strict=True)):
        shown = index[0] if len(index) == 1 else index
        raise TargetError(f"{what} {shown} does not name a value of {where}, which has {sizes} values without samples")


def _one_value_each(function: Callable[[Any], Any], samples: int) -> Callable[[Any], Any]:
    def one_value(output: Any) -> Any:
        values = function(output)
        if isinstance(values, list | tuple):
            values = tf.stack([tf.convert_to_tensor(value) for value in values]) if values else tf.zeros(0)
        values = tf.convert_to_tensor(values)
        if values.shape.rank > 0 and values.shape.num_elements() != samples:
            raise TargetError(
                f"the target (or neuron) function gives values of shape {tuple(values.shape)} for {samples} samples; "
                "it must return one value for each sample"
            )
        return values

    return one_value


def _only_value(output: Any) -> Any:
    if output.shape.num_elements() != output.shape[0]:
        raise TargetError(
            f"the model gives {tuple(output.shape[1:])} values for each sample; `target` must say which one to explain"
        )
    return tf.reshape(output, (output.shape[0],))


def _name(score: Any) -> str:
    return getattr(score, "__name__", type(score).__name__)
