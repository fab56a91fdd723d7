"""A data set, explained chunk by chunk into a store. `explain_dataset` is the way of a run."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cfi_core as cfi
from cfi_core import ArgumentError, CFIError, CFIWarning, Explainer, InputError
from cfi_core.errors import warn
from cfi_scale.errors import RunError, StoreError
from cfi_scale.executors import Executor, Session, executor_for, whole_number
from cfi_scale.progress import Meter, metered, say, speaking
from cfi_scale.question import describe, describe_explainer, differences
from cfi_scale.sources import Fields, Source, open_source
from cfi_scale.store import ABSENT, BAD, Layout, Store, Variable, create, hold, place_of, read_own
from cfi_scale.work import Explained, Outcome, Task, Work, fit

if TYPE_CHECKING:
    from xarray import Dataset

BATCH = 32
BATCHES = 8
"""Of a chunk, where nobody says how large it is."""
CHUNK_BYTES = 2**24
"""What the samples of a chunk take at most, where nobody says how large it is."""
AHEAD = 32
"""By how many chunks the store of a stream is made longer at a time."""
LARGEST_ROUNDING = 0.01
_LOOKED_AT = 16
"""Chunks that are there whose first and last samples are compared with the data."""
_SHOWN = 3


def explain_dataset(
    explainer: Explainer,
    data: Any,
    store: str | os.PathLike[str],
    *,
    executor: Any = "serial",
    target: Any = None,
    ids: Any = None,
    fields: Fields | None = None,
    batch_size: int = BATCH,
    chunk_size: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
    checks: str = "sampled",
    predictions: bool = True,
    max_bad: int = 100,
    workers: int | None = None,
    threads: int | None = None,
    resume: bool = True,
    progress: bool = True,
) -> Dataset:
    """Explains every sample of a data set, and writes what is found to a store that can be read while it grows.

    The samples are cut into chunks. A chunk is explained as a whole and written as a whole, then marked; a run that
    ended in whatever way goes on, by the same call, with the chunks that are not marked. What comes of a chunk depends
    on its samples, the explainer, `seed` and its number alone, so that a store that was made in many runs, on any
    number of workers, is the same, to the last bit, as one that was made in one (with as many threads in each process).

    A sample that cannot be explained (it cannot be read, has NaN, has another shape than the others, or the method
    fails on it) is recorded with its error, and the rest goes on.

    Args:
        explainer: Model and method.
        data: An array, a memory map, an array of zarr or HDF5; a tuple of these for several inputs, or a mapping by
            their names; anything with `len()` and `[i]` that gives samples; or an iterable of batches, which must give
            the same ones again when a run goes on. All samples have one shape.
        store: Folder to write.
        executor: `"serial"`, `"dask"` (processes of this machine), `"ray"`, a client of `dask.distributed`, or an
            `Executor`, such as `cfi_scale.Ray(gpus=1)`.
        target: As for `cfi.attribute`; a list or array has one for each sample. None: that of the explainer.
        ids: Of each sample, all different: whole numbers or texts. None: those of the data, or numbers from 0.
        fields: What stands where in a sample (a batch of an iterable) that is a tuple or a dict: `"inputs"`,
            `"target"`, `"id"`, or None for what is left out: `("inputs", "target")`, `{"image": "inputs"}`.
        batch_size: Samples in one call of the explainer.
        chunk_size: Samples of a chunk; None: eight batches, or fewer where they take more than 16 MiB.
        dtype: `"float32"` keeps attributions as they are, `"float16"` in half the space; how far off that is of each
            sample, relative to its largest value, is in the variable `rounding`.
        seed: Of all draws. Each batch has a seed of its own, by its chunk and its place in it.
        checks: Which batches are checked in full, instead of the explainer's own `checks`: one in 16 that the seed
            draws (`"sampled"`), `"every"`, or the `"first"`.
        predictions: Whether a classifier's predictions are kept; that is one more pass for each batch, unless the
            target is `"predicted"`.
        max_bad: So many samples of the store that cannot be explained are recorded; one more ends the run.
        workers: How many processes dask or Ray start; None: one for each core.
        threads: That libraries may use in each of them; None divides the cores.
        resume: Whether to go on with a store that is there. False refuses to touch it.
        progress: Whether to say how far it is: a line in terminals and notebooks, now and then a line of text
            elsewhere.

    Returns:
        The store, opened by xarray (values are read when they are used): `attribution` (of several inputs
        `attribution_0`, … or `attribution_NAME`), `target`, `prediction`, `prediction_value`, `id`, `status` (1:
        explained, 2: see `error`, 0: not yet), `checked` and `completeness` (whether its batch was checked in full, and
        what was found then), `standard_error` (of methods that draw, relative to the values), `digest` (of the sample).

    Raises:
        StoreError: The store answers another question, another run writes to it, or the disk is full.
        RunError: More samples than `max_bad` failed, or chunks killed their workers again and again.
        InputError: The data cannot be used, or are not those that the store was begun with.
        CFIError: As `cfi.attribute`, where the question itself is refused.
    """
    _refuse_in_a_spawned_process()
    if not isinstance(explainer, Explainer):
        raise ArgumentError(f"explainer is a {type(explainer).__name__}. Pass a cfi.Explainer(model, method_key, …).")
    asked = _Asked(batch_size, chunk_size, dtype, seed, checks, predictions, max_bad)
    path = place_of(store).absolute()
    per_sample = _is_of_each_sample(target)
    source = open_source(data, target=target if per_sample else None, ids=ids, fields=fields)
    with speaking(progress), hold(path):
        run = _Run(explainer, source, path, asked, None if per_sample else target)
        run.find_store(resume=resume)
        run.go(executor_for(executor, workers, threads), progress=progress)
    return open_store(path)


def open_store(path: str | os.PathLike[str]) -> Dataset:
    """A store, also one that grows, as a data set of xarray whose values are read when they are used.

    Raises:
        StoreError: There is none.
    """
    import xarray

    place = place_of(path)
    read_own(place)
    return xarray.open_zarr(place, chunks=None)


def _is_of_each_sample(target: Any) -> bool:
    """Whether it is a list or an array; a tuple is a place in a larger output."""
    return isinstance(target, list | range) or (hasattr(target, "__array__") and np.ndim(target) > 0)


@dataclass(frozen=True)
class _Asked:
    """How a run is to be done."""

    batch_size: int
    chunk_size: int | None
    dtype: str
    seed: int
    checks: str
    predictions: bool
    max_bad: int

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("chunk_size", 1), ("seed", 0), ("max_bad", 0)):
            value = getattr(self, name)
            if name != "chunk_size" or value is not None:
                object.__setattr__(self, name, whole_number(name, value, least))
        if not isinstance(self.predictions, bool):
            raise ArgumentError(f"predictions={self.predictions!r} is neither True nor False.")
        if self.dtype not in ("float32", "float16"):
            raise ArgumentError(f"dtype={self.dtype!r} is neither 'float32' (values as they are) nor 'float16'.")
        if self.checks not in ("sampled", "every", "first"):
            raise ArgumentError(f"checks={self.checks!r} is none of 'sampled', 'every' and 'first'.")

    def chunk(self, source: Source) -> int:
        """Samples of a chunk."""
        if self.chunk_size is not None:
            return self.chunk_size
        of_batch = self.batch_size * sum(
            int(np.prod(form.shape)) * np.dtype(form.dtype).itemsize for form in source.forms
        )
        return self.batch_size * max(1, min(BATCHES, CHUNK_BYTES // max(of_batch, 1)))


class _Run:
    """One run: from what is in the store to what is missing."""

    def __init__(self, explainer: Explainer, source: Source, path: Path, asked: _Asked, target: Any) -> None:
        self._explainer, self._source, self._path, self._asked = explainer, source, path, asked
        self._target, self._chunk = target, asked.chunk(source)
        self._store: Store | None = None
        self._done: set[int] = set()
        self._there = 0
        self._total = source.samples
        self._counts = _Counts(asked.max_bad)
        self._question = {**describe_explainer(explainer), **self._describe()}

    def _describe(self) -> dict[str, Any]:
        asked, source = self._asked, self._source
        forms = [str(form) for form in source.forms]
        return {
            "samples": source.samples,
            "inputs": dict(zip(source.names, forms, strict=True)) if source.names else forms,
            "target of all": describe(self._target),
            "batch_size": asked.batch_size,
            "chunk_size": self._chunk,
            "dtype": asked.dtype,
            "seed": asked.seed,
            "checks": asked.checks,
            "predictions": asked.predictions,
        }

    # What is there

    def find_store(self, *, resume: bool) -> None:
        """Looks at what is there already.

        Raises:
            StoreError: It is the answer to another question, or not to be touched.
        """
        if not self._path.exists() or _is_empty(self._path):
            return
        if not resume:
            raise StoreError(f"There is a store at {self._path}. Pass resume=True to go on with it, or remove it.")
        store = Store(self._path)
        if found := differences(self._question, store.own["question"]):
            raise StoreError(
                f"The store {self._path} answers another question: {'; '.join(found)}. Ask the same to go on with it, "
                f"or name another place."
            )
        store.clean()
        self._store, self._done = store, store.done()
        self._there = sum(self._size(number) for number in self._done)
        self._counts.bad = int((store.states() == BAD).sum())
        if self._total is not None:
            self._compare_data(store)
        _tell_versions(store)

    def _size(self, number: int) -> int:
        """Samples of a chunk: fewer in the last one."""
        return self._chunk if self._total is None else min(self._chunk, self._total - number * self._chunk)

    def _compare_data(self, store: Store) -> None:
        """Whether the data are those of the chunks that are there, by a few samples and all ids that were given."""
        numbers = sorted(self._done)
        for number in {*numbers[:: -(-len(numbers) // _LOOKED_AT) or 1], *numbers[-1:]}:
            first = number * self._chunk
            for place in {first, first + self._size(number) - 1}:
                sample = self._source.read(place, place + 1)
                self._compare(store, place, sample.digests(), sample.ids)
        if (ids := self._source.ids) is not None:
            for number in numbers:
                start, stop = number * self._chunk, number * self._chunk + self._size(number)
                self._compare(store, start, store.read("digest", start, stop), ids[start:stop])

    def _compare(self, store: Store, start: int, digests: np.ndarray, ids: Sequence[Any]) -> None:
        """Raises InputError where samples are other ones than those in the store."""
        stored = store.read("digest", start, start + len(digests))
        named = store.read("id", start, start + len(digests))
        same_ids = [str(one) for one in ids] == [str(one) for one in named]  # whole numbers come as numpy's
        # Of a sample that could not be read, then or now, no more is known.
        same = np.all((stored == digests) | (stored == 0) | (digests == 0)) if len(stored) == len(digests) else False
        if not same or not same_ids:
            raise InputError(
                f"The data are not those that {self._path} was begun with: of the samples {start} to "
                f"{start + len(digests) - 1}, values, targets or ids differ. A stream must give the same samples in "
                f"the same order each time (no shuffling, nothing drawn); for other data name another store."
            )

    # What is missing

    def go(self, executor: Executor, *, progress: bool) -> None:
        """Explains what is missing."""
        left = None if self._total is None else self._total - self._there
        if left == 0:
            self._finish()
            return
        try:
            with executor.open(self._work()) as session, metered(left, self._there, progress) as meter:
                tasks = self._tasks()
                if self._store is None:
                    self._begin(session, tasks, meter)
                for outcome in session.run(tasks):
                    self._count(outcome, meter)
        except KeyboardInterrupt:
            say(f"Interrupted. What is in {self._path} stays valid: the same call goes on with the rest.")
            raise
        self._finish()

    def _work(self) -> Work:
        asked = self._asked
        return Work(
            explainer=self._explainer,
            source=self._source if self._source.travels else None,
            path=self._path,
            model=self._question["model"],
            batch=asked.batch_size,
            seed=asked.seed,
            checks=asked.checks,
            half=asked.dtype == "float16",
            predictions=asked.predictions,
            target=self._target,
            most_errors=asked.max_bad,
        )

    def _tasks(self) -> Iterator[Task]:
        """Chunks that are not there, in order."""
        yield from self._of_stream() if self._total is None else self._of_numbers()

    def _of_numbers(self) -> Iterator[Task]:
        assert self._total is not None
        for number, start in enumerate(range(0, self._total, self._chunk)):
            if number not in self._done:
                stop = min(start + self._chunk, self._total)
                samples = None if self._source.travels else self._source.read(start, stop)
                yield Task(number, start, stop, samples)

    def _of_stream(self) -> Iterator[Task]:
        """All of it is read, in order; what is there is compared, and left out."""
        number, total = 0, 0
        while len(samples := self._source.read(total, total + self._chunk)):
            start, total = total, total + len(samples)
            if number in self._done:
                assert self._store is not None
                self._compare(self._store, start, samples.digests(), samples.ids)
            else:
                if self._store is not None and total > self._store.own["samples"]:
                    self._refuse_longer(self._store)
                    self._store.resize(start + AHEAD * self._chunk)
                yield Task(number, start, total, samples)
            number += 1
        self._total = total
        if self._store is not None:
            self._refuse_shorter(self._store, total)

    def _refuse_longer(self, store: Store) -> None:
        """Raises InputError where a stream goes on behind where it ended before."""
        if store.own.get("complete"):
            raise self._say_other_length("more", store.own["samples"])

    def _refuse_shorter(self, store: Store, total: int) -> None:
        """Raises InputError where a stream ends before samples that are in the store."""
        known = np.flatnonzero(store.states() != ABSENT)
        if len(known) and known[-1] >= total:
            raise self._say_other_length(total, known[-1] + 1)

    def _say_other_length(self, found: Any, known: int) -> InputError:
        return InputError(
            f"The data are not those that {self._path} was begun with: there were {known} samples, and there are "
            f"{found} now. A stream must give the same samples again; for other data name another store."
        )

    def _begin(self, session: Session, tasks: Iterator[Task], meter: Meter) -> None:
        """Explains as many chunks as there are workers, and makes the store of what the first one tells.

        Raises:
            CFIError: Nothing could be explained.
        """
        held: list[Outcome] = []
        while not any(outcome.explained and outcome.explained.attributes for outcome in held):
            few = [replace(task, writes=False) for task in islice(tasks, session.width)]
            if not few:
                raise _say_nothing_explained(held)
            for outcome in session.run(few):
                held.append(outcome)
                self._count(outcome, meter, refuse=_is_to_blame)
        held.sort(key=lambda outcome: outcome.number)
        explained = [outcome.explained for outcome in held if outcome.explained is not None]
        first = next(one for one in explained if one.attributes)
        self._store = self._create(first, held)
        for outcome, one in zip(held, explained, strict=True):
            self._store.write(outcome.number, fit(self._store.variables, one.variables))

    def _create(self, first: Explained, held: Sequence[Outcome]) -> Store:
        if self._asked.dtype == "float16" and (off := max(outcome.rounding for outcome in held)) > LARGEST_ROUNDING:
            raise ArgumentError(
                f"dtype='float16' cannot hold these values: they would be off by up to {off:.0%} of a sample's "
                f"largest. Leave dtype out."
            )
        variables = {name: Variable.of(values, first.dims[name]) for name, values in first.variables.items()}
        layout = Layout(variables, first.coordinates, first.attributes, self._chunk)
        known = sum(outcome.samples for outcome in held) if self._total is None else self._total
        return create(self._path, layout, {"question": self._question}, known)

    def _count(self, outcome: Outcome, meter: Meter, refuse: Any = None) -> None:
        if refuse is not None and refuse(outcome):
            raise _say_nothing_explained([outcome])
        self._counts.add(outcome)
        meter.move(outcome.samples)

    def _finish(self) -> None:
        """Tells what there is to tell, and notes that the store is complete."""
        store = self._store
        if store is None:
            raise InputError("There is no sample to explain: data are empty.")
        assert self._total is not None
        if store.own["samples"] != self._total:
            store.resize(self._total)
        bad = int((store.states() == BAD).sum())
        facts: dict[str, Any] = {"complete": True, "bad": bad}
        if "rounding" in store.variables:
            off = float(np.nanmax(store.read("rounding", 0, self._total), initial=0))
            facts["rounding"] = off
            say(f"float16: values are off by at most {off:.1e} of a sample's largest (variable 'rounding').")
        store.settle(**facts)
        self._tell_ids(store)
        self._counts.tell()
        if bad:
            say(f"{bad:,} of {self._total:,} samples could not be explained; the variable 'error' says why.")

    def _tell_ids(self, store: Store) -> None:
        """Warns where samples brought an id that others have; in one chunk that is refused."""
        if self._source.brings_ids:
            names, counts = np.unique(store.read("id", 0, int(store.own["samples"])), return_counts=True)
            if double := [str(name) for name in names[counts > 1]]:
                told = f"{len(double):,} ids stand for several samples each, such as {double[0]!r}"
                warn(f"{told}. Go by the number of a sample, not by its id.", CFIWarning)


@dataclass(eq=False)
class _Counts:
    """What outcomes tell beside their chunks."""

    most: int
    bad: int = 0
    examples: list[str] = field(default_factory=list)
    warned: Counter[tuple[str, str]] = field(default_factory=Counter)
    rounding: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Raises RunError where too many samples failed."""
        self.bad += len(outcome.errors)
        self.examples += [f"{name}: {text}" for name, text in outcome.errors[: _SHOWN - len(self.examples)]]
        self.warned.update(outcome.warned)
        self.rounding = max(self.rounding, outcome.rounding)
        if self.bad > self.most:
            raise RunError(
                f"{self.bad} samples could not be explained, and max_bad is {self.most}. "
                f"{'; '.join(self.examples)}. Mend them, or pass a larger max_bad: the run goes on where it stopped."
            )

    def tell(self) -> None:
        """Warns once of what was warned of in workers."""
        for (kind, text), count in self.warned.items():
            category = getattr(cfi, kind, CFIWarning)
            warn(text if count == 1 else f"{text} ({count} times in this run)", category)
        if self.rounding > LARGEST_ROUNDING:
            warn(f"float16 is off by up to {self.rounding:.0%} of a sample's largest value.", CFIWarning)


def _is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it, which a store may take the place of."""
    return path.is_dir() and not any(path.iterdir())


def _is_to_blame(outcome: Outcome) -> bool:
    """Whether it is the question that is refused: the method failed on every sample that it was given."""
    return outcome.cause is not None and outcome.explained is not None and not outcome.explained.attributes


def _say_nothing_explained(outcomes: Sequence[Outcome]) -> CFIError:
    """Why nothing can be explained."""
    cause = next((outcome.cause for outcome in outcomes if outcome.cause is not None), None)
    if isinstance(cause, CFIError):
        return cause
    examples = "; ".join(f"{name}: {text}" for outcome in outcomes for name, text in outcome.errors[:_SHOWN])
    error = RunError(f"No sample could be explained. {examples or 'There is none.'}")
    error.__cause__ = cause
    return error


def _tell_versions(store: Store) -> None:
    """Warns where the store was begun with other versions of what makes the values."""
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]
    changed = []
    for name, stored in json.loads(attributes.get("versions", "{}")).items():
        try:
            now = version(name)
        except PackageNotFoundError:  # of Python itself, or a name that is none of a distribution
            continue
        if now != stored:
            changed.append(f"{name} was {stored} and is {now}")
    if changed:
        warn(f"The store was begun with other versions: {'; '.join(changed)}. Values may differ a little.", CFIWarning)


def _refuse_in_a_spawned_process() -> None:
    """A script that starts processes is imported by these: without a guard, each would start the run again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RunError(
            "The processes that dask starts import your script, and would start the run again. Put what the script "
            "does under if __name__ == '__main__':, or run it in a notebook."
        )
