"""How far two models are apart on the same samples: what is run, and how differences are taken.

A difference is relative, and counts where it is largest: for each output and input by itself, for each column of the
outputs against its own size, and for gradients both as they are (what saliency shows) and times the size that each
feature has (what gradient times input shows), so that nothing large hides what is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from cfi_core.display import outline
from cfi_core.framework import FrameworkAdapter, Runner, flatten
from cfi_core.framework.axes import Arrays, Permutation, permutation_at, permute, permute_all, unpermute
from cfi_core.progress import count

SMALLEST = 1e-8  # share of the largest size that counts as a column's own, where it has less


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models, and the axes on which it differs from the user's."""

    adapter: FrameworkAdapter
    model: Any
    input_axes: tuple[Permutation, ...] = ()
    output_axes: tuple[Permutation, ...] = ()
    compiled: Any = None  # stands for the model in passes, where there is one

    def without_softmax(self, arrays: Arrays) -> Side | None:
        """The same without a final softmax; None if there is none."""
        model = self.adapter.without_softmax(self.adapter.twin(self.model), self.tensors(arrays))
        return None if model is None else replace(self, model=model, compiled=None)

    @cached_property
    def in_double(self) -> Side | None:
        """A copy in double precision, made when it is first asked for; None if there is no such model."""
        model = self.adapter.in_double(self.model)
        return None if model is None else replace(self, model=model, compiled=None)

    @property
    def runs(self) -> Any:
        """What is run: the model, or what stands for it."""
        return self.model if self.compiled is None else self.compiled

    @property
    def first(self) -> int:
        """Position of the first input that gradients are taken of."""
        return 0

    @cached_property
    def unit(self) -> float:
        """The unit in the last place of 1 in the type in which the model takes its inputs."""
        bits = (52, 23, 10, 7)  # of double, single, half precision and bfloat16
        kept = (
            one for one in bits if self.adapter.to_numpy(self.adapter.tensor(np.array([1 + 2.0**-one]), self.model)) > 1
        )
        return float(2.0 ** -next(kept, bits[-1]))

    def outputs(self, arrays: Arrays) -> list[np.ndarray]:
        """Outputs for inputs in the user's axes, in the user's axes."""
        found = flatten(self.adapter.outputs(self.runs, self.tensors(arrays)))
        count(len(arrays[0]))
        return self.at_home(found)

    def gradients(
        self, arrays: Arrays, cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of the pass that records gradients, and input gradients of the combination of outputs.

        All in the user's axes; integer inputs have no gradient.
        """
        pairs = enumerate(cotangents)
        turned = [None if one is None else permute(one, permutation_at(self.output_axes, i)) for i, one in pairs]
        outputs, found = self.adapter.vjp(self.runs, self.tensors(arrays), turned)
        count(len(arrays[0]))
        gradients = [
            unpermute(one, permutation_at(self.input_axes, i)) for i, one in enumerate(found) if one is not None
        ]
        return self.at_home(outputs), gradients

    def tensors(self, arrays: Arrays) -> list[Any]:
        """Tensors for this model, of arrays in the user's axes."""
        return [self.adapter.tensor(array, self.model) for array in permute_all(arrays, self.input_axes)]

    def at_home(self, outputs: Arrays) -> list[np.ndarray]:
        """This model's outputs in the user's axes."""
        return [unpermute(output, permutation_at(self.output_axes, i)) for i, output in enumerate(outputs)]


@dataclass(frozen=True, eq=False)
class Opened(Side):
    """A side whose inputs are followed by what takes the place of the activations of some layers.

    Gradients are those at these layers.

    Attributes:
        layers: Their names.
        inputs: How many inputs the model has.
    """

    layers: tuple[str, ...] = ()
    inputs: int = 0

    @property
    def first(self) -> int:
        """As of any side."""
        return self.inputs

    def outputs(self, arrays: Arrays) -> list[np.ndarray]:
        """As of any side."""
        runner, values = self._open(arrays)
        return self._come_home(runner.run(len(self.layers), values))

    def gradients(
        self, arrays: Arrays, cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As of any side, but at the layers."""
        runner, values = self._open(arrays)
        outputs, pull = runner.linearize(len(self.layers), values)
        turned = (None if one is None else self._turn(one, self.output_axes, i) for i, one in enumerate(cotangents))
        wanted = [i >= self.inputs for i in range(len(values))]
        found = dict(zip(runner.layers, pull([*turned], wanted)[self.inputs :], strict=True))
        gradients = []
        for i, (name, array) in enumerate(zip(self.layers, arrays[self.inputs :], strict=True), self.inputs):
            gradient = found[name]
            given = np.zeros_like(array) if gradient is None else self.adapter.to_numpy(gradient)
            gradients.append(given if gradient is None else unpermute(given, permutation_at(self.input_axes, i)))
        return self._come_home(outputs), gradients

    def _open(self, arrays: Arrays) -> tuple[Runner, list[Any]]:
        tensors = self.tensors(arrays)
        runner = self.adapter.runner(self.model, tensors[: self.inputs], self.layers)
        given = dict(zip(self.layers, tensors[self.inputs :], strict=True))
        return runner, [*tensors[: self.inputs], *(given[name] for name in runner.layers)]

    def _turn(self, array: np.ndarray, axes: Sequence[Permutation], position: int) -> Any:
        return self.adapter.tensor(permute(array, permutation_at(axes, position)), self.model)

    def _come_home(self, outputs: Sequence[Any]) -> list[np.ndarray]:
        return self.at_home([self.adapter.to_numpy(one) for one in outputs])


@dataclass(frozen=True, eq=False)
class Sizes:
    """What differences are relative to, besides the original's norms.

    Attributes:
        outputs: Of each output, one array for each axis that may hold its columns (axis 1 and the last): root mean
            squares, of a shape that goes with the output.
        recorded: The same of what gradients are taken of (the outputs, or what comes before a final softmax).
        inputs: Of each floating point input, the root mean square of each feature.
    """

    outputs: _Columns
    recorded: _Columns
    inputs: Arrays

    __repr__ = outline

    @classmethod
    def measure(cls, outputs: Sequence[Arrays], recorded: Sequence[Arrays], inputs: Arrays) -> Sizes:
        """Of what a model gives for several sets of samples together, and of some inputs."""
        columns, others = (tuple(map(_column_sizes, zip(*several, strict=True))) for several in (outputs, recorded))
        return cls(columns, others, [_root_mean_square([one], (0,)) for one in inputs if is_floating(one)])

    def larger(self, other: Sizes | None) -> Sizes:
        """Each column's size here or there, where it is larger, as far as the outputs are of the same shape."""
        if other is None:
            return self
        return replace(
            self, outputs=_larger(self.outputs, other.outputs), recorded=_larger(self.recorded, other.recorded)
        )

    def draw(self, recorded: Arrays, generator: np.random.Generator) -> list[np.ndarray]:
        """A random combination of all outputs in which every column counts for as much as any other."""
        return [
            (generator.standard_normal(one.shape) / _own_size(sizes)).astype(one.dtype)
            for one, sizes in zip(recorded, self.recorded, strict=True)
        ]


_Columns = tuple[tuple[np.ndarray, ...], ...]


def _larger(columns: _Columns, others: _Columns) -> _Columns:
    shapes, other_shapes = ([one.shape for output in each for one in output] for each in (columns, others))
    if shapes != other_shapes:
        return columns
    return tuple(tuple(map(np.maximum, *pair)) for pair in zip(columns, others, strict=True))


def _column_sizes(outputs: Arrays) -> tuple[np.ndarray, ...]:
    rank = outputs[0].ndim
    axes = dict.fromkeys((1, rank - 1)) if rank > 1 else (0,)
    return tuple(_root_mean_square(outputs, tuple(i for i in range(rank) if i != axis or not axis)) for axis in axes)


def _root_mean_square(arrays: Arrays, axes: tuple[int, ...]) -> np.ndarray:
    """Over some axes of several arrays together, which stay as axes of length one; values that are not finite aside."""
    finite = [np.where(np.isfinite(one), one, 0).astype(np.float64) for one in arrays]
    totals = [np.sum(one**2, axes, keepdims=True) for one in finite]
    return np.sqrt(sum(totals) / max(1, sum(one.size // max(1, totals[0].size) for one in finite)))


def _own_size(sizes: tuple[np.ndarray, ...]) -> np.ndarray:
    """The smallest size that speaks of each value; no less than a share of the largest of all, and 1 for nothing."""
    found = sizes[0] if len(sizes) == 1 else np.minimum(*np.broadcast_arrays(*sizes))
    largest = float(found.max(initial=0.0))
    return np.maximum(found, SMALLEST * largest) if largest > 0 else np.ones_like(found)


@dataclass(frozen=True, eq=False)
class Results:
    """What a model gave for some samples.

    Attributes:
        outputs: Of the pass that records no gradients.
        recorded: Of the pass that records them, up to a final softmax; None where there are no gradients.
        gradients: Of its inputs; None where there are none.
    """

    outputs: Arrays
    recorded: Arrays | None = None
    gradients: Arrays | None = None

    def split(self, counts: Sequence[int]) -> list[Results]:
        """The same for each set of samples, of which there are so many.

        Raises:
            ValueError: The model gives something else than a row for each sample.
        """
        ends = [0, *np.cumsum(counts)]
        arrays = [*self.outputs, *(self.recorded or ()), *(self.gradients or ())]
        if any(one.shape[:1] != (ends[-1],) for one in arrays):
            raise ValueError("not a row for each sample")
        return [self.take(range(*ends[i : i + 2])) for i in range(len(counts))]

    def take(self, places: Sequence[int]) -> Results:
        """Some rows."""
        parts = (self.outputs, self.recorded, self.gradients)
        outputs, recorded, gradients = (None if one is None else [each[places] for each in one] for one in parts)
        assert outputs is not None
        return Results(outputs, recorded, gradients)

    def put(self, places: Sequence[int], rows: Results) -> Results:
        """The same with other rows at these places."""

        def mixed(ours: Arrays | None, theirs: Arrays | None) -> list[np.ndarray] | None:
            if ours is None or theirs is None:
                return None
            made = [np.array(one) for one in ours]
            for one, other in zip(made, theirs, strict=True):
                one[places] = other
            return made

        outputs = mixed(self.outputs, rows.outputs)
        assert outputs is not None
        return Results(outputs, mixed(self.recorded, rows.recorded), mixed(self.gradients, rows.gradients))


@dataclass(frozen=True)
class Apart:
    """How far two results are apart, or may be: relative differences.

    Attributes:
        outputs: L2 norm of the difference over the L2 norm of the original's, for the output where it is largest.
        columns: Root mean square of the difference of one column of an output over that column's own size.
        gradients: Like `outputs`, for the input gradients, as they are or times the sizes of the features.
    """

    outputs: float = 0.0
    columns: float = 0.0
    gradients: float = 0.0

    def beyond(self, allowed: Apart) -> list[str]:
        """Names of the differences that are larger than those allowed; one that is no number always is."""
        return [name for name in self.names() if not self[name] <= allowed[name]]

    def times(self, factor: float) -> Apart:
        """Every difference times a factor."""
        return Apart(*(factor * self[name] for name in self.names()))

    @staticmethod
    def names() -> tuple[str, ...]:
        """Of the differences."""
        return ("outputs", "columns", "gradients")

    def __getitem__(self, name: str) -> float:
        return float(getattr(self, name))

    def larger(self, *others: Apart) -> Apart:
        """The largest of each."""
        return Apart(*(float(np.max([one[name] for one in (self, *others)])) for name in self.names()))

    def smaller(self, *others: Apart) -> Apart:
        """The smallest of each."""
        return Apart(*(float(np.min([one[name] for one in (self, *others)])) for name in self.names()))


def apart(reference: Results, other: Results, sizes: Sizes) -> Apart:
    """How far results are from those of a reference, for the same samples."""
    passes = [(reference.outputs, other.outputs, sizes.outputs)]
    if reference.recorded is not None and other.recorded is not None:
        passes.append((reference.recorded, other.recorded, sizes.recorded))
    outputs = [relative_difference(one, another) for one, another, _ in passes]
    columns = [found for each in passes for known in zip(*each, strict=True) for found in _of_columns(*known)]
    gradients = 0.0
    if reference.gradients is not None and other.gradients is not None:
        gradients = gradient_difference(reference.gradients, other.gradients, sizes.inputs)
    return Apart(float(np.max(outputs)), float(np.max(columns)), gradients)


def _of_columns(reference: np.ndarray, other: np.ndarray, known: tuple[np.ndarray, ...]) -> Iterator[float]:
    """Of each way to see columns, the largest difference of one."""
    with np.errstate(invalid="ignore"):
        difference = np.where(reference == other, 0, reference.astype(np.float64) - other)
    for sizes, own in zip(known, _column_sizes([reference]), strict=True):
        axes = tuple(axis for axis, length in enumerate(sizes.shape) if length == 1)
        distance = np.sqrt(np.mean(difference**2, axis=axes, keepdims=True))
        yield float(np.max(distance / _own_size((np.maximum(sizes, own),)), initial=0.0))


def gradient_difference(reference: Arrays, other: Arrays, sizes: Arrays) -> float:
    """As the gradients are, and times the sizes of the features: the larger one."""
    scaled, others = ([one * size for one, size in zip(given, sizes, strict=True)] for given in (reference, other))
    return float(np.max([relative_difference(reference, other), relative_difference(scaled, others)]))


def gradient_differences(reference: Arrays, other: Arrays, sizes: Arrays) -> np.ndarray:
    """The same of each sample by itself."""
    alone = ([[one[i : i + 1] for one in each] for each in (reference, other)] for i in range(len(reference[0])))
    return np.array([gradient_difference(one, another, sizes) for one, another in alone])


def relative_difference(reference: Arrays, other: Arrays) -> float:
    """L2 norm of the difference over the L2 norm of the reference, for the array where it is largest.

    Not finite where NaN is in any of them; equal infinite values (masked scores) are no difference.
    """
    differences = []
    for pair in zip(reference, other, strict=True):
        a, b = (np.asarray(array, dtype=np.float64).ravel() for array in pair)
        if np.isinf(a).any():
            a, b = (one[(a != b) | np.isfinite(a)] for one in (a, b))
        norm, distance = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
        differences.append(distance / norm if norm > 0 else (0.0 if distance == 0 else np.inf))
    return float(np.max(differences))  # max() would lose NaN


def cosine(a: Arrays, b: Arrays) -> float:
    """Of the angle between two sets of arrays; of zeros, whether both are."""
    x, y = (np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in arrays]) for arrays in (a, b))
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms > 0 else float(np.array_equal(x, y))


@dataclass(frozen=True, eq=False)
class Pair:
    """Both models, the original first.

    Attributes:
        models: As they are.
        example: One sample that they take; without it a softmax stays where it is.
        asked: Positions of the outputs that count; None for all.
        taken: Positions of the gradients that count, among all that the sides give; None for all.
        by_sample: Whether the original is known to be a function of each sample alone: several sets of samples may go
            through it in one pass.
    """

    models: tuple[Side, Side]
    example: Arrays = ()
    asked: tuple[int, ...] | None = None
    taken: tuple[int, ...] | None = None
    by_sample: bool = False
    known: list[tuple[Side, Arrays, Arrays]] = field(default_factory=list)  # outputs of a model for some inputs

    @cached_property
    def heads(self) -> tuple[Side, Side]:
        """Both without a final softmax, where both end in one.

        A saturated softmax has no gradient left to compare, and many methods explain what comes before it.
        """
        cut, other_cut = (side.without_softmax(self.example) if self.example else None for side in self.models)
        return self.models if cut is None or other_cut is None else (cut, other_cut)

    @cached_property
    def in_double(self) -> Pair:
        """Both in double precision.

        Raises:
            TypeError: One of them has no such copy.
        """
        original, translated = (side.in_double for side in self.models)
        if original is None or translated is None:
            raise TypeError("one of the models has no other precision")
        return replace(self, models=(original, translated), example=to_double(self.example), known=[])

    def run(
        self,
        which: int,
        arrays: Arrays,
        cotangents: Sequence[np.ndarray | None] | None = None,
        *,
        recorded_alone: bool = False,
    ) -> Results:
        """What one of the models gives; with gradients for cotangents of the outputs, if it has any.

        Args:
            which: 0 for the original, 1 for the other.
            arrays: Inputs.
            cotangents: For each output; None for no gradients.
            recorded_alone: The pass that records gradients stands for the other one, too.

        Raises:
            NoGradientError: It has none.
        """
        if cotangents is None:
            return Results(_pick(self.outputs(self.models[which], arrays), self.asked))
        recorded, gradients = self.heads[which].gradients(arrays, cotangents)
        outputs = recorded if recorded_alone else self.outputs(self.models[which], arrays)
        return Results(_pick(outputs, self.asked), _pick(recorded, self.asked), _pick(gradients, self.taken))

    def outputs(self, side: Side, arrays: Arrays) -> Arrays:
        """What one of the models or heads gives, run once for the same arrays."""
        for known, inputs, outputs in self.known:
            if known is side and inputs is arrays:
                return outputs
        self.known.append((side, arrays, side.outputs(arrays)))
        return self.known[-1][2]

    def run_each(
        self, which: int, sets: Sequence[Arrays], cotangents: Sequence[Sequence[np.ndarray | None] | None]
    ) -> list[Results]:
        """Like `run` for several sets of samples, of the passes that record gradients; in one pass where it may be.

        Raises:
            NoGradientError: It has none.
        """
        if which == 0 and self.by_sample and len(sets) > 1:
            # A model may take a certain number of samples only, or fail on more in any way.
            with suppress(Exception):
                given = [one for one in cotangents if one is not None]
                joint = _concatenate(given) if given else None
                whole = self.run(which, _concatenate(sets), joint, recorded_alone=True)
                return whole.split([len(arrays[0]) for arrays in sets])
        pairs = zip(sets, cotangents, strict=True)
        return [self.run(which, arrays, given, recorded_alone=True) for arrays, given in pairs]

    def outputs_each(self, side: Side, sets: Sequence[Arrays]) -> list[Arrays]:
        """Like `outputs` of the original (or its head) for several sets of samples; in one pass where it may be."""
        unknown = [arrays for arrays in sets if not any(of is side and one is arrays for of, one, _ in self.known)]
        if self.by_sample and len(unknown) > 1:
            with suppress(Exception):
                whole = Results(side.outputs(_concatenate(unknown)))
                parts = whole.split([len(arrays[0]) for arrays in unknown])
                self.known.extend((side, arrays, part.outputs) for arrays, part in zip(unknown, parts, strict=True))
        return [self.outputs(side, arrays) for arrays in sets]

    def computes(self, arrays: Arrays) -> bool:
        """Whether the original takes these inputs and gives finite outputs for them."""
        try:
            return all(bool(np.isfinite(output).all()) for output in self.outputs(self.models[0], arrays))
        except Exception:  # noqa: BLE001 - the user's model may refuse what it was not made for, in any way
            return False


def _concatenate(sets: Sequence[Sequence[Any]]) -> list[Any]:
    """Samples of several sets together; what is None in one of them is so in all."""
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*sets, strict=True)]


def _pick(arrays: Arrays, places: tuple[int, ...] | None) -> Arrays:
    return arrays if places is None else [arrays[place] for place in places]


def computes(side: Side, arrays: Arrays) -> bool:
    """Whether the model takes these inputs and gives finite outputs for them."""
    return Pair((side, side)).computes(arrays)


def random_like(arrays: Arrays, samples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Random inputs of the same type, mean, spread and range; integers are drawn from the values that occur.

    What would be out of range is drawn anew within it: moved to its ends it would make ties that the data lack.
    """
    drawn = []
    for array in arrays:
        shape = (samples, *array.shape[1:])
        if not is_floating(array):
            drawn.append(generator.choice(array.ravel(), shape))
        elif array.std() > 0:
            noise = generator.normal(float(array.mean()), float(array.std()), shape)
            low, high = float(array.min()), float(array.max())
            within = (noise >= low) & (noise <= high)
            drawn.append(np.where(within, noise, generator.uniform(low, high, shape)).astype(array.dtype))
        else:
            drawn.append((array.ravel()[0] + generator.normal(size=shape)).astype(array.dtype))
    return drawn


def move(arrays: Arrays, steps: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Inputs moved up or down, at random, by some units in the last place."""
    return [
        _move_values(array, steps, generator.choice([-1, 1], array.shape)) if is_floating(array) else array
        for array in arrays
    ]


def _move_values(array: np.ndarray, steps: float, signs: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(array), array + steps * np.spacing(np.abs(array)) * signs, array).astype(
            array.dtype
        )


def take(arrays: Sequence[np.ndarray | None], places: Sequence[int]) -> list[np.ndarray | None]:
    """Some rows of each."""
    return [None if one is None else one[places] for one in arrays]


def to_double(arrays: Arrays) -> list[np.ndarray]:
    """Samples that both precisions hold exactly."""
    return [array.astype(np.float32).astype(np.float64) if is_floating(array) else array for array in arrays]


def is_floating(array: np.ndarray) -> bool:
    """Whether it holds floating point values."""
    return bool(np.issubdtype(array.dtype, np.floating))


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Samples of the passes that a run made through the second model of a pair, in the user's axes.

    Attributes:
        pair: The models; what it asks of them is what was recorded.
        inputs: What went in, followed by what took the place of activations.
        outputs: What came out.
        cotangents: What the gradients were taken with, for each output of the models (None: zero); None where none
            were taken.
        gradients: What came back.
    """

    pair: Pair
    inputs: Arrays
    outputs: Arrays
    cotangents: Sequence[np.ndarray | None] | None = None
    gradients: Arrays = ()

    def resize(self, samples: int) -> Excerpt:
        """So many of the samples; some of them again, if there are not so many."""

        def repeat(arrays: Sequence[Any]) -> list[Any]:
            return [None if one is None else np.resize(one, (samples, *one.shape[1:])) for one in arrays]

        cotangents = None if self.cotangents is None else repeat(self.cotangents)
        return Excerpt(self.pair, repeat(self.inputs), repeat(self.outputs), cotangents, repeat(self.gradients))

    def take(self, places: Sequence[int]) -> Excerpt:
        """Some of the samples."""
        cotangents = None if self.cotangents is None else take(self.cotangents, places)
        parts = ([one[places] for one in arrays] for arrays in (self.inputs, self.outputs, self.gradients))
        inputs, outputs, gradients = parts
        return Excerpt(self.pair, inputs, outputs, cotangents, gradients)

    @property
    def results(self) -> Results:
        """What the second model gave in the run."""
        return Results(self.outputs, *((self.outputs, self.gradients) if self.gradients else ()))

    def sources(self) -> list[np.ndarray]:
        """Those inputs that gradients were taken of."""
        first = self.pair.models[0].first
        floating = [array for i, array in enumerate(self.inputs) if i >= first and is_floating(array)]
        return floating if self.pair.taken is None else [floating[i] for i in self.pair.taken]
