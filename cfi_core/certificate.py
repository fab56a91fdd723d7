"""Measured evidence that a translated model computes the same as the original.

Both models run on the user's own inputs and on random ones of the same mean, spread and range. Compared are the outputs
of all samples and, of the first ones, the input gradients of one fixed random combination of all outputs, taken before
a final softmax. The verdict separates faults from rounding; a doubt is decided in double precision.
`docs/certificates.md` tells the rules, the constants below are their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cfi_core.errors import NoGradientError
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.framework.axes import Arrays, Permutation, permutation_at, permute_all, unpermute

OUTPUT_DOUBT, GRADIENT_DOUBT = 2e-6, 1e-5  # up to here rounding; in double precision anything above is a fault
CONSTANTS = 0.02  # share of the original's own rounding that comes from constants which a translation keeps in float32
SIMILAR = 2.0  # times a difference that was found to be rounding on other inputs
MOST_SIMILAR = 1e-2  # no difference of gradients above this is taken for like one before
DOUBLE_SAMPLES = 2  # of those whose outputs differ most, and of those whose gradients do
OUTPUT_TOLERANCE = 1e-4
BRIDGE_TOLERANCE = 1e-5  # the same model runs on both sides: only a compiled run may round differently
GRADIENT_TOLERANCE = 1e-3
FLOOR_FACTOR = 5.0
FLOOR_DRAWS = 4
ROUNDING = 5e-6  # relative difference of outputs that rounding alone can cause in deep float32 networks
MOST_STEPS = 256.0  # units in the last place by which inputs are moved at the most to cause it
MOST_OUTPUT_ROUNDING = 1e-3  # no difference of outputs above this is put down to rounding
OWN_SHARE = 5.0  # a difference of more than so many times the model's own rounding is not put down to it
MOST_ROUNDING = 0.25  # no difference of gradients above this is put down to rounding
GRADIENT_SAMPLES = 8
PROBES = 2

NO_ROUNDING = (0.0, 0.0)
_YOURS, _RANDOM = "your inputs", "random inputs"
_IN_SINGLE = "judged in single precision"
_HEADINGS = ("", "samples", "outputs", "largest", "top class", "gradients", "cosine")  # of a measurement's fields
_FORMATS = ("", "", ".1e", ".1e", ".0%", ".1e", ".6f")


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models, and the axes on which it differs from the user's."""

    adapter: FrameworkAdapter
    model: Any
    input_axes: tuple[Permutation, ...] = ()
    output_axes: tuple[Permutation, ...] = ()

    def without_softmax(self, arrays: Arrays) -> Side | None:
        """The same without a final softmax; None if there is none."""
        model = self.adapter.without_softmax(self.adapter.twin(self.model), self.tensors(arrays))
        return None if model is None else replace(self, model=model)

    @cached_property
    def in_double(self) -> Side | None:
        """A copy in double precision, made when it is first asked for; None if there is no such model."""
        model = self.adapter.in_double(self.model)
        return None if model is None else replace(self, model=model)

    def outputs(self, arrays: Arrays) -> list[np.ndarray]:
        """Outputs for inputs in the user's axes, in the user's axes."""
        outputs = flatten(self.adapter.outputs(self.model, self.tensors(arrays)))
        return [unpermute(output, permutation_at(self.output_axes, i)) for i, output in enumerate(outputs)]

    def gradients(self, arrays: Arrays, cotangents: Arrays) -> list[np.ndarray]:
        """Input gradients of the combination of outputs, all in the user's axes; integer inputs have none."""
        cotangents = permute_all(cotangents, self.output_axes)
        gradients = enumerate(self.adapter.vjp(self.model, self.tensors(arrays), cotangents))
        return [unpermute(one, permutation_at(self.input_axes, i)) for i, one in gradients if one is not None]

    def tensors(self, arrays: Arrays) -> list[Any]:
        """Tensors for this model, of arrays in the user's axes."""
        return [self.adapter.tensor(array, self.model) for array in permute_all(arrays, self.input_axes)]


@dataclass(frozen=True)
class Measurement:
    """How far two models are apart on one set of samples.

    Attributes:
        samples_of: `"your inputs"` or `"random inputs"`.
        samples: How many.
        output_difference: L2 norm of the difference over the L2 norm of the original's, for the output where it
            is largest.
        largest_difference: Largest absolute difference of any output value.
        top_class_agreement: Share of samples whose largest output is at the same index.
        gradient_difference: Like `output_difference`, for the input gradients; None if not measurable.
        gradient_cosine: Cosine of the angle between the input gradients; None if not measurable.
    """

    samples_of: str
    samples: int
    output_difference: float
    largest_difference: float
    top_class_agreement: float
    gradient_difference: float | None
    gradient_cosine: float | None


@dataclass(frozen=True)
class Divergence:
    """Where two models part.

    Attributes:
        layer: First layer of the original whose counterpart by name gives something else.
        counterpart: The layer of that name in the translated model.
        difference: Relative L2 difference of the two activations; infinite if their shapes do not fit, or for NaN.
    """

    layer: str
    counterpart: str
    difference: float

    def __str__(self) -> str:
        apart = f"by {self.difference:.1e}" if np.isfinite(self.difference) else "in shape, or is not finite"
        return f"the first layer that differs is {self.layer!r} ({apart})"


@dataclass(frozen=True)
class Certificate:
    """The measurements and the verdict; print it to read it, or `report()` for all of it.

    Attributes:
        measurements: On the user's inputs and on random ones.
        gradient_floor: The original's own rounding floor, where it had to be measured: how far its gradient in single
            precision is from the one in double precision, or from that at inputs next to these.
        in_double: The differences in double precision, where there was a doubt and both models have it.
        faults: What speaks against the translation; empty if it is faithful.
        notes: What could not be measured.
        layers_found: Layers of the original that were found in the translated model by their activations.
        layers_total: Layers of the original whose activation could be compared.
        layer_difference: Largest relative L2 difference of the activations of a layer and its counterpart.
        divergence: Of an unfaithful translation, where it goes wrong, if layers' names tell.
        rounding: Largest differences of outputs and of gradients that double precision has shown to be rounding, on the
            user's inputs of this call and of those before.
    """

    measurements: tuple[Measurement, ...]
    gradient_floor: float | None = None
    in_double: tuple[Measurement, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers_found: int = 0
    layers_total: int = 0
    layer_difference: float | None = None
    divergence: Divergence | None = None
    rounding: tuple[float, float] = NO_ROUNDING

    @property
    def has_double(self) -> bool:
        """Whether nothing speaks against copies of both models in double precision, as far as they were tried."""
        return not any(note.startswith(_IN_SINGLE) for note in self.notes)

    @property
    def faithful(self) -> bool:
        """Whether the translated model computes the same within rounding."""
        return not self.faults

    def __str__(self) -> str:
        text = f"{'faithful' if self.faithful else 'UNFAITHFUL'}: {_largest_of(self.measurements, 'differ by')}"
        if self.in_double:
            text += f" (in double precision: {_largest_of(self.in_double, 'by')})"
        if self.gradient_floor is not None:
            text += f" (rounding floor of the model: {self.gradient_floor:.1e})"
        if self.layers_total:
            text += f"; {self.layers_found} of {self.layers_total} layers found"
        if self.layer_difference is not None:
            text += f", activations differ by up to {self.layer_difference:.1e}"
        return "; ".join([text, *self.faults, *([str(self.divergence)] if self.divergence else []), *self.notes])

    def report(self) -> str:
        """All measurements, one to a line."""
        precise = [replace(one, samples_of=f"{one.samples_of}, in double precision") for one in self.in_double]
        fields = [zip(astuple(one), _FORMATS, strict=True) for one in (*self.measurements, *precise)]
        rows = [_HEADINGS, *(["-" if value is None else format(value, form) for value, form in row] for row in fields)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join([str(self), *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)])


def _largest_of(measurements: Sequence[Measurement], verb: str) -> str:
    outputs = np.max([one.output_difference for one in measurements] or [np.inf])
    gradients = [one.gradient_difference for one in measurements if one.gradient_difference is not None]
    return f"outputs {verb} {outputs:.1e}" + (f", input gradients by {np.max(gradients):.1e}" if gradients else "")


def certify(
    original: Side, translated: Side, arrays: Arrays, seed: int = 0, earlier: Certificate | None = None
) -> Certificate:
    """Compares two models.

    Args:
        original: The model.
        translated: The translated model.
        arrays: The user's inputs, sample axis first, in the user's axes.
        seed: Seeds the random inputs and the random combination of outputs.
        earlier: Of the same two models on other inputs, if faithful: random inputs are not measured again, and
            differences like those that were rounding then are.

    Returns:
        The certificate, with the earlier one's counts of layers or none.
    """
    generator = np.random.default_rng(seed)
    pair = _Pair((original, translated), generator, [array[:1] for array in arrays])
    yours = _judge(_compare(pair, arrays, _YOURS), NO_ROUNDING if earlier is None else earlier.rounding)
    if earlier is not None:
        return _join(yours, replace(earlier, notes=tuple(note for note in earlier.notes if _RANDOM in note)))
    # A model may take a fixed number of samples.
    for samples in dict.fromkeys((PROBES, len(arrays[0]))):
        noise = random_like(arrays, samples, generator)
        if computes(original, noise):
            return _join(yours, _judge(_compare(pair, noise, _RANDOM), NO_ROUNDING))
    note = "not compared on random inputs, which the original itself does not take"
    return replace(yours, notes=(*yours.notes, note))


def certify_bridge(
    original: Side, bridged: Side, arrays: Arrays, seed: int = 0, *, gradients: bool = True
) -> Certificate:
    """Compares a model with itself inside another framework.

    A bridge runs the model itself, so there is no need for other samples than some of the user's: what could go wrong
    is the crossing of values, axes and gradients, which are compared only if they are needed.
    """
    pair = _Pair((original, bridged), np.random.default_rng(seed))
    compared = _compare(pair, arrays, _YOURS, gradients=gradients)
    tolerance = bridge_tolerance(compared.outputs[0])
    faults = _faults("outputs", compared.measurement, tolerance)
    certificate = Certificate((compared.measurement,), faults=faults, notes=compared.notes)
    return _judge_gradients(certificate, compared, max(GRADIENT_TOLERANCE, tolerance))


def bridge_tolerance(outputs: Arrays) -> float:
    """Relative difference that a compiled run of the same model may have from an eager one."""
    units = [float(np.finfo(output.dtype).eps) for output in outputs if _is_floating(output)]
    singles = [np.ascontiguousarray(output) for output in outputs if output.dtype == np.float32]
    if any(not (single.view(np.uint32) & 0xFFFF).any() for single in singles):
        units.append(2.0**-8)  # bfloat16, which reaches numpy as float32
    return max(BRIDGE_TOLERANCE, 8 * max(units, default=0.0))


def gradient_tolerance(certificate: Certificate, tolerance: float) -> float:
    """Relative difference of gradients that is put down to rounding, where that of outputs is up to the tolerance."""
    floor = min(FLOOR_FACTOR * (certificate.gradient_floor or 0.0), MOST_ROUNDING)
    return max(GRADIENT_TOLERANCE, tolerance, floor)


def _join(yours: Certificate, other: Certificate) -> Certificate:
    """Your inputs by the one, random ones by the other, whose rounding floor is everybody's."""
    floors = [one.gradient_floor for one in (yours, other) if one.gradient_floor is not None]
    return replace(
        other,
        measurements=(*yours.measurements, *(one for one in other.measurements if one.samples_of == _RANDOM)),
        gradient_floor=max(floors, default=None),
        in_double=(*yours.in_double, *(one for one in other.in_double if one.samples_of == _RANDOM)),
        faults=(*yours.faults, *other.faults),
        notes=tuple(dict.fromkeys((*yours.notes, *other.notes))),
        rounding=yours.rounding,
    )


def _judge(compared: _Comparison, expected: tuple[float, float]) -> Certificate:
    """What one set of samples says, where differences (of outputs, of gradients) like those expected are rounding."""
    measured = compared.measurement
    certificate = Certificate((measured,), notes=compared.notes, rounding=expected)
    outputs, gradients = measured.output_difference, measured.gradient_difference or 0.0
    # All comparisons are written so that NaN is a fault or a doubt.
    if not outputs <= MOST_OUTPUT_ROUNDING:
        because = ""
        with suppress(Exception):  # models and devices may refuse another type in any way
            precise = compared.pair.models[0].in_double
            own = compared.rounding(0, precise.outputs(compared.most_different)) if precise else 0.0
            if own > OUTPUT_TOLERANCE and OWN_SHARE * own >= outputs:
                because = f"; in single precision your model's own outputs are wrong by {own:.1e}"
        return replace(certificate, faults=_faults("outputs", measured, MOST_OUTPUT_ROUNDING, because))
    similar = min(SIMILAR * expected[1], MOST_SIMILAR)
    if outputs <= max(OUTPUT_DOUBT, SIMILAR * expected[0]) and gradients <= max(GRADIENT_DOUBT, similar):
        return certificate
    with suppress(Exception):  # models and devices may refuse another type in any way and at any point
        rounding = (max(expected[0], outputs), max(expected[1], gradients))
        return replace(_judge_in_double(compared), rounding=rounding)
    note = f"{_IN_SINGLE} on {measured.samples_of}: one of the models has no other"
    faults = _faults("outputs", measured, OUTPUT_TOLERANCE)
    certificate = replace(certificate, faults=faults, notes=(*certificate.notes, note))
    return certificate if faults else _judge_gradients(certificate, compared, GRADIENT_TOLERANCE)


def _judge_in_double(compared: _Comparison) -> Certificate:
    """The same measurement in double precision on the samples that differ most, and the original's rounding.

    Raises:
        TypeError: A model has no copy in double precision, or one that is not the model: its outputs are others than
            rounding explains. What else the models raise passes.
    """
    precise = _compare(compared.pair.in_double, compared.most_different, compared.measurement.samples_of)
    own, other = (compared.rounding(which, outputs) for which, outputs in enumerate(precise.outputs))
    lacks_gradients = precise.gradients is None and compared.gradients is not None
    if lacks_gradients or not (own <= MOST_OUTPUT_ROUNDING and other <= MOST_OUTPUT_ROUNDING):
        raise TypeError("the copy in double precision computes something else")
    floor, measured, because = 0.0, precise.measurement, " in double precision"
    if precise.gradients is not None:
        cotangents = [value.astype(np.float32) for value in precise.cotangents]
        floor = relative_difference(precise.gradients[0], compared.pair.heads[0].gradients(precise.samples, cotangents))
    faults = (
        *_faults("outputs", measured, max(OUTPUT_DOUBT, CONSTANTS * own), because),
        *_faults("input gradients", measured, max(GRADIENT_DOUBT, CONSTANTS * floor), because),
    )
    return Certificate((compared.measurement,), floor, (measured,), faults, compared.notes)


def _judge_gradients(certificate: Certificate, compared: _Comparison, tolerance: float) -> Certificate:
    """With the rounding floor, if gradients differ by more than the tolerance, and a fault, if it explains them not."""
    difference = compared.measurement.gradient_difference
    if difference is None or difference <= tolerance:
        return certificate
    floor, faults = _rounding_floor(compared), certificate.faults
    if not difference <= min(FLOOR_FACTOR * floor, MOST_ROUNDING):
        because = f", rounding floor {floor:.1e}"
        faults += _faults("input gradients", compared.measurement, GRADIENT_TOLERANCE, because)
    return replace(certificate, gradient_floor=floor, faults=faults)


def _faults(what: str, measured: Measurement, tolerance: float, because: str = "") -> tuple[str, ...]:
    """One, if outputs or input gradients differ by more than the tolerance."""
    difference = measured.output_difference if what == "outputs" else measured.gradient_difference or 0.0
    text = f"{what} on {measured.samples_of} differ by {difference:.1e} (tolerance {tolerance:.0e}{because})"
    return () if difference <= tolerance else (text,)


@dataclass(frozen=True, eq=False)
class _Pair:
    models: tuple[Side, Side]  # the original and the translated model
    generator: np.random.Generator
    example: Arrays = ()  # one sample that they take; without it a softmax stays where it is

    @cached_property
    def heads(self) -> tuple[Side, Side]:
        """Both without a final softmax, where both end in one.

        A saturated softmax has no gradient left to compare, and many methods explain what comes before it.
        """
        cut, other_cut = (side.without_softmax(self.example) if self.example else None for side in self.models)
        return self.models if cut is None or other_cut is None else (cut, other_cut)

    @cached_property
    def in_double(self) -> _Pair:
        original, translated = (side.in_double for side in self.models)
        if original is None or translated is None:
            raise TypeError("one of the models has no other precision")
        return _Pair((original, translated), self.generator, _in_double(self.example))


@dataclass(frozen=True, eq=False)
class _Comparison:
    """What the original and the translated model gave for the same samples."""

    pair: _Pair
    samples: Arrays
    outputs: tuple[Arrays, Arrays]
    measurement: Measurement  # how far all of it is apart
    notes: tuple[str, ...]
    cotangents: Arrays = ()  # of the combination of outputs whose gradients were taken
    gradients: tuple[Arrays, Arrays] | None = None  # of the first samples; None if not measurable

    @cached_property
    def _chosen(self) -> list[int]:
        """Positions of the samples whose outputs, and of those whose gradients differ most."""
        chosen: set[int] = set()
        for given in filter(None, (self.outputs, self.gradients)):
            distances = [
                np.linalg.norm((a - b).reshape(len(a), -1).astype(np.float64), axis=1) / (np.linalg.norm(a) or 1.0)
                for a, b in zip(*given, strict=True)
            ]
            chosen.update(np.argsort(np.max(distances, axis=0))[-DOUBLE_SAMPLES:].tolist())  # NaN comes last
        return sorted(chosen)

    @property
    def most_different(self) -> list[np.ndarray]:
        """The samples that differ most, as both precisions hold them exactly."""
        return _in_double([array[self._chosen] for array in self.samples])

    def rounding(self, which: int, precise: Arrays) -> float:
        """How far the outputs of one of the models are from those of its copy in double precision for these samples."""
        if any(output.dtype != np.float64 for output in precise):
            raise TypeError("the copy does not compute in double precision")
        return relative_difference(precise, [output[self._chosen] for output in self.outputs[which]])


def _compare(pair: _Pair, arrays: Arrays, label: str, *, gradients: bool = True) -> _Comparison:
    first = [array[:GRADIENT_SAMPLES] for array in arrays]
    outputs, others = both = pair.models[0].outputs(arrays), pair.models[1].outputs(arrays)
    shapes, other_shapes = ([output.shape for output in given] for given in both)
    if shapes != other_shapes:
        nothing = Measurement(label, len(arrays[0]), np.inf, np.inf, 0.0, None, None)
        note = f"outputs have shapes {other_shapes} instead of {shapes}"
        return _Comparison(pair, arrays, both, nothing, (note,))
    known = pair.heads is pair.models and len(arrays[0]) <= GRADIENT_SAMPLES
    combined, draw = outputs if known else pair.heads[0].outputs(first), pair.generator.standard_normal
    # Scaled, so that no output is too small to count.
    cotangents = [(draw(one.shape) / (float(one.std()) or 1.0)).astype(one.dtype) for one in combined]
    found, note = None, "input gradients not compared (the method needs none)"
    if gradients:
        found, note = _input_gradients(pair, first, cotangents)
    if found is not None and not any(part.any() for part in found[0]):
        note = f"the input gradient vanishes on {label}"
    tops = ([one.reshape(one.shape[0], -1).argmax(axis=1) for one in given] for given in both)
    measurement = Measurement(
        label,
        len(arrays[0]),
        relative_difference(outputs, others),
        float(np.max([np.abs(a - b).max() for a, b in zip(outputs, others, strict=True)])),
        float(np.mean([np.mean(a == b) for a, b in zip(*tops, strict=True)])),
        *((None, None) if found is None else (relative_difference(*found), _cosine(*found))),
    )
    return _Comparison(pair, arrays, both, measurement, (note,) if note else (), cotangents, found)


def _input_gradients(pair: _Pair, arrays: Arrays, cotangents: Arrays) -> tuple[tuple[Arrays, Arrays] | None, str]:
    """Of both models; None if not measurable, and why."""
    try:
        gradients, others = (side.gradients(arrays, cotangents) for side in pair.heads)
    except NoGradientError as error:
        return None, f"input gradients not compared ({error})"
    return ((gradients, others) if gradients and len(gradients) == len(others) else None), ""


def _rounding_floor(compared: _Comparison) -> float:
    """Largest relative change of the original's gradient when its outputs move by no more than rounding moves them."""
    original, generator = compared.pair.heads[0], compared.pair.generator
    arrays = [array[:GRADIENT_SAMPLES] for array in compared.samples]
    outputs, gradient = original.outputs(arrays), original.gradients(arrays, compared.cotangents)
    # Rounding happens in every layer, and moving the inputs stands for all of it: they are moved by as many units
    # in the last place as it takes to move the outputs by what rounding can do to deep networks. A gradient
    # that moves does so in leaps, whenever one unit passes the edge of its ReLU, so it takes several draws.
    steps = 1.0
    while steps < MOST_STEPS:
        if relative_difference(outputs, original.outputs(_move(arrays, steps, generator))) >= ROUNDING:
            break
        steps *= 4
    draws = (original.gradients(_move(arrays, steps, generator), compared.cotangents) for _ in range(FLOOR_DRAWS))
    return float(np.max([relative_difference(gradient, moved) for moved in draws]))


def _move(arrays: Arrays, steps: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Inputs moved up or down, at random, by some units in the last place."""
    return [
        array + steps * np.spacing(np.abs(array)) * generator.choice([-1, 1], array.shape).astype(array.dtype)
        if _is_floating(array)
        else array
        for array in arrays
    ]


def computes(side: Side, arrays: Arrays) -> bool:
    """Whether the model takes these inputs and gives finite outputs for them."""
    try:
        return all(bool(np.isfinite(output).all()) for output in side.outputs(arrays))
    except Exception:  # noqa: BLE001 - the user's model may refuse what it was not made for, in any way
        return False


def random_like(arrays: Arrays, samples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Random inputs of the same type, mean, spread and range; integers are drawn from the values that occur."""
    drawn = []
    for array in arrays:
        shape = (samples, *array.shape[1:])
        if not _is_floating(array):
            drawn.append(generator.choice(array.ravel(), shape))
        elif array.std() > 0:
            noise = generator.normal(float(array.mean()), float(array.std()), shape)
            drawn.append(noise.clip(array.min(), array.max()).astype(array.dtype))
        else:
            drawn.append((array.ravel()[0] + generator.normal(size=shape)).astype(array.dtype))
    return drawn


def _in_double(arrays: Arrays) -> list[np.ndarray]:
    """Samples that both precisions hold exactly."""
    return [array.astype(np.float32).astype(np.float64) if _is_floating(array) else array for array in arrays]


def _is_floating(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


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


def _cosine(a: Arrays, b: Arrays) -> float:
    x, y = (np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in arrays]) for arrays in (a, b))
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms > 0 else float(np.array_equal(x, y))
