"""Measured evidence that a translated model computes the same as the original.

Both models run on the user's own inputs and on random ones of the same mean, spread and range, and what the run of a
method feeds to the translated model is measured afterwards on the original. There is one rule: a difference is rounding
up to a resolution, or up to a few times the rounding that was measured on these models at these samples; anything above
is a fault. `docs/certificates.md` tells the rule, the constants below are its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from cfi_core.display import html_table
from cfi_core.distance import (
    Apart,
    Excerpt,
    Pair,
    Results,
    Side,
    Sizes,
    apart,
    cosine,
    gradient_difference,
    gradient_differences,
    is_floating,
    move,
    random_like,
    relative_difference,
    take,
    to_double,
)
from cfi_core.errors import NoGradientError
from cfi_core.framework.axes import Arrays

RESOLUTION = Apart(outputs=5e-6, columns=1e-3, gradients=1e-5)
"""Up to here a difference is rounding without further questions."""

IN_DOUBLE = replace(RESOLUTION, outputs=2e-6)
"""In double precision anything above is a fault."""

IN_SINGLE = Apart(outputs=1e-4, columns=1e-3, gradients=1e-3)
"""The same where one of the models has no double precision, which would tell more."""

MOST = Apart(outputs=1e-3, columns=np.inf, gradients=np.inf)
"""No difference above this is put down to rounding: it would say nothing of the model any more."""

MOST_IN_SINGLE = Apart(outputs=IN_SINGLE.outputs, columns=np.inf, gradients=0.25)
"""The same where one of the models has no double precision."""

MOST_ROUNDING = Apart(outputs=1e-3, columns=np.inf, gradients=0.25)
"""No model's own rounding is taken to be more: a copy in double precision that is so far from it is another model."""

FLOOR_FACTOR = 5.0  # times the rounding that was measured: two models, each with rounding of its own, at other samples
CONSTANTS = 0.02  # share of the original's own rounding that comes from constants which a translation keeps in float32
DISTANCES = 6  # from one unit in the last place to all steps: a unit at its edge shows alone at one of them
DRAWS = (
    4 * DISTANCES
)  # at the most, of inputs next to the given ones, where rounding there does not explain a difference
IN_ROUNDS = (DISTANCES, DISTANCES, 2 * DISTANCES)  # draws that go through the original together, where they may
AT_EDGES = (*IN_ROUNDS, *3 * (2 * DISTANCES,))  # those of the original alone, to find what units at their edges do
PROMISING = 0.5  # share of a difference: as long as no more of it is left unexplained, such draws go on
FEATURES_EACH = 5  # of a sample, for each move of its gradient, so that moves explain nothing by chance
ENOUGH_FEATURES = FEATURES_EACH * DRAWS
ROUNDING = 5e-6  # by so much inputs next to each other move the outputs: what rounding does in deep float32 networks
TRIED_STEPS = 16.0  # by which they are moved to see how far that moves the outputs
MOST_STEPS = 1024.0  # units in the last place by which inputs are moved at the most to do so
SINGLE_UNIT = 2.0**-23
GRADIENT_SAMPLES = 8  # of the user's inputs
CHOSEN = 1  # sample for double precision whose outputs differ most, and one whose gradients do
PROBES = 2  # random inputs
THOROUGH_ALONE, THOROUGH_BATCH, THOROUGH_RANDOM, THOROUGH_PASSES = 8, 100, 16, 50

NO_ROUNDING = Apart()
_YOURS, _RANDOM = "your inputs", "random inputs"
_IN_SINGLE = "judged in single precision"
_HEADINGS = (
    "",
    "samples",
    "outputs",
    "columns",
    "largest",
    "top class",
    "gradients",
    "cosine",
)  # of a measurement's fields
_FORMATS = ("", "", ".1e", ".1e", ".1e", ".0%", ".1e", ".6f")
_WORDS = {"outputs": "outputs", "columns": "a column of the outputs", "gradients": "input gradients"}


@dataclass(frozen=True)
class Measurement:
    """How far two models are apart on one set of samples.

    Attributes:
        samples_of: What samples: `"your inputs"`, `"random inputs"`, or what a run has fed to the translated model.
        samples: How many.
        output_difference: L2 norm of the difference over the L2 norm of the original's, for the output where it
            is largest; of the passes with and without gradients, the larger one.
        column_difference: Root mean square of the difference of one column of an output over that column's own size,
            for the column where it is largest.
        largest_difference: Largest absolute difference of any output value.
        top_class_agreement: Share of samples whose largest output is at the same index.
        gradient_difference: Like `output_difference`, for the input gradients, as they are or times the sizes of the
            features, whichever is larger; None if not measured.
        gradient_cosine: Cosine of the angle between the input gradients; None if not measured.
    """

    samples_of: str
    samples: int
    output_difference: float
    column_difference: float
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
        measurements: On the user's inputs, on random ones, and on samples of what a run has fed to the model.
        gradient_floor: The rounding floor of the gradients, where it had to be measured: how far gradients in single
            precision are from those in double precision, or from those at inputs next to these.
        in_double: The differences in double precision, where there was a doubt and both models have it.
        faults: What speaks against the translation; empty if it is faithful.
        notes: What could not be measured.
        layers_found: Layers of the original that were found in the translated model by their activations.
        layers_total: Layers of the original whose activation could be compared.
        layer_difference: Largest relative L2 difference of the activations of a layer and its counterpart.
        divergence: Of an unfaithful translation, where it goes wrong, if layers' names tell.
        floor: All that was measured of the models' rounding, on the inputs of this call and of those before.
        in_single: Whether one of the models has no double precision, as far as that was needed.
        sizes: What the differences of columns are relative to.
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
    floor: Apart = NO_ROUNDING
    in_single: bool = False
    sizes: Sizes | None = None

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

    def __repr__(self) -> str:
        return f"<Certificate {self}>"

    def _repr_html_(self) -> str:
        return html_table(str(self), _HEADINGS, self._rows(), self._resolution())

    def report(self) -> str:
        """All measurements, one to a line, and what they cannot see."""
        rows = [_HEADINGS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join([str(self), *table, self._resolution()])

    def _rows(self) -> list[list[str]]:
        """The measurements in words, as under the headings."""
        precise = [replace(one, samples_of=f"{one.samples_of}, in double precision") for one in self.in_double]
        fields = [zip(astuple(one), _FORMATS, strict=True) for one in (*self.measurements, *precise)]
        return [["-" if value is None else format(value, form) for value, form in row] for row in fields]

    def _resolution(self) -> str:
        seen, layers = RESOLUTION.larger(self.floor.times(FLOOR_FACTOR)), "" if self.layers_total else "layers; "
        return (
            f"not seen: differences of outputs up to {seen.outputs:.0e}, of one column of them up to "
            f"{seen.columns:.0e}, of input gradients up to {seen.gradients:.0e}; {layers}"
            f"and samples unlike those measured"
        )


def _largest_of(measurements: Sequence[Measurement], verb: str) -> str:
    outputs = np.max([one.output_difference for one in measurements] or [np.inf])
    gradients = [one.gradient_difference for one in measurements if one.gradient_difference is not None]
    return f"outputs {verb} {outputs:.1e}" + (f", input gradients by {np.max(gradients):.1e}" if gradients else "")


def certify(
    original: Side,
    translated: Side,
    arrays: Arrays,
    seed: int = 0,
    outputs: Arrays | None = None,
    *,
    by_sample: bool = False,
) -> Certificate:
    """Compares two models.

    Args:
        original: The model.
        translated: The translated model.
        arrays: The user's inputs, sample axis first, in the user's axes.
        seed: Seeds the random inputs and the random combination of outputs.
        outputs: What the original gives for the inputs, if it is known.
        by_sample: Whether the original is known to be a function of each sample alone.

    Returns:
        The certificate, with no counts of layers.
    """
    generator = np.random.default_rng(seed)
    pair = Pair((original, translated), [array[:1] for array in arrays], by_sample=by_sample)
    if outputs is not None:
        pair.known.append((original, arrays, outputs))
    # A model may take a fixed number of samples.
    draws = (random_like(arrays, samples, generator) for samples in dict.fromkeys((PROBES, len(arrays[0]))))
    noise = next((drawn for drawn in draws if pair.computes(drawn)), None)
    sets = {_YOURS: arrays} | ({} if noise is None else {_RANDOM: noise})
    sizes = measure_sizes(pair, list(sets.values()))
    judged: list[Certificate] = []
    for compared in _compare_each(pair, sets, sizes, generator):
        judged.append(_judge(compared, judged[-1] if judged else Certificate(()), generator))
    note = "not compared on random inputs, which the original itself does not take"
    return replace(_join(judged, () if noise is not None else (note,)), sizes=sizes)


def certify_again(
    original: Side,
    translated: Side,
    arrays: Arrays,
    outputs: Arrays,
    earlier: Certificate,
    *,
    by_sample: bool = False,
) -> Certificate:
    """Compares the outputs of two models that were compared before, on other inputs.

    What else there is to measure at these inputs is measured in the run (`confirm`).

    Args:
        original: The model.
        translated: The translated model.
        arrays: The user's inputs, sample axis first, in the user's axes.
        outputs: What the original gives for them.
        earlier: Of the same two models on other inputs, faithful.
        by_sample: Whether the original is known to be a function of each sample alone.

    Returns:
        The earlier certificate, with these measurements in the place of those on the user's inputs then.
    """
    pair = Pair((original, translated), [array[:1] for array in arrays], by_sample=by_sample)
    results = (Results(outputs), pair.run(1, arrays))
    sizes = Sizes.measure([outputs], [outputs], arrays).larger(earlier.sizes)
    compared = _Comparison(pair, _YOURS, arrays, results, sizes)
    judged = _judge(compared, _elsewhere(earlier), np.random.default_rng(0))
    random = [one for one in earlier.measurements if one.samples_of == _RANDOM]
    notes = tuple(note for note in earlier.notes if _RANDOM in note)
    kept = replace(earlier, measurements=tuple(random), in_double=(), notes=notes)
    joined = _join([kept, judged])
    yours = [*judged.measurements, *random]
    return replace(joined, measurements=tuple(yours), sizes=sizes)


def confirm(excerpt: Excerpt, label: str, earlier: Certificate, seed: int = 0) -> Certificate:
    """Compares what a run has fed to a translated model, and got from it, with the original.

    Args:
        excerpt: What was recorded.
        label: What samples these are, in words.
        earlier: Of the same models.
        seed: Seeds what is drawn where rounding has to be measured.

    Returns:
        The earlier certificate, with these measurements too.
    """
    try:
        expected = excerpt.pair.run(0, excerpt.inputs, excerpt.cotangents, recorded_alone=True)
    except NoGradientError as error:
        certificate = confirm(replace(excerpt, cotangents=None, gradients=()), label, earlier, seed)
        note = f"gradients of the run not compared ({_cause(error)})"
        return replace(certificate, notes=tuple(dict.fromkeys((*certificate.notes, note))))
    if told := _other_shapes(expected, excerpt):
        return _join([earlier, replace(earlier, measurements=(), faults=(f"{told} on {label}",), notes=())])
    sizes = Sizes.measure([expected.outputs], [expected.recorded or expected.outputs], excerpt.sources())
    results = _without_equal_nan(expected, excerpt.results)
    compared = _Comparison(excerpt.pair, label, excerpt.inputs, results, sizes, excerpt.cotangents)
    return _join([earlier, _judge(compared, _elsewhere(earlier), np.random.default_rng(seed), in_run=True)])


def _cause(error: NoGradientError) -> str:
    """Why, without the advice that goes with it: nobody needs that where the run has succeeded."""
    return str(error).partition(". ")[0].rstrip(".")


def _other_shapes(expected: Results, excerpt: Excerpt) -> str:
    """What a run has given in other shapes than the original does, in words.

    Raises:
        ValueError: The original gives something else than a row for each sample, so nothing of it can be compared.
    """
    results, rows = excerpt.results, len(excerpt.inputs[0])
    if any(one.shape[:1] != (rows,) for one in expected.outputs):
        raise ValueError(f"it gives {[one.shape for one in expected.outputs]} for {rows} samples of several passes")
    pairs = {
        "outputs": (expected.outputs, results.outputs),
        "input gradients": (expected.gradients or (), results.gradients or ()),
    }
    for name, sides in pairs.items():
        ours, theirs = ([one.shape for one in arrays] for arrays in sides)
        if ours != theirs:
            return f"{name} have shapes {theirs} instead of {ours}"
    return ""


def _without_equal_nan(one: Results, other: Results) -> tuple[Results, Results]:
    """What is no number in both models, at the same places, is no difference: of the result it is told later."""

    def clear(arrays: Arrays, others: Arrays) -> list[np.ndarray]:
        return [np.where(np.isnan(a) & np.isnan(b), 0, a) for a, b in zip(arrays, others, strict=True)]

    def clear_all(these: Results, those: Results) -> Results:
        recorded = these.recorded and those.recorded and clear(these.recorded, those.recorded)
        gradients = these.gradients and those.gradients and clear(these.gradients, those.gradients)
        return Results(clear(these.outputs, those.outputs), recorded, gradients)

    return clear_all(one, other), clear_all(other, one)


def certify_at(
    original: Side, translated: Side, arrays: Arrays, label: str, earlier: Certificate, seed: int = 0
) -> Certificate:
    """Compares the two models on other samples, gradients included.

    Args:
        original: The model, as far as the method explains it.
        translated: The translated model, as far as that.
        arrays: The samples, in the user's axes.
        label: What samples these are, in words.
        earlier: Of the same models.
        seed: Seeds the random combination of outputs.

    Returns:
        The earlier certificate, with these measurements too.
    """
    generator, pair = np.random.default_rng(seed), Pair((original, translated))
    compared = _compare(pair, arrays, label, measure_sizes(pair, [arrays]), generator, all_gradients=True)
    return _join([earlier, _judge(compared, _elsewhere(earlier), generator, in_run=True)])


def certify_thoroughly(
    original: Side, translated: Side, arrays: Arrays, earlier: Certificate, seed: int = 0
) -> Certificate:
    """Compares two models wherever a method may go: all samples, other batches, beyond the data, pass after pass.

    Args:
        original: The model.
        translated: The translated model.
        arrays: The user's inputs, sample axis first, in the user's axes.
        earlier: Of the same models on the same inputs.
        seed: Seeds what is drawn.

    Returns:
        The earlier certificate, with these measurements too.
    """
    generator, judged = np.random.default_rng(seed + 1), [earlier]
    pair, notes = Pair((original, translated), [array[:1] for array in arrays]), []
    sizes = measure_sizes(pair, [arrays]).larger(earlier.sizes)
    for label, samples in _everywhere(arrays, generator):
        if not pair.computes(samples):
            notes.append(f"not compared on {label}, which the original itself does not take")
            continue
        compared = _compare(pair, samples, label, sizes, generator, all_gradients=True)
        judged.append(_judge(compared, judged[-1], generator))
    joined = _join(judged, tuple(notes))
    faults = tuple(dict.fromkeys(joined.faults))
    return replace(joined, measurements=_worst(joined.measurements), faults=faults, sizes=earlier.sizes)


def _worst(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The one with the largest difference of all of the same samples."""
    found: dict[str, Measurement] = {}
    for one in measurements:
        former = found.get(one.samples_of, one)
        if max(one.output_difference, one.gradient_difference or 0) >= max(
            former.output_difference, former.gradient_difference or 0
        ):
            found[one.samples_of] = one
    return tuple(found.values())


def _everywhere(arrays: Arrays, generator: np.random.Generator) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Sets of samples, each with its name."""
    yield "all your inputs", list(arrays)
    for sample in range(min(THOROUGH_ALONE, len(arrays[0]))):
        yield f"your sample {sample} alone", [array[sample : sample + 1] for array in arrays]
    many = max(THOROUGH_BATCH, 2 * len(arrays[0]))
    yield f"your inputs repeated to {many}", [np.resize(array, (many, *array.shape[1:])) for array in arrays]
    yield f"{THOROUGH_RANDOM} random inputs", random_like(arrays, THOROUGH_RANDOM, generator)
    yield "zeros", [np.zeros_like(array[:2]) for array in arrays]
    for name, factor, shift in _BEYOND:
        yield name, [_rescale(array, factor, shift) if is_floating(array) else array[:2] for array in arrays]
    for _ in range(THOROUGH_PASSES):
        yield "your first inputs, again and again", [array[:2] for array in arrays]


_BEYOND = (
    ("your inputs' means", 0, 1),
    ("your inputs times 2", 2, 0),
    ("your inputs times 10", 10, 0),
    ("your inputs with another sign", -1, 0),
)


def _rescale(array: np.ndarray, factor: float, shift: float) -> np.ndarray:
    return (array[:2] * factor + array.mean() * shift).astype(array.dtype)


def certify_bridge(
    original: Side, bridged: Side, arrays: Arrays, outputs: Arrays, seed: int = 0, *, gradients: bool = True
) -> Certificate:
    """Compares a model with itself inside another framework.

    A bridge runs the model itself, so there is no need for other samples than some of the user's: what could go wrong
    is the crossing of values, axes and gradients, which are compared only if they are needed. The outputs are those of
    the original for the samples.
    """
    pair, generator = Pair((original, bridged), known=[(original, arrays, outputs)]), np.random.default_rng(seed)
    sizes = measure_sizes(pair, [arrays])
    # All of them: a target function may tell samples by their rows.
    compared = _compare(pair, arrays, _YOURS, sizes, generator, gradients=gradients, all_gradients=True)
    tolerance = bridge_tolerance(original, compared.results[0].outputs)
    rounding = Apart(tolerance, np.inf, max(IN_SINGLE.gradients, tolerance))
    certificate = Certificate((compared.measurement,), notes=compared.notes)
    most = replace(MOST_IN_SINGLE, outputs=tolerance, columns=np.inf)
    return _judge_by_moving(certificate, compared, rounding, most, generator)


def bridge_tolerance(original: Side, outputs: Arrays) -> float:
    """Relative difference that a compiled run of the same model may have from an eager one: a few units of its type."""
    units = [float(np.finfo(output.dtype).eps) for output in outputs if is_floating(output)]
    singles = [np.ascontiguousarray(output) for output in outputs if output.dtype == np.float32]
    # bfloat16 reaches numpy as float32; whole numbers and simple fractions of a model in single precision look like it.
    looks_short = any(not (one.view(np.uint32) & 0xFFFF).any() for one in singles)
    if looks_short and (original.unit > SINGLE_UNIT or any((one * 64 % 1).any() for one in singles)):
        units.append(2.0**-8)
    return max(2 * RESOLUTION.outputs, 8 * max(units, default=0.0))


def gradient_tolerance(certificate: Certificate, tolerance: float) -> float:
    """Relative difference of gradients that is put down to rounding, where that of outputs is up to the tolerance."""
    floor = min(FLOOR_FACTOR * (certificate.gradient_floor or 0.0), MOST_IN_SINGLE.gradients)
    return max(IN_SINGLE.gradients, tolerance, floor)


def _join(judged: Sequence[Certificate], notes: tuple[str, ...] = ()) -> Certificate:
    """Several sets of samples; the rounding floor of one is everybody's."""
    floors = [one.gradient_floor for one in judged if one.gradient_floor is not None]
    return replace(
        judged[0],
        measurements=tuple(each for one in judged for each in one.measurements),
        gradient_floor=max(floors, default=None),
        in_double=tuple(each for one in judged for each in one.in_double),
        faults=tuple(each for one in judged for each in one.faults),
        notes=tuple(dict.fromkeys([*(each for one in judged for each in one.notes), *notes])),
        floor=NO_ROUNDING.larger(*(one.floor for one in judged)),
        in_single=any(one.in_single for one in judged),
    )


def _judge(
    compared: _Comparison, known: Certificate, generator: np.random.Generator, *, in_run: bool = False
) -> Certificate:
    """What one set of samples says, by the rounding that is known of these models, or else is measured.

    In a run it is known already what the models compute in double precision, as far as they have any.
    """
    certificate = Certificate((compared.measurement,), notes=compared.notes, floor=known.floor)
    if far := compared.apart.beyond(MOST):
        return replace(certificate, faults=_faults(compared, far, MOST, _own_rounding(compared)))
    if not compared.apart.beyond(_allowance(known.floor)):
        return certificate
    if explained := _judge_at_edges(certificate, compared, generator, in_run=in_run):
        return explained
    if in_run:
        return _judge_by_moving(certificate, compared, IN_SINGLE if known.in_single else RESOLUTION, MOST, generator)
    with suppress(Exception):  # models and devices may refuse another type in any way and at any point
        precise = _judge_in_double(certificate, compared)
        if precise.faults or not compared.apart.beyond(_allowance(precise.floor)):
            return precise
        return _judge_by_moving(precise, compared, RESOLUTION, MOST, generator)
    note = f"{_IN_SINGLE} on {compared.label}: one of the models has no other"
    certificate = replace(certificate, notes=(*certificate.notes, note), in_single=True)
    return _judge_by_moving(certificate, compared, IN_SINGLE, MOST_IN_SINGLE, generator)


def _elsewhere(earlier: Certificate) -> Certificate:
    """The same, for other samples: what was measured at those excuses little at these."""
    return replace(earlier, floor=earlier.floor.smaller(IN_SINGLE.times(1 / FLOOR_FACTOR)))


def _allowance(floor: Apart) -> Apart:
    return RESOLUTION.larger(floor.times(FLOOR_FACTOR)).smaller(MOST)


def _judge_in_double(certificate: Certificate, compared: _Comparison) -> Certificate:
    """The same measurement in double precision on the samples that differ most, and the original's rounding there.

    Double precision says what the models compute, whatever single precision makes of it.

    Raises:
        TypeError: A model has no copy in double precision, or one that is not the model: its outputs are others than
            rounding explains. What else the models raise passes.
    """
    pair, places = compared.pair, compared.most_different
    samples, cotangents = compared.samples_at(places)
    precise = pair.in_double
    exact, other = (precise.run(which, samples, cotangents, recorded_alone=True) for which in (0, 1))
    if any(output.dtype != np.float64 for output in (*exact.outputs, *other.outputs)):
        raise TypeError("a copy does not compute in double precision")
    singles = (compared.recorded_at(which, places, samples, cotangents) for which in (0, 1))
    own, others = (apart(exact, single, compared.sizes) for single in singles)
    if own.beyond(MOST_ROUNDING) or others.beyond(MOST):
        raise TypeError("the copy in double precision computes something else")
    looked_at = replace(compared, samples=samples, results=(exact, other), cotangents=cotangents)
    constants = IN_DOUBLE.larger(own.times(CONSTANTS))
    return replace(
        certificate,
        in_double=(*certificate.in_double, looked_at.measurement),
        faults=_faults(looked_at, looked_at.apart.beyond(constants), constants, " in double precision"),
        floor=certificate.floor.larger(own),
        gradient_floor=own.gradients if exact.gradients is not None else None,
    )


def _judge_at_edges(
    certificate: Certificate, compared: _Comparison, generator: np.random.Generator, *, in_run: bool
) -> Certificate | None:
    """Faithful, where all that differs are gradients at a few samples with units at their edges; None if there is more.

    In a run, whatever is measured next begins with the same draws, and they may be more than a few.

    That takes few passes of the original, where copies in double precision take the time of many.
    """
    places, others = compared.different, replace(compared.apart, gradients=0.0)
    is_widespread = 2 * len(places) > len(compared.with_gradients)
    if not compared.pair.by_sample or others.beyond(RESOLUTION) or (is_widespread and not in_run):
        return None
    with suppress(Exception):  # it may take a certain number of samples only
        if compared.nearby.look_for_edges(generator) <= RESOLUTION.gradients:
            return _explained_nearby(certificate, compared)
    return None


def _explained_nearby(certificate: Certificate, compared: _Comparison) -> Certificate:
    note = f"input gradients on {compared.label} are what yours are right next to them"
    return replace(certificate, notes=(*certificate.notes, note))


def _judge_by_moving(
    certificate: Certificate, compared: _Comparison, rounding: Apart, most: Apart, generator: np.random.Generator
) -> Certificate:
    """By so much rounding or, where the models differ by more, by how far they move next to the samples."""
    allowed = rounding.larger(certificate.floor.times(FLOOR_FACTOR)).smaller(most)
    if not compared.apart.beyond(allowed):
        return certificate
    if not compared.apart.beyond(most):
        with suppress(Exception):  # the user's model may refuse other samples in any way
            next_to = _move_next_to(compared, generator, in_double=bool(certificate.in_double))
            if always := next_to.always.beyond(_allowance(next_to.own)):
                because = " in single precision, by your model's rounding"
                return replace(certificate, faults=_faults(compared, always, _allowance(next_to.own), because))
            certificate = replace(certificate, floor=certificate.floor.larger(next_to.floor))
            if compared.results[0].gradients is not None and certificate.floor.gradients > 0:
                certificate = replace(certificate, gradient_floor=certificate.floor.gradients)
            excused = allowed.larger(next_to.floor.times(FLOOR_FACTOR)).smaller(most)
            allowed = allowed.larger(next_to.excuses.times(FLOOR_FACTOR)).smaller(most)
            nearest = replace(compared.apart, gradients=min(compared.apart.gradients, next_to.nearest))
            if not nearest.beyond(allowed):
                return certificate if not compared.apart.beyond(excused) else _explained_nearby(certificate, compared)
    because = "" if certificate.gradient_floor is None else f", rounding floor {certificate.gradient_floor:.1e}"
    return replace(certificate, faults=_faults(compared, compared.apart.beyond(allowed), allowed, because))


def _faults(compared: _Comparison, names: Sequence[str], allowed: Apart, because: str = "") -> tuple[str, ...]:
    """What differs by more than is allowed."""
    return tuple(
        f"{_WORDS[name]} on {compared.label} differ{'s' * (name == 'columns')} by {compared.apart[name]:.1e}"
        + (f" (tolerance {allowed[name]:.0e}{because})" if np.isfinite(allowed[name]) else "")
        for name in names
    )


def _own_rounding(compared: _Comparison) -> str:
    """What outputs that are far apart have to do with the original's own rounding."""
    with suppress(Exception):  # models and devices may refuse another type in any way
        samples, _ = compared.samples_at(compared.most_different)
        own = relative_difference(
            compared.pair.in_double.models[0].outputs(samples), compared.pair.models[0].outputs(samples)
        )
        if own > IN_SINGLE.outputs and FLOOR_FACTOR * own >= compared.apart.outputs:
            return f"; in single precision your model's own outputs are wrong by {own:.1e}"
    return ""


@dataclass(frozen=True, eq=False)
class _Comparison:
    """What the original and the translated model gave for the same samples."""

    pair: Pair
    label: str
    samples: Arrays
    results: tuple[Results, Results]
    sizes: Sizes
    cotangents: Sequence[np.ndarray | None] | None = None  # of the combination of outputs whose gradients were taken
    notes: tuple[str, ...] = ()

    @cached_property
    def apart(self) -> Apart:
        """How far."""
        shapes, others = ([output.shape for output in one.outputs] for one in self.results)
        return Apart(np.inf, np.inf, np.inf) if shapes != others else apart(*self.results, self.sizes)

    @cached_property
    def nearby(self) -> _Neighbourhood:
        """What the models do next to the samples that differ, in single precision."""
        return _Neighbourhood(self, self.different, in_double=False)

    @property
    def measurement(self) -> Measurement:
        """The same in numbers for people."""
        (outputs, others), samples = (one.outputs for one in self.results), len(self.samples[0])
        if np.isinf(self.apart.outputs) and [one.shape for one in outputs] != [one.shape for one in others]:
            return Measurement(self.label, samples, np.inf, np.inf, np.inf, 0.0, None, None)
        gradients = [one.gradients for one in self.results if one.gradients is not None]
        tops = ([one.reshape(one.shape[0], -1).argmax(axis=1) for one in given] for given in (outputs, others))
        return Measurement(
            self.label,
            samples,
            self.apart.outputs,
            self.apart.columns,
            float(np.max([_largest(a, b) for a, b in zip(outputs, others, strict=True)])),
            float(np.mean([np.mean(a == b) for a, b in zip(*tops, strict=True)])),
            *((self.apart.gradients, cosine(*gradients)) if len(gradients) == 2 else (None, None)),
        )

    @property
    def with_gradients(self) -> range:
        """Positions of the samples that gradients were taken of; of the first ones, if none were."""
        gradients = self.results[0].gradients
        return range(len(gradients[0]) if gradients else min(GRADIENT_SAMPLES, len(self.samples[0])))

    @property
    def most_different(self) -> list[int]:
        """Positions of the samples that differ most, by outputs and by gradients."""
        chosen: set[int] = set()
        for given in ([one.outputs for one in self.results], [one.gradients for one in self.results]):
            if given[0] is None or given[1] is None:
                continue
            distances = [
                np.linalg.norm((a - b).reshape(len(a), -1).astype(np.float64), axis=1) / (np.linalg.norm(a) or 1.0)
                for a, b in zip(*given, strict=True)
            ]
            chosen.update(np.argsort(np.max(distances, axis=0))[-CHOSEN:].tolist())  # NaN comes last
        return sorted(chosen)

    @property
    def different(self) -> Sequence[int]:
        """Positions of the samples whose gradients differ; of all, where it is not gradients alone that do."""
        theirs, sizes = self.results[1].gradients, self.sizes.inputs
        gradients = self.results[0].gradients
        if not gradients or not theirs or replace(self.apart, gradients=0.0).beyond(RESOLUTION):
            return self.with_gradients
        apart = gradient_differences(gradients, theirs, sizes)
        return np.flatnonzero(~(apart <= RESOLUTION.gradients)).tolist() or self.with_gradients

    def samples_at(self, places: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray | None] | None]:
        """Some samples, as both precisions hold them, with their cotangents."""
        cotangents = None if self.cotangents is None else take(self.cotangents, places)
        return to_double([array[places] for array in self.samples]), cotangents

    def recorded_at(
        self, which: int, places: Sequence[int], samples: Arrays, cotangents: Sequence[np.ndarray | None] | None
    ) -> Results:
        """What one of the models gives for some samples in passes that record gradients, run again if not known."""
        results, is_known = self.results[which], all(place in self.with_gradients for place in places)
        is_same = all(map(np.array_equal, samples, ([array[places] for array in self.samples])))
        if results.recorded is None or not (is_known and is_same):
            return self.pair.run(which, samples, cotangents, recorded_alone=True)
        return replace(results, outputs=results.recorded).take(places)


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference; equal infinities are none."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(one == other, 0, np.abs(one - other)), initial=0.0))


def measure_sizes(pair: Pair, sets: Sequence[Arrays]) -> Sizes:
    """Of the original's outputs for several sets of samples together; of inputs those of the first set."""
    outputs = pair.outputs_each(pair.models[0], sets)
    is_cut = pair.heads is not pair.models
    recorded = pair.outputs_each(pair.heads[0], sets) if is_cut else outputs
    return Sizes.measure(outputs, recorded, sets[0])


def _compare(
    pair: Pair,
    arrays: Arrays,
    label: str,
    sizes: Sizes,
    generator: np.random.Generator,
    *,
    gradients: bool = True,
    all_gradients: bool = False,
) -> _Comparison:
    """On one set of samples; gradients of the first ones, if not of all."""
    if gradients:
        most = len(arrays[0]) if all_gradients else GRADIENT_SAMPLES
        return _compare_each(pair, {label: arrays}, sizes, generator, most)[0]
    note = "input gradients not compared (the method needs none)"
    return replace(_compare_outputs(pair, arrays, label, sizes), notes=(note,))


def _compare_each(
    pair: Pair, sets: Mapping[str, Arrays], sizes: Sizes, generator: np.random.Generator, most: int = GRADIENT_SAMPLES
) -> list[_Comparison]:
    """On several sets of samples, with the gradients of the first of each, as far as their outputs are alike."""
    compared = [_compare_outputs(pair, samples, label, sizes) for label, samples in sets.items()]
    alike = [one for one in compared if not one.notes and not one.apart.beyond(MOST)]
    samples = [one.samples for one in alike]
    cotangents = [sizes.draw(pair.outputs(pair.heads[0], one), generator) for one in samples]
    firsts, given = ([[array[:most] for array in each] for each in several] for several in (samples, cotangents))
    try:
        passes = [pair.run_each(which, firsts, given) for which in (0, 1)]
    except NoGradientError as error:
        note = f"input gradients not compared ({_cause(error)})"
        return [replace(one, notes=(note,)) if one in alike else one for one in compared]
    known = {id(one): each for one, *each in zip(alike, *passes, cotangents, strict=True)}
    return [_with_gradients(one, *known[id(one)]) if id(one) in known else one for one in compared]


def _compare_outputs(pair: Pair, arrays: Arrays, label: str, sizes: Sizes) -> _Comparison:
    results = (pair.run(0, arrays), pair.run(1, arrays))
    shapes, others = ([output.shape for output in one.outputs] for one in results)
    notes = (f"outputs have shapes {others} instead of {shapes}",) if shapes != others else ()
    return _Comparison(pair, label, arrays, results, sizes, notes=notes)


def _with_gradients(compared: _Comparison, found: Results, other: Results, cotangents: Arrays) -> _Comparison:
    """The same with what passes that record gradients gave, if there are any gradients."""
    if not found.gradients or len(found.gradients) != len(other.gradients or ()):
        return compared
    outputs = (one.outputs for one in compared.results)
    one, two = (replace(passed, outputs=own) for passed, own in zip((found, other), outputs, strict=True))
    is_zero = not any(part.any() for part in found.gradients)
    notes = (f"the input gradient vanishes on {compared.label}",) if is_zero else ()
    return replace(compared, results=(one, two), cotangents=cotangents, notes=notes)


@dataclass(frozen=True)
class _NextTo:
    """What the models do next to some samples.

    Attributes:
        floor: How far the original moves and the two models are apart, the smaller of both, where it is largest.
        own: The original's rounding, measured in double precision, where it is largest.
        always: How far the translated model is from the original in double precision, where that is least.
        nearest: How far the translated model's gradients at the samples are from what the original gives next to them,
            for each sample where that is least; of a function of each sample alone those aside whose own floor excuses
            the difference.
        excuses: The floor, as far as it counts for all samples.
    """

    floor: Apart = NO_ROUNDING
    excuses: Apart = NO_ROUNDING
    own: Apart = NO_ROUNDING
    always: Apart = NO_ROUNDING
    nearest: float = np.inf


def _move_next_to(compared: _Comparison, generator: np.random.Generator, *, in_double: bool) -> _NextTo:
    """How far the original's results move next to the samples, and the two models are apart there as well.

    Rounding moves gradients in leaps, whenever one unit passes the edge of its ReLU, in one of the models or the other.
    Where that is at the very samples, what the translated model gives there is what the original gives next to them;
    where it is everywhere, the original moves next to the samples, and the models are apart there as well. A fault does
    neither; and what the translated model does everywhere and the original nowhere, which double precision tells, is
    one of single precision.

    Of a function of each sample alone those samples are moved that differ, and several times in one pass; and the leaps
    of a sample excuse no other.
    """
    if compared.pair.by_sample:
        with suppress(Exception):  # it may take a certain number of samples only
            nearby = _Neighbourhood(compared, compared.different, in_double=True) if in_double else compared.nearby
            return nearby.look(IN_ROUNDS, generator)
    return _Neighbourhood(compared, compared.with_gradients, in_double).look((1,) * DRAWS, generator)


@dataclass(frozen=True, eq=False)
class _Draw:
    """Samples that were moved, and what the original gives for them; its gradients among those of all samples."""

    power: float
    samples: Arrays
    results: Results
    gradients: Arrays


@dataclass(eq=False)
class _Neighbourhood:
    """The samples that are moved, and what the models give for all of them."""

    compared: _Comparison
    places: Sequence[int]
    in_double: bool
    steps: float | None = None
    drawn: list[_Draw] = field(default_factory=list)
    floors: np.ndarray | float = 0.0  # of each sample's gradients

    def look_for_edges(self, generator: np.random.Generator) -> float:
        """How far the translated model's gradients are from what draws of the original alone explain."""
        for count in accumulate(AT_EDGES):
            self._draw(count, generator)
            nearest = self._nearest()
            if nearest <= RESOLUTION.gradients or (count >= self._fewest and not self._is_promising(nearest)):
                break
        return nearest

    def look(self, rounds: Sequence[int], generator: np.random.Generator) -> _NextTo:
        """Moves the samples, in rounds of so many draws, until that explains how far the models are apart."""
        found = _NextTo(always=self.compared.apart if self.in_double else NO_ROUNDING)
        counts = [*accumulate(rounds)]
        for first, count in pairwise([0, *counts]):
            self._draw(count, generator)
            found = replace(found, nearest=self._nearest())
            # What the translated model does next to the samples counts where the original alone does not explain it.
            if self.in_double or self._is_beyond(found):
                found = self._compare(self.drawn[first:count], found)
                found = replace(found, nearest=self._nearest())
            if not self._is_beyond(found):
                return found
        for count in (one for one in accumulate(AT_EDGES) if one > counts[-1]):
            if self._is_beyond(found) and self._is_promising(found.nearest):
                self._draw(count, generator)
                found = replace(found, nearest=self._nearest())
        return found

    def _draw(self, count: int, generator: np.random.Generator) -> None:
        """So many draws in all; those that lack go through the original together, where they may."""
        first = len(self.drawn)
        if count <= first:
            return
        if self.steps is None:
            self.steps = self._measure_steps(generator)
        powers = _powers(first, count - first, self._onset())
        near = [move(self.samples, self.steps**power, generator) for power in powers]
        near = [*map(to_double, near)] if self.in_double else near
        ours = self.compared.pair.run_each(0, near, [self.cotangents] * len(near))
        gradients = [self.here.put(self.places, one).gradients or () for one in ours]
        self.drawn += map(_Draw, powers, near, ours, gradients)

    @property
    def _fewest(self) -> int:
        """Draws that tell something: all distances once where most samples differ, as then units switch everywhere."""
        return DISTANCES * (1 if 2 * len(self.places) > len(self.compared.with_gradients) else 2)

    def _is_promising(self, nearest: float) -> bool:
        """Whether units at their edges explain most of what gradients differ by, and nothing else differs."""
        others = replace(self.compared.apart, gradients=0.0).beyond(RESOLUTION)
        return not others and nearest <= PROMISING * self.compared.apart.gradients

    def _onset(self) -> float | None:
        """The nearest distance at which the original's gradients move, where all distances were tried twice."""
        here, sizes = self.here.gradients, self.compared.sizes.inputs
        if here is None or len(self.drawn) < DRAWS // 2:
            return None
        leaps = (one for one in self.drawn if gradient_difference(here, one.gradients, sizes) > RESOLUTION.gradients)
        return min((one.power for one in leaps), default=None)

    def _is_beyond(self, found: _NextTo) -> bool:
        yet = replace(self.compared.apart, gradients=min(self.compared.apart.gradients, found.nearest))
        return bool(yet.beyond(_allowance(found.excuses)) or found.always.beyond(_allowance(found.own)))

    def _compare(self, drawn: Sequence[_Draw], found: _NextTo) -> _NextTo:
        """What both models say besides, of which the original's results are known."""
        pair, sizes, cotangents = self.compared.pair, self.compared.sizes, [self.cotangents] * len(drawn)
        near = [one.samples for one in drawn]
        theirs = pair.run_each(1, near, cotangents)
        for moved, other in zip(drawn, theirs, strict=True):
            one, two = self.here.put(self.places, moved.results), self.there.put(self.places, other)
            least = apart(self.here, one, sizes).smaller(apart(one, two, sizes))
            found = replace(found, floor=found.floor.larger(least))
            if pair.by_sample and one.gradients is not None and two.gradients is not None:
                self.floors = np.maximum(self.floors, self._least_of_each(one.gradients, two.gradients))
        found = replace(found, excuses=replace(found.floor, gradients=0.0) if pair.by_sample else found.floor)
        exact = pair.in_double.run_each(0, near, cotangents) if self.in_double else ()
        for precise, moved, other in zip(exact, drawn, theirs, strict=False):
            mine, its = (apart(precise, single, sizes) for single in (moved.results, other))
            found = replace(found, own=found.own.larger(mine), always=found.always.smaller(its))
        return found

    def _nearest(self) -> float:
        """How far the translated model's gradients are from the nearest that the original's rounding explains."""
        theirs, here = self.compared.results[1].gradients, self.here.gradients
        if theirs is None or here is None:
            return float("inf")
        best, moved = here, [one.gradients for one in self.drawn]
        for one in (*moved, _combine(theirs, here, moved, self.places)):
            best = _nearer(theirs, best, one)
        sizes = self.compared.sizes.inputs
        is_excused = gradient_differences(here, theirs, sizes) <= FLOOR_FACTOR * self.floors
        best = [np.where(is_excused.reshape(-1, *(1,) * (a.ndim - 1)), b, a) for a, b in zip(best, theirs, strict=True)]
        return gradient_difference(best, theirs, sizes)

    def _least_of_each(self, moved: Arrays, other: Arrays) -> np.ndarray:
        """Of each sample's gradients, how far the original moves or the two models are apart: the smaller of both."""
        sizes, here = self.compared.sizes.inputs, self.here.gradients
        assert here is not None
        return np.minimum(gradient_differences(here, moved, sizes), gradient_differences(moved, other, sizes))

    def _measure_steps(self, generator: np.random.Generator) -> float:
        """By how many units in the last place inputs are moved to move the outputs by what rounding does.

        Rounding happens in every layer, and moving the inputs stands for all of it.
        """
        outputs = self.compared.results[0].take(self.places).outputs
        near = self.compared.pair.run(0, move(self.samples, TRIED_STEPS, generator)).outputs
        moved = relative_difference(outputs, near)
        return float(np.clip(TRIED_STEPS * ROUNDING / max(moved, np.finfo(float).tiny), 1.0, MOST_STEPS))

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """Those that are moved."""
        samples = [array[self.places] for array in self.compared.samples]
        return samples if self.compared.pair.models[0].unit < SINGLE_UNIT else [_as_single(one) for one in samples]

    @cached_property
    def cotangents(self) -> list[np.ndarray | None] | None:
        """Of those that are moved."""
        given = self.compared.cotangents
        return None if given is None else take(given, self.places)

    @cached_property
    def here(self) -> Results:
        """What the original gives for the samples, unmoved, in passes that record gradients."""
        return self._recorded(0)

    @cached_property
    def there(self) -> Results:
        """What the translated model gives for them."""
        return self._recorded(1)

    def _recorded(self, which: int) -> Results:
        results, places = self.compared.results[which], self.compared.with_gradients
        recorded = results.outputs if results.recorded is None else results.recorded
        return replace(results, outputs=recorded).take(places)


def _powers(first: int, draws: int, onset: float | None = None) -> list[float]:
    """Of the number of steps, for so many draws: one distance after the other, or those behind where leaps begin.

    A few steps move no unit beyond its edge, more of them one alone, many more all at once.
    """
    places = range(first, first + draws)
    if onset is None:
        return [place % DISTANCES / (DISTANCES - 1) for place in places]
    return [min(onset + place % 3 / 2 / (DISTANCES - 1), 1.0) for place in places]


def _combine(theirs: Arrays, here: Arrays, moved: Sequence[Arrays], places: Sequence[int]) -> list[np.ndarray]:
    """The original's gradients with that combination of their moves which is nearest to the translated model's.

    Every unit at its edge adds what it does by itself, so what several do is a sum of moves of which each shows some.
    For few features any difference would be one; and it is no sum of more than the factor that any floor has.
    """
    best = [np.array(one) for one in here]
    norms = [np.linalg.norm(one) or 1.0 for one in here]
    for place in places:
        base, goal, *others = (
            np.concatenate([one[place].ravel() / norm for one, norm in zip(each, norms, strict=True)]).astype(
                np.float64
            )
            for each in (here, theirs, *moved)
        )
        if len(base) < ENOUGH_FEATURES or not np.isfinite([base, goal, *others]).all():
            continue
        smallest = RESOLUTION.gradients * np.linalg.norm(base)
        leaps = [one - base for one in others if np.linalg.norm(one - base) > smallest]
        if not leaps:
            continue
        moves = np.array(leaps[: len(base) // FEATURES_EACH])
        slack = smallest**2 or 1.0
        shares = np.linalg.solve(moves @ moves.T + slack * np.eye(len(moves)), moves @ (goal - base))
        shares *= min(1.0, FLOOR_FACTOR / max(np.abs(shares).sum(), 1.0))
        parts = np.split(base + shares @ moves, np.cumsum([one[place].size for one in here])[:-1])
        for one, part, norm in zip(best, parts, norms, strict=True):
            one[place] = (part * norm).reshape(one[place].shape)
    return best


def _nearer(gradients: Arrays, one: Arrays, other: Arrays) -> list[np.ndarray]:
    """For each sample the gradients, of all inputs, that are nearer to the given ones."""
    distances = [
        sum(
            np.linalg.norm((a - b).reshape(len(a), -1).astype(np.float64), axis=1) / (np.linalg.norm(a) or 1.0)
            for a, b in zip(gradients, each, strict=True)
        )
        for each in (one, other)
    ]
    is_nearer = distances[1] < distances[0]
    return [np.where(is_nearer.reshape(-1, *(1,) * (a.ndim - 1)), b, a) for a, b in zip(one, other, strict=True)]


def _as_single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array
