"""Whether the user's model is a function at all: of each sample alone, the same each time, without a trace on itself.

One more forward pass tells, of a batch that holds the first sample twice among others, so that neither the order of the
samples nor the first or last of them is what it was. The others are made up; of tokens and where inputs are held, one
is the user's. The two equal rows must agree with each other, and all with the rows of the first pass, within rounding.
If they do not, the same pass is made again: a model that gives something else then is random or keeps a state, in any
other its samples influence each other. What was found is kept for the model's content.

That pass records gradients, which the first one did not (`FrameworkAdapter.other_outputs`), or the other way round,
where the first one is to serve in the run (`FrameworkAdapter.record`): so a model is told that gives something else
then. So are one that seeds what methods draw from, and one whose outputs lie in memory that its next pass
overwrites.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations, product
from typing import Any

import numpy as np

from cfi_core.errors import ModelWarning, warn
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.framework.axes import Arrays
from cfi_core.records import Inputs, Original, Purity
from cfi_core.turns import Lock, current

ROUNDING = 16.0
"""Units in the last place by which rows may be apart: kernels for another number of samples sum in another order.

Measured, as relative L2 difference of outputs on 1 to 16 samples against 3, in all architectures of tests/zoo: up to 14
units in single and in double precision, less than one in half precision.
"""

REPEATED = 4.0
"""Units by which a pass may differ from the very same pass, where a device sums in any order. On CPUs it is none."""

CERTAIN = 1024.0
"""Units that are no rounding where double precision cannot be asked (1e-4 in single precision), and in double."""

EXCUSED = 2.0**-6
"""Relative difference beyond which agreement in double precision explains nothing (or four times `ROUNDING`, if more).

In single precision it is eight thousand times `ROUNDING`. Were it rounding, an attribution would tell of rounding; and
code that does something else in another precision looks the same.
"""

DRAWS = 8
"""Times that a pass is repeated which draws random numbers: a dropout may by chance drop nothing that counts."""

ALONE = "a function of each sample"

_SEEDS = (
    "The model seeds the random numbers of the process whenever it is run. A method that draws between its passes gets "
    "the same numbers each time, and its draws are no longer independent. Leave seeding to seed=."
)
_OVERWRITES = (
    "The model gives its outputs in memory that its next pass overwrites. A method that keeps them compares the later "
    "ones with themselves. Return a copy of them."
)

_AT_LEISURE = "tensorfloat32"
_UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, _AT_LEISURE: 2.0**-10, "bfloat16": 2.0**-8}
_COARSEST = 2.0**-4  # of types of eight bits
_MOST_NAMES = 3
_CAPACITY = 64

BEYOND, BETWEEN = -1, -2
"""Samples that are made up of the user's: with values beyond these, or between them."""

Rows = tuple[int, ...]
"""For each sample of a batch its number among the user's, or what it is made up of."""

_kept: OrderedDict[tuple[Any, ...], Purity] = OrderedDict()
_lock = Lock()


class Examination:
    """A model while it is examined: whatever passes inside write to it is undone on leaving.

    Attributes:
        twin: The model to run: one for all passes, so that what it keeps from one to the next is seen.
        fingerprint: The model's, before them.
        recorded: Whether the first pass has recorded gradients.
    """

    recorded: bool = False

    def __init__(self, original: Original, inputs: Inputs) -> None:
        self._adapter, self._model, self._inputs = original.adapter, original.model, inputs
        signature: tuple[Any, ...] = tuple((array.shape[1:], array.dtype.str) for array in inputs.arrays)
        # Held ones may have a row for each sample in one call, and be constants in another; and only some masks mask.
        signature += tuple(
            (
                array.shape if array.shape[:1] != (inputs.samples,) else array.shape[1:],
                array.dtype.str,
                array.dtype.kind in "biu" and bool((array == array.flat[:1]).all()),
            )
            for array in inputs.held_arrays
        )
        self.fingerprint = self._adapter.fingerprint(self._model)
        self._key: tuple[Any, ...] = (original.framework, type(self._model), self.fingerprint, signature)
        with _lock:
            self._known = _kept.get(self._key)
        # No copy of the weights of a model that is known to leave them alone.
        self._state = None if self._known and not self._known.writes else self._adapter.state_for_passes(self._model)
        self.twin = self._adapter.twin(self._model)

    def __enter__(self) -> Examination:
        return self

    def __exit__(self, *error: object) -> None:
        if self._state is not None:
            self._state.restore()

    def judge(self, outputs: Any, end: Callable[[Any], Any] | None = None, *, by_sample: bool = True) -> Purity:
        """What the model is found to be, which gave these outputs for the inputs.

        Args:
            outputs: What it gives; where it has another end than the user's, what it gives there.
            end: That end; two equal ones print alike.
            by_sample: Whether other samples may be tried beside these.

        Warns:
            ModelWarning: It is random, keeps a state, mixes its samples or writes to itself.
        """
        if end is not None:
            self._change_end(end)
        self._by_sample = by_sample
        if self._known is None:
            self._known = self._find([np.asarray(output) for output in flatten(outputs)])
            self._keep(self._known)
            if not self._known.writes:
                self._state = None  # there is nothing to undo
        if self._known.warning:
            warn(self._known.warning, ModelWarning)
        return self._known

    def _change_end(self, end: Callable[[Any], Any]) -> None:
        """Examines the model as it ends elsewhere: the twin that has been run, so that what it keeps is seen."""
        self.twin = self._adapter.ended_by(self.twin, end)
        self.fingerprint = f"{self._key[2]}:{end!r}"
        self._key = (*self._key, repr(end))
        with _lock:
            self._known = _kept.get(self._key)
        if self._known is None and self._state is None:
            self._state = self._adapter.state_for_passes(self._model)

    def _find(self, probe: Arrays) -> Purity:
        assert self._state is not None
        numbers = self._state.numbers(self.twin)
        passes = _Passes(
            self._adapter, self.twin, self._inputs, probe, by_sample=self._by_sample, recorded=self.recorded
        )
        found, warning = passes.compare()
        after = self._state.numbers(self.twin).items()
        counted = [name for name, value in after if value == value and numbers.get(name, value) != value]
        written = (*self._state.changes(self.twin), *counted)
        if written:
            what = "which is undone" if self._state.is_whole else "which stays so: the model is too large to be copied"
            told = f"Its forward pass changes {_some(written)} of the model itself, {what}."
            found, warning = f"{found}. {told}", warning or "The model is changed by being run."
            warning = f"{warning} {told}"
        # Generators of random numbers may be part of the model, too.
        return Purity(found, warning, writes=bool(written) or passes.is_random, by_sample=found == ALONE)

    def _keep(self, found: Purity) -> None:
        if self._state is not None and found.writes:
            self._state.restore()
        if self._adapter.fingerprint(self._model) != self._key[2]:
            return  # it is another one each time for what cannot be seen
        with _lock:
            _kept[self._key] = found
            while len(_kept) > _CAPACITY:
                _kept.popitem(last=False)


class _Passes:
    """The passes that are compared, of one model."""

    def __init__(
        self,
        adapter: FrameworkAdapter,
        model: Any,
        inputs: Inputs,
        probe: Arrays,
        *,
        by_sample: bool = True,
        recorded: bool = False,
    ) -> None:
        self._run_alike, self._run_otherwise = adapter.outputs, adapter.other_outputs
        if recorded:
            self._run_alike, self._run_otherwise = self._run_otherwise, self._run_alike
        self.is_random, self._overwrites, self._by_sample = False, False, by_sample
        self._adapter, self._model, self._inputs, self._probe = adapter, model, inputs, probe
        names = {*adapter.precision(model), *(output.dtype.name for output in probe)}
        units = {name: _UNITS.get(name, _COARSEST) for name in names if "float" in name}
        self._coarsest = max(units.values())
        # What a device may use where it is quicker is no excuse before double precision was asked.
        self._unit = max(unit for name, unit in units.items() if name != _AT_LEISURE)
        # By what is held, if that tells: a sample without padding is no example of one with it.
        unlike = (_last_unlike(arrays, inputs.samples) for arrays in (inputs.held_arrays, inputs.arrays))
        self._other = next((row for row in unlike if row is not None), None)

    @property
    def _arrays(self) -> Arrays:
        return (*self._inputs.arrays, *self._inputs.held_arrays)

    def compare(self) -> tuple[str, str]:
        """What is found, in words, and what to warn of, if there is something."""
        first, self._probe = self._probe, [np.array(output) for output in self._probe]
        for otherwise, rows in product((True, False), self._batches()):
            tensors, before = self._tensors(self._model, rows), self._random_state()
            if (given := self._run(self._model, tensors, len(rows), otherwise=otherwise)) is not None:
                self._overwrites = any(map(_difference, first, self._probe))
                return self._judge(rows, tensors, given, draws=self._random_state() != before, otherwise=otherwise)
        return "not compared: the model fails when it is run again", ""

    def _judge(self, rows: Rows, tensors: list[Any], given: Arrays, *, draws: bool, otherwise: bool) -> tuple[str, str]:
        apart, turn = _apart(rows, given, self._probe), current()
        is_alike = apart <= ROUNDING * self._unit
        for _ in range(DRAWS if draws else 0 if is_alike else 1):
            again = self._run(self._model, tensors, len(rows), otherwise=otherwise)
            changed = np.inf if again is None else max(map(_difference, given, again))
            if changed > REPEATED * self._unit:
                self.is_random = True
                return _random(changed, self._first_apart(tensors, tensors, slice(None), REPEATED))
        if is_alike or self._is_rounding(rows, apart, otherwise=otherwise):
            seeds = turn is not None and turn.seeds
            return self._describe(rows), _OVERWRITES if self._overwrites else _SEEDS if seeds else ""
        if otherwise and self._is_alike(rows, self._run(self._model, tensors, len(rows))):
            return _of_recording(apart)
        alike = self._tensors(self._model, (0,) * len(rows))
        place = slice(rows.index(0), rows.index(0) + 1)
        return _influence(apart, self._first_apart(tensors, alike, place, CERTAIN), held=bool(self._inputs.held_arrays))

    def _is_alike(self, rows: Rows, given: Arrays | None) -> bool:
        """Whether passes agree that are made as the first one was."""
        if given is None:
            return False
        apart = _apart(rows, given, self._probe)
        return apart <= ROUNDING * self._unit or self._is_rounding(rows, apart, otherwise=False)

    def _random_state(self) -> object:
        """State of what random numbers are drawn from, to see whether some were."""
        return random.getstate(), repr(np.random.get_state(legacy=False)), self._adapter.random_state()

    def _batches(self) -> Iterator[Rows]:
        """What is tried, until the model takes it."""
        count, held = self._inputs.samples, self._inputs.held_arrays
        # What is held may tell of the whole batch, such as where each of its samples begins.
        if self._by_sample and all(array.shape[:1] == (count,) or array.size == 1 for array in held):
            for another in (BEYOND, BETWEEN):
                yield self._among(another)
            yield (0, BETWEEN, 0)
            yield (0, 0, BETWEEN)  # some models want their longest sample first
            if count > 1:  # some take no other number of samples
                yield tuple(0 if row == (self._other or count - 1) else row for row in range(count))
        yield tuple(range(count))

    def _among(self, another: int) -> Rows:
        """The first sample twice among others, so that no order, and neither end, is what it was to either of them."""
        if self._other is None:
            return another, 0, 0, another, another
        between = self._other if self._may_be_padded() else another
        is_last = self._other == self._inputs.samples - 1
        return another, 0, between, 0, *(() if is_last else (another,))

    def _may_be_padded(self) -> bool:
        """Whether samples may be of other lengths, so that one of them is no example of all.

        Where they are not, the user's own stay out: beside them a batch may be scaled as it was in the first pass.
        """
        return bool(self._inputs.held_arrays) or any(array.dtype.kind != "f" for array in self._inputs.arrays)

    def _tensors(self, model: Any, rows: Rows) -> list[Any]:
        """What a pass of these samples takes; held values that have no samples as they are."""
        count, held, adapter = self._inputs.samples, self._inputs.held, self._adapter
        if model is self._model and rows == tuple(range(count)):
            return list(self._inputs.passed)
        made_up = self._inputs.other
        batches = [_take(one, rows, self._other) if one.shape[:1] == (count,) else one for one in self._arrays]
        if made_up is not None:
            batches[0] = np.stack([self._arrays[0][row] if row >= 0 else made_up for row in rows])
        tensors = iter([adapter.tensor(batch, model) for batch in batches])
        explained = [next(tensors) for _ in self._inputs.tensors]
        is_read = [adapter.is_tensor(value) and not adapter.unreadable(value) for value in held]
        return [*explained, *(next(tensors) if read else value for value, read in zip(held, is_read, strict=True))]

    def _run(self, model: Any, tensors: list[Any], count: int, *, otherwise: bool = False) -> list[np.ndarray] | None:
        """Its outputs; None if it does not take so many samples, or gives no row for each."""
        run = self._run_otherwise if otherwise else self._run_alike
        try:
            given = [np.asarray(output) for output in flatten(run(model, tensors))]
        except Exception:  # noqa: BLE001 - the user's model may raise anything, and this is only a try
            return None
        given = [output.reshape(output.shape or 1) for output in given] if count == 1 else given
        has_rows = len(given) == len(self._probe) and all(output.shape[:1] == (count,) for output in given)
        return given if has_rows else None

    def _is_rounding(self, rows: Rows, apart: float, *, otherwise: bool) -> bool:
        """In double precision, where the model can be had so; otherwise by how much they are apart."""
        bound = CERTAIN if self._coarsest <= _UNITS["float32"] else ROUNDING
        model = None
        with suppress(Exception):  # of the user's model
            model = self._adapter.in_double(self._model)
        if model is None:
            return apart <= bound * self._coarsest
        every = tuple(range(self._inputs.samples))
        given = self._run(model, self._tensors(model, rows), len(rows), otherwise=otherwise)
        probe = self._run(model, self._tensors(model, every), len(every))
        if given is None or probe is None or given[0].dtype != np.float64:
            return apart <= bound * self._coarsest
        if apart > max(EXCUSED, 4 * ROUNDING * self._coarsest):
            return False
        return _apart(rows, given, probe) <= CERTAIN * _UNITS["float64"]

    def _first_apart(self, tensors: list[Any], others: list[Any], rows: slice, units: float) -> str:
        """The first layer whose values of these rows differ between two passes, in words."""
        with suppress(Exception):  # of the user's model
            values, other = (self._adapter.activations(self._model, one) for one in (tensors, others))
            for name in values:
                if _difference(values[name][rows], other[name][rows]) > units * self._unit:
                    return f", first seen at layer {name!r}"
        return ""

    def _describe(self, rows: Rows) -> str:
        if len(rows) == len(set(rows)):
            return "the same twice; whether samples influence each other was not tried, for want of another batch"
        other = self._inputs.other
        made_up = [_make_sample(array, self._other, BEYOND) for array in self._inputs.arrays]
        others = made_up if other is None else [other, *made_up[1:]]
        if not any((one != array[0]).any() for one, array in zip(others, self._inputs.arrays, strict=True)):
            return f"{ALONE}, as far as samples that are all alike tell"
        return ALONE


def _random(changed: float, place: str) -> tuple[str, str]:
    found = f"random, or with a state: two equal passes differ by {changed:.1e}{place}"
    return found, (
        f"The model is random or keeps a state: two equal passes differ by {changed:.1e}{place}. The attribution is "
        f"of one draw. Switch off what is random or changes from call to call; seed= makes random draws the same again."
    )


def _of_recording(apart: float) -> tuple[str, str]:
    found = f"another function where gradients are recorded: by {apart:.1e}"
    return found, (
        f"The model gives something else where gradients are recorded: its outputs for the same sample differ by "
        f"{apart:.1e}. Methods that differentiate explain what it gives then, those that only run it the other. The "
        f"usual cause is a path for inference alone, as transformer encoders have one for padded samples: switch it "
        f"off, or do without what it cannot do."
    )


def _influence(apart: float, place: str, *, held: bool) -> tuple[str, str]:
    found = f"samples influence each other: by {apart:.1e}{place}"
    causes = (
        "What is held has as many rows as there are samples, and may not be one row for each of them: make it part of "
        "the model (functools.partial). Otherwise the usual"
        if held
        else "The usual"
    )
    return found, (
        f"The model's samples influence each other: beside others, the outputs of the same sample differ by "
        f"{apart:.1e}{place}. {causes} cause are batch statistics (a normalisation that does not use its running "
        f"ones). Give it fixed statistics, or explain one sample at a time (inputs=x[:1])."
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more


# samples


def _take(array: np.ndarray, rows: Rows, other: int | None) -> np.ndarray:
    return np.stack([array[row] if row >= 0 else _make_sample(array, other, row) for row in rows])


def _make_sample(array: np.ndarray, other: int | None, how: int) -> np.ndarray:
    """A sample unlike the first, made of it and the other one (without another: of zeros).

    Whole numbers, whatever their type, stay between: what is looked up by them is there.
    """
    first, last = array[0], np.zeros_like(array[0]) if other is None else array[other]
    if not np.issubdtype(array.dtype, np.floating):
        return last if other is not None or array.dtype == bool else first - first // 2
    is_whole = (first == np.round(first)) & (last == np.round(last)) | (how == BETWEEN)
    drawn = np.random.default_rng(0).uniform(size=first.shape)
    # Far beyond them: where a batch sets the range of what is rounded, a sample within the first one's changes nothing.
    share = np.where(is_whole, 0.1 + 0.8 * drawn, 6 * drawn - 2.5)
    with np.errstate(all="ignore"):
        mixed = np.asarray(first * (1 - share) + last * share).astype(array.dtype)
    return np.where(np.isfinite(mixed), mixed, first) if first.any() or last.any() else share.astype(array.dtype)


def _last_unlike(arrays: Sequence[np.ndarray], count: int) -> int | None:
    """The last sample that is unlike the first."""
    rows = reversed(range(1, count))
    whole = [array for array in arrays if array.shape[:1] == (count,)]
    return next((row for row in rows if any((array[row] != array[0]).any() for array in whole)), None)


# differences


def _apart(rows: Rows, given: Arrays, probe: Arrays) -> float:
    """Largest difference between equal samples, of the batch and of the user's own."""
    known = [(place, row) for place, row in enumerate(rows) if row >= 0]
    pairs = [(values[place], own[row]) for values, own in zip(given, probe, strict=True) for place, row in known]
    pairs += [
        (values[one], values[two])
        for values in given
        for (one, row), (two, same) in combinations(known, 2)
        if row == same
    ]
    return max((_difference(one, two) for one, two in pairs), default=0.0)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Relative L2 difference; infinite between shapes, and where one of them is no number."""
    if one.shape != other.shape:
        return np.inf
    one, other = one.astype(np.float64), other.astype(np.float64)
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    with np.errstate(all="ignore"):
        apart = float(np.linalg.norm(one - other) / max(np.linalg.norm(one), np.linalg.norm(other)))
    return apart if np.isfinite(apart) else np.inf
