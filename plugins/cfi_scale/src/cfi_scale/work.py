"""What a worker does with a chunk: explains its samples, and writes them to the store.

Nothing that comes of a chunk depends on what the process did before: its draws, and which of its batches are checked
in full, follow from the seed and the number of the chunk. So a chunk is the same wherever, and however often, it is
made.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cfi_core import Attribution, CFIWarning, Explainer
from cfi_core.detection import load_original
from cfi_core.errors import FOREIGN, summary
from cfi_core.framework import flatten
from cfi_core.registry import registry
from cfi_scale.errors import RunError, StoreError
from cfi_scale.question import hash_of_model
from cfi_scale.samples import Samples, plain_text
from cfi_scale.sources import Source
from cfi_scale.store import BAD, EXPLAINED, Store, Variable, read_own

CHECKED = 16
"""One batch in so many is checked in full."""
ATTRIBUTION = "attribution"
_SMALLEST = 1e-30
"""No value is taken to be smaller, where errors are told relative to it."""
_TOO_LARGE = "its values are too large for float16, which ends at 65504"
_VOLATILE = ("seconds", "seconds_per_step", "predicted", "target", "target_in_words", "classes", "seed", "completeness")
"""What the provenance holds of a batch alone."""

Rows = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Values by the names of variables, with the axes behind that of the samples."""


@dataclass(frozen=True, eq=False)
class Work:
    """All that a worker needs to know, sent to each once.

    Attributes:
        explainer: What explains.
        source: Where it reads samples; None where these come with the tasks.
        path: Of the store.
        model: Hash of the model's content.
        batch: Samples in a call of the explainer.
        seed: Of all draws.
        checks: Which batches are checked in full: `"sampled"`, `"every"` or `"first"`.
        half: Whether attributions are kept in half precision.
        predictions: Whether the model's predictions are kept.
        target: Of all samples; None where they have their own, or the explainer has one.
        most_errors: So many bad samples end the run.
    """

    explainer: Explainer
    source: Source | None
    path: Path
    model: str
    batch: int
    seed: int
    checks: str = "sampled"
    half: bool = False
    predictions: bool = True
    target: Any = None
    most_errors: int = 100


@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to explain.

    Attributes:
        number: Of the chunk.
        start: Number of its first sample.
        stop: Number of the sample behind its last.
        samples: Its samples, where the worker does not read them.
        writes: Whether it is written to the store, or given back.
    """

    number: int
    start: int
    stop: int
    samples: Samples | None = None
    writes: bool = True


@dataclass(frozen=True, eq=False)
class Explained:
    """What came of a chunk.

    Attributes:
        variables: Of all of its samples.
        dims: Of each variable, behind the axis of samples.
        coordinates: Along other axes: dims and values.
        attributes: Of the store, as this chunk tells them; empty where no sample could be explained.
    """

    variables: Mapping[str, np.ndarray]
    dims: Mapping[str, tuple[str, ...]]
    coordinates: Rows
    attributes: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a chunk ended.

    Attributes:
        number: Of the chunk.
        samples: How many it has.
        errors: Ids and errors of those that could not be explained.
        warned: What CFI warned of, and how often: kind and text.
        rounding: The largest relative error of half precision.
        explained: What came of it, where it was not written.
        cause: What failed first in the explainer, where nothing could be explained.
    """

    number: int
    samples: int
    errors: tuple[tuple[Any, str], ...] = ()
    warned: Mapping[tuple[str, str], int] = field(default_factory=dict)
    rounding: float = 0.0
    explained: Explained | None = None
    cause: Exception | None = None


class Worker:
    """What explains one chunk after the other in a process, and keeps model and store open."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._store: Store | None = None
        self._is_checked = False
        self._predictor: _Predictor | None = None

    def carry_out(self, task: Task) -> Outcome:
        """Explains a chunk and writes it.

        Raises:
            StoreError: It cannot be written.
            RunError: The model here is another one, or the store cannot be seen.
        """
        work, samples = self.work, task.samples
        if samples is None:
            assert work.source is not None
            samples = work.source.read(task.start, task.stop)
        with _noted() as warned:
            made = _Chunk(self, task, samples)
            explained = made.explain()
        errors = tuple((samples.ids[place], plain_text(text)) for place, text in sorted(made.errors.items()))
        off = explained.variables.get("rounding", np.zeros(0))
        rounding = float(np.nanmax(off, initial=0))
        outcome = Outcome(task.number, len(samples), errors, dict(warned), rounding, cause=made.cause)
        if not task.writes:
            return replace(outcome, explained=explained)
        if len(errors) <= work.most_errors:
            self.write(task.number, explained.variables)
        return outcome

    def write(self, number: int, variables: Mapping[str, np.ndarray]) -> None:
        """Writes a chunk to the store."""
        if self._store is None:
            self._store = _open_store(self.work.path)
        self._store.write(number, fit(self._store.variables, variables))

    def check_model(self) -> None:
        """Once: a model that is made anew in this process must be the same one.

        Raises:
            RunError: It is not.
        """
        if self._is_checked:
            return
        found = hash_of_model(self.work.explainer)
        if found != self.work.model:
            raise RunError(
                f"The model of a worker is another one than yours ({found[:12]} and {self.work.model[:12]}): a factory "
                f"must make the same model each time, weights included."
            )
        self._is_checked = True

    def predict(self, inputs: Any) -> Rows:
        """What the user's model predicts."""
        if isinstance(inputs, dict):
            return {}
        if self._predictor is None:
            self._predictor = _Predictor(self.work.explainer, inputs)
        return self._predictor.predict(inputs if isinstance(inputs, tuple) else (inputs,))


def fit(known: Mapping[str, Variable], variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A chunk as the store holds it: what it lacks (where no sample could be explained) is absent.

    Raises:
        RunError: It holds something of another shape or type.
    """
    samples = len(variables["status"])
    whole = {name: variables.get(name, one.empty(samples)) for name, one in known.items()}
    for name, one in known.items():
        own = Variable.of(whole[name])
        if (own.shape, own.dtype) != (one.shape, one.dtype):
            raise RunError(
                f"{name} is {own.shape} of {own.dtype} in a chunk, and {one.shape} of {one.dtype} before it."
            )
    return whole


def _open_store(path: Path) -> Store:
    try:
        read_own(path)
    except StoreError as error:
        raise RunError(
            f"A worker cannot see the store ({error}) Put it on a file system that all workers share."
        ) from error
    return Store(path)


class _Chunk:
    """The samples of a chunk on their way."""

    def __init__(self, worker: Worker, task: Task, samples: Samples) -> None:
        self._worker, self._work, self._samples = worker, worker.work, samples
        self._number, self._gives_back = task.number, not task.writes
        self.errors: dict[int, str] = dict(samples.errors)
        self.cause: Exception | None = None
        self._variables: dict[str, np.ndarray] = {}
        self._dims: dict[str, tuple[str, ...]] = {}
        self._first: Attribution | None = None

    def explain(self) -> Explained:
        """Batch after batch."""
        samples, size = self._samples, self._work.batch
        for start in range(0, len(samples.good), size):
            self._explain(start, min(start + size, len(samples.good)), start)
        whole = self._whole()
        if self._first is None or not self._gives_back:
            return Explained(whole, self._dims, {}, {})
        return Explained(whole, self._dims, _names_along(self._first), _attributes(self._first))

    def _explain(self, start: int, stop: int, batch: int) -> None:
        """Good samples from one to another; halves, where that fails, down to the samples that are to blame."""
        if len(self.errors) > self._work.most_errors:
            return
        try:
            made = self._call(start, stop, batch)
        except (StoreError, RunError):
            raise
        except FOREIGN as error:
            self.cause = self.cause or (error if isinstance(error, Exception) else RunError(summary(error)))
            if stop - start == 1:
                self.errors[self._samples.good[start]] = summary(error)
                return
        else:
            self._keep(made, start, stop)
            return
        middle = (start + stop) // 2
        self._explain(start, middle, batch)
        self._explain(middle, stop, batch)

    def _call(self, start: int, stop: int, batch: int) -> Rows:
        work, samples = self._work, self._samples
        inputs = samples.inputs(slice(start, stop))
        target = work.target if samples.targets is None else list(samples.targets[start:stop])
        seed, checked = _drawn(work, self._number, batch, start)
        # What the store tells of all samples is made of the first attribution, whatever this process explained before.
        full = checked or (self._gives_back and self._first is None)
        attribution = work.explainer(inputs, target, seed=seed, check=full)
        self._worker.check_model()
        self._first = self._first or attribution
        found = _variables(attribution, stop - start, checked=checked)
        if work.predictions and "prediction" not in found:
            found |= self._worker.predict(inputs)
        return found | _in_half(found) if work.half else found

    def _keep(self, made: Rows, start: int, stop: int) -> None:
        """Puts the rows of a batch into those of the chunk."""
        places = list(self._samples.good[start:stop])
        for name, (dims, values) in made.items():
            if name not in self._variables:
                self._variables[name] = Variable.of(values, dims).empty(len(self._samples))
                self._dims[name] = dims
            if values.shape[1:] != self._variables[name].shape[1:]:
                shape = self._variables[name].shape[1:]
                self.errors |= dict.fromkeys(places, f"{name} has the shape {values.shape[1:]}, that of others {shape}")
                return
            self._variables[name][places] = values
        if "rounding" in made:
            over = np.flatnonzero(np.isinf(made["rounding"][1]))
            self.errors |= dict.fromkeys((places[row] for row in over), _TOO_LARGE)

    def _whole(self) -> dict[str, np.ndarray]:
        """All variables, with those of every chunk."""
        samples = self._samples
        bad = sorted(self.errors)
        status = np.full(len(samples), EXPLAINED, np.uint8)
        status[bad] = BAD
        errors = np.full(len(samples), "", object)
        errors[bad] = [plain_text(self.errors[place]) for place in bad]
        whole = {name: _without(values, bad) for name, values in self._variables.items()}
        whole |= {"id": _ids(samples.ids), "digest": samples.digests(), "error": errors, "status": status}
        self._dims |= dict.fromkeys(("id", "digest", "error", "status"), ())
        return whole


def _without(values: np.ndarray, bad: list[int]) -> np.ndarray:
    values[bad] = Variable.of(values).fill
    return values


def _ids(ids: Any) -> np.ndarray:
    numbers = all(isinstance(one, int) for one in ids)
    return np.array(ids, np.int64) if numbers else np.array(ids, object)


def _drawn(work: Work, number: int, batch: int, start: int) -> tuple[int, bool]:
    """The seed of a call, and whether its batch is checked in full: the first of all is."""
    seed = np.random.SeedSequence([work.seed, number, start]).generate_state(1)[0]
    first = number == batch == 0
    chance = int(np.random.SeedSequence([work.seed, number, batch, CHECKED]).generate_state(1)[0])
    drawn = {"sampled": chance % CHECKED == 0, "every": True, "first": False}[work.checks]
    return int(seed), first or drawn


@contextmanager
def _noted() -> Iterator[Counter[tuple[str, str]]]:
    """What CFI warns of meanwhile, counted, and not shown here."""
    found: Counter[tuple[str, str]] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CFIWarning)
        yield found
    for one in caught:
        found[type(one.message).__name__, str(one.message)] += 1


# What an attribution holds of each sample


def _variables(attribution: Attribution, samples: int, *, checked: bool) -> Rows:
    """Values, what was explained, what was checked, and what was predicted, if that is known of every batch."""
    found = {}
    for name, (values, dims) in zip(_names(attribution), attribution.parts, strict=True):
        if dims[:1] != ("sample",) or len(values) != samples:
            raise RunError(f"{attribution.method_key} gives no values for each sample, which a store holds.")
        found[name] = _own_axes(name, dims[1:]), values
    provenance = attribution.provenance
    found |= _targets(provenance.get("target"), provenance.get("classes"), samples)
    found |= _checks(attribution, samples, checked=checked)
    predicted = provenance.get("predicted") if _is_predicted(attribution) else None
    return found | (_as_predictions(predicted) if predicted else {})


def _names(attribution: Attribution) -> list[str]:
    """Of the variables of its arrays."""
    if isinstance(attribution.values, Mapping):
        return [f"{ATTRIBUTION}_{name}" for name in attribution.values]
    count = len(attribution.parts)
    return [f"{ATTRIBUTION}_{part}" for part in range(count)] if count > 1 else [ATTRIBUTION]


def _own_axes(name: str, dims: tuple[str, ...]) -> tuple[str, ...]:
    """Sizes differ from part to part, so every axis but the samples is named by its part."""
    part = name.removeprefix(ATTRIBUTION)
    return tuple(f"{dim}{part}" for dim in dims)


def _targets(resolved: Any, classes: Any, samples: int) -> Rows:
    """What was explained of each sample: an index, or a text (a place in a larger output, a function), and its name."""
    found: Rows = {}
    if isinstance(resolved, tuple) and resolved:
        *path, last = resolved
        index = last if isinstance(last, tuple | str) and not (path and isinstance(path[0], tuple)) else resolved
        per_sample = isinstance(index, tuple) and isinstance(index[0], tuple)
        each = [_flat(one) for one in index] if per_sample else [_flat(index)] * samples
        if len(each) == samples:
            numbers = all(isinstance(one, int | np.integer) for one in each)
            found["target"] = (), np.array(each, np.int64) if numbers else np.array([str(one) for one in each], object)
    if classes and len(classes) in (1, samples):
        found["target_name"] = (), np.array([*classes] * (samples if len(classes) == 1 else 1), object)
    return found


def _flat(index: Any) -> Any:
    return index[0] if isinstance(index, tuple) and len(index) == 1 else index


def _is_predicted(attribution: Attribution) -> bool:
    """Whether predictions are known of every batch, since the target is made of them."""
    return isinstance(attribution.target, str) and attribution.target == "predicted"


def _checks(attribution: Attribution, samples: int, *, checked: bool) -> Rows:
    """Of batches that are checked in full by the draw: `checked`, and the largest gap of the sums in that batch."""
    completeness = attribution.provenance.get("completeness") or {}
    gap = completeness.get("gap") if checked else None
    found: Rows = {"checked": ((), np.full(samples, checked, np.uint8))}
    found["completeness"] = (), np.full(samples, np.nan if gap is None else gap, np.float32)
    errors = attribution.extras.get("standard_error")
    if isinstance(errors, np.ndarray) and isinstance(attribution.values, np.ndarray):
        found["standard_error"] = (), _relative(errors, attribution.values)
    return found


def _relative(errors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Norm of the errors of each sample, relative to that of its values."""
    axes = tuple(range(1, values.ndim))
    norms = [np.sqrt(np.square(one.astype(np.float64)).sum(axes)) for one in (errors, values)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms[1] > 0, norms[0] / norms[1], 0).astype(np.float32)


def _as_predictions(predicted: Any) -> Rows:
    return {
        "prediction": ((), np.array([one["class"] for one in predicted], np.int64)),
        "prediction_value": ((), np.array([one["value"] for one in predicted], np.float32)),
    }


class _Predictor:
    """Passes of the user's model, of which each batch takes one."""

    def __init__(self, explainer: Explainer, inputs: Any) -> None:
        original = load_original(registry(), explainer.plan.arguments.model, inputs)
        self._adapter, self._model = original.adapter, original.adapter.twin(original.model)

    def predict(self, inputs: tuple[np.ndarray, ...]) -> Rows:
        """Classes and their values, of a classifier with one output; nothing of any other."""
        outputs = flatten(
            self._adapter.outputs(self._model, [self._adapter.tensor(one, self._model) for one in inputs])
        )
        scores = np.asarray(outputs[0])
        is_classifier = len(outputs) == 1 and scores.ndim == 2 and scores.shape[1] > 1 and scores.dtype.kind in "fiu"
        if not is_classifier or not np.isfinite(scores).all():
            return {}
        best = scores.argmax(1)
        values = scores[np.arange(len(best)), best]
        return {"prediction": ((), best.astype(np.int64)), "prediction_value": ((), values.astype(np.float32))}


def _in_half(found: Rows) -> Rows:
    """Attributions in half precision, and how far off that is of each sample, relative to its largest value."""
    halves: Rows = {}
    worst: np.ndarray | None = None
    for name, (dims, values) in found.items():
        if not name.startswith(ATTRIBUTION) or values.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        axes = tuple(range(1, values.ndim))
        largest = np.maximum(np.abs(values).max(axes, initial=0), _SMALLEST)
        off = np.abs(half.astype(np.float32) - values).max(axes, initial=0) / largest
        worst = off if worst is None else np.maximum(worst, off)
        halves[name] = dims, half
    if worst is not None:
        halves["rounding"] = (), worst.astype(np.float32)
    return halves


def _names_along(attribution: Attribution) -> Rows:
    """Names along other axes than that of the samples; positions say nothing."""
    found = {}
    for name, one in attribution.to_xarray().coords.items():
        values = np.asarray(one.values)
        if "sample" not in one.dims and values.dtype.kind in "OUT":
            found[str(name)] = tuple(map(str, one.dims)), values.astype(str)
    return found


def _attributes(attribution: Attribution) -> dict[str, str]:
    """Texts of the store: what is the same for all samples."""
    provenance = {name: one for name, one in attribution.metadata["provenance"].items() if name not in _VOLATILE}
    made = {str(name): str(text) for name, text in attribution.to_xarray().attrs.items()}
    made.pop("seed", None)
    made.pop("target", None)
    return {**made, "provenance": json.dumps(provenance, ensure_ascii=False)}
