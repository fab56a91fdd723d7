"""How many samples are explained together, and how many rows go through the model at once (`batch_size=`).

A number bounds both. "auto" finds one, for a model's content, a method and a shape of inputs, and keeps it. On the CPU
the run itself tells: its first portions are small, and as long as the memory that the last one took allows it, the next
may have twice as many rows, up to what sizes say (`rows_at_once`), beyond which nothing is gained there. On a device
with memory of its own it begins with more. Wherever memory does not suffice, half as many rows are tried, and what was
explained so far stays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cfi_core.adapters import framework_of_tensor, is_array, is_number
from cfi_core.errors import InputError, OutOfMemoryError, summary
from cfi_core.framework import FrameworkAdapter, flatten, map_structure, rows_at_once
from cfi_core.framework import memory as system
from cfi_core.progress import logger_of
from cfi_core.records import Call, Prepared
from cfi_core.registry import Registry
from cfi_core.specs import BatchSize, Samples
from cfi_core.turns import Lock

SHARE = 0.5
"""Of the memory that is free, what one pass may take."""

BEGIN, ON_DEVICE = 8, 16
"""What part of the rows that sizes say is tried first; how many times more on a device with memory of its own."""

_SAME = 1e-4  # relative difference of outputs of a sample by itself and beside others
_CAPACITY = 256

_log = logger_of(__name__)


@dataclass(frozen=True)
class Size:
    """How many rows are known to fit, for a model, a method and a shape of inputs."""

    rows: int
    settled: bool
    how: str


_kept: OrderedDict[tuple[Any, ...], Size] = OrderedDict()
_lock = Lock()


class Division:
    """How the samples of one run are divided.

    Attributes:
        rows: How many may go through the model at once, at most, in the next portion.
        together: How many samples it may have.
    """

    def __init__(self, registry: Registry, call: Call, prepared: Prepared, *, alone: bool) -> None:
        """Of a run.

        Args:
            registry: Knows tensors.
            call: The call.
            prepared: The model that runs.
            alone: Whether each sample has a run of its own anyway.

        Raises:
            ArgumentError: Its samples cannot be divided so (`InputError`: they influence each other in the model).
        """
        self._asked, self._call = call.plan.arguments.batch_size, call
        self._adapters = (call.original.adapter, prepared.adapter)
        self._alone = alone or _goes_alone(registry, call)
        self._mixed = _mixes(call)
        self._whole = self._mixed or _must_be_whole(call)
        self._of_sample = _rows_together(registry, call)
        self._key = _key(call, prepared)
        shapes = [array.shape for array in call.inputs.arrays]
        self._most = rows_at_once(shapes, 1)
        self._halved = 0
        if self._asked != "auto":
            assert self._asked is not None
            self._size = Size(self._asked, True, "as asked")
        else:
            self._size = self._known() or self._begin(prepared)
        if self._whole and self._asked == "auto":
            self._size = replace(self._size, how=f"all samples together: {self._whole}")
        elif self._mixed or (self._whole and self._size.rows < call.inputs.samples):
            raise InputError(f"batch_size={self._asked} would divide what goes through the model, but {self._whole}")
        elif call.inputs.samples > 1 and not self._whole:
            check_apart(call)

    @property
    def rows(self) -> int | None:
        """How many may go through the model at once, at most; None where whatever is beside a row changes it."""
        return None if self._mixed else self._size.rows

    @property
    def together(self) -> int:
        """How many samples a portion may have."""
        samples = self._call.inputs.samples
        return (
            samples if self._whole else 1 if self._alone else min(max(self._size.rows // self._of_sample, 1), samples)
        )

    def notes(self) -> dict[str, Any]:
        """For the provenance."""
        notes = {"asked": self._asked, "rows": self.rows, "samples": self.together, "how": self._size.how}
        return notes | ({"halved": self._halved} if self._halved else {})

    @contextmanager
    def watch(self) -> Iterator[Callable[[int], None] | None]:
        """Looks, inside, at the memory that a portion takes, while the size is not settled.

        Yields:
            What is to be told of each pass how many rows it has; None where it need not be.
        """
        if self._size.settled:
            yield None
            return
        passes: list[int] = [0]
        with system.Peak() as peak:
            yield lambda rows: passes.append(rows)
        self._learn(max(*passes, self.together), peak.growth)

    def halve(self, error: BaseException) -> None:
        """Half as many rows from now on.

        Raises:
            OutOfMemoryError: There was one sample with one row.
        """
        rows, method = self._size.rows, self._call.plan.method
        if rows <= 1 or self._mixed:
            what = f"all {self.together} samples, which stay together" if self._whole else "one sample"
            raise OutOfMemoryError(
                f"{method.key} of {method.toolset} ran out of memory on {what}, one row at a time ({summary(error)}). "
                f"Take smaller inputs, a smaller model or half precision, fewer baselines or features, or a device "
                f"with more memory."
            ) from error
        self._halved += 1
        self._keep(Size(rows // 2, True, "halved after memory did not suffice"))
        _log.info("%s: memory did not suffice for %d rows; %d are tried", method.key, rows, rows // 2)

    def ran_out(self, error: BaseException) -> bool:
        """Whether memory did not suffice."""
        return ran_out(error, self._adapters)

    def release(self) -> None:
        """Gives back what nothing uses any more, when the error is gone that held it."""
        for adapter in self._adapters:
            adapter.release_memory()

    def _begin(self, prepared: Prepared) -> Size:
        original = self._call.original
        pairs = ((original.adapter, original.model), (prepared.adapter, prepared.model))
        if any(adapter.is_accelerated(model) for adapter, model in pairs):
            return Size(self._most * ON_DEVICE, True, "tried on the device, and halved where memory does not suffice")
        if system.taken() is None or system.available() is None:
            return Size(
                self._most, True, "by the size of the inputs; this system does not tell how much memory is free"
            )
        return Size(max(self._most // BEGIN, 1), False, "being found, by the memory that smaller portions took")

    def _learn(self, rows: int, growth: int | None) -> None:
        """From a portion that had so many rows in its largest pass."""
        free = system.available()
        if growth is None or free is None:
            return
        fitting = max(int(SHARE * (free + growth) / max(growth / rows, 1)), 1)
        following = min(max(2 * rows, self._size.rows), self._most, fitting)
        settled = following >= self._most or following == fitting or self._size.rows >= self._most
        bound = "by the size of the inputs" if following < fitting else "by the memory that is free"
        how = f"{bound}; {rows} rows took {growth / 2**20:.0f} MiB of {(free + growth) / 2**20:.0f}"
        self._keep(Size(following, settled, how))

    def _known(self) -> Size | None:
        with _lock:
            return _kept.get(self._key)

    def _keep(self, size: Size) -> None:
        self._size = size
        if self._asked != "auto":
            return
        with _lock:
            _kept[self._key] = size
            _kept.move_to_end(self._key)
            while len(_kept) > _CAPACITY:
                _kept.popitem(last=False)


def forget_sizes() -> None:
    """What "auto" has found is found anew."""
    with _lock:
        _kept.clear()


def _key(call: Call, prepared: Prepared) -> tuple[Any, ...]:
    """What a size is kept for."""
    method, route = call.plan.method, prepared.translation.route.names if prepared.translation else ()
    shapes = tuple((array.shape[1:], array.dtype.str) for array in call.inputs.arrays)
    return (call.original.framework, call.fingerprint, method.toolset, method.key, call.plan.layers, route, shapes)


def _goes_alone(registry: Registry, call: Call) -> bool:
    """Whether what the method gives a sample, or draws for it, depends on how many stand beside it.

    Functions among own arguments may draw, or be told of all samples; and scores in the toolset's own words are of all.
    """
    method, own = call.plan.method, call.plan.arguments.own
    roles = method.roles
    functions = [name for name, value in own.items() if _is_function(registry, value) and name not in roles]
    return method.samples is Samples.ALONE or bool(functions) or call.plan.own_target


def _rows_together(registry: Registry, call: Call) -> int:
    """How many rows of a sample go through the model together in any case."""
    method, given = call.plan.method, call.plan.arguments.baselines
    parts = given if isinstance(given, tuple) else (given,)
    baselines = max((len(part) for part in parts if not is_number(part) and is_array(registry, part)), default=1)
    return method.rows_together * (baselines if method.for_each_baseline else 1)


def _is_function(registry: Registry, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_function(registry, part) for part in value)
    return callable(value) and framework_of_tensor(registry, value) is None


def _must_be_whole(call: Call) -> str:
    """Why the samples cannot be divided, as the end of a sentence; empty if they can."""
    method = call.plan.method
    if method.samples is Samples.TOGETHER:
        return (
            f"{method.key} of {method.toolset} makes the values of a sample from the other samples. Leave batch_size "
            f"out, or pass at least the number of samples."
        )
    return ""


def _mixes(call: Call) -> str:
    """The same, where it is for the model."""
    found = call.purity.found
    is_mixed = found.startswith(("samples influence", "random"))
    return f"of your model it was found: {found}. Leave batch_size out." if is_mixed else ""


def check_apart(call: Call) -> None:
    """Refuses to divide samples of a model of which it is not known that each is explained by itself.

    Raises:
        InputError: The last sample by itself has another output than beside the others.
    """
    found, original, adapter = call.purity.found, call.original, call.original.adapter
    if call.purity.by_sample or found.startswith("a function of each sample") or original.function is not None:
        return  # a target function is tried by `check_function`
    last = slice(call.inputs.samples - 1, None)
    passed = take_rows(adapter, call.inputs.passed, call.inputs.samples, last)
    try:
        alone = flatten(adapter.outputs(adapter.twin(original.model), passed))
    except Exception as error:  # the user's model may raise anything
        raise InputError(f"{_NOT_APART}: it fails on one ({summary(error)}). Leave batch_size out.") from error
    for one, whole in zip(alone, flatten(call.outputs), strict=True):
        scale = float(np.abs(whole).max(initial=0.0))
        if one.shape != whole[last].shape or not np.abs(one - whole[last]).max(initial=0.0) <= _SAME * scale:
            raise InputError(f"{_NOT_APART}: it gives another output for one than beside the others.")


_NOT_APART = "batch_size divides the samples, and the model does not take them apart"


def ran_out(error: BaseException | None, adapters: Sequence[FrameworkAdapter]) -> bool:
    """Whether an error, or what it was raised from, says that memory did not suffice."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(adapter.is_out_of_memory(error) for adapter in adapters):
            return True
        error = error.__cause__ or error.__context__
    return False


# passes of the user's own model


def run_apart(
    adapter: FrameworkAdapter,
    run: Callable[[Sequence[Any]], Any],
    passed: Sequence[Any],
    arrays: Sequence[np.ndarray],
    batch_size: BatchSize,
) -> Any:
    """What a pass gives for all samples, in portions of as many as may go through a model at once.

    Args:
        adapter: Of the model's framework.
        run: From all that a forward pass takes to arrays, in whatever structure.
        passed: All that it takes.
        arrays: The explained ones among it, of as many samples.
        batch_size: As the user gave it.

    Raises:
        InputError: The outputs have no row for each sample.
        Exception: Whatever the model raises.
    """
    samples = len(arrays[0])
    most = rows_at_once([array.shape for array in arrays], 1) if batch_size == "auto" else batch_size
    if most is None:
        return run(passed)
    rows, at, parts = min(most, samples), 0, []
    while at < samples:
        some, failed = slice(at, min(at + rows, samples)), False
        try:
            parts.append(_run(run, take_rows(adapter, passed, samples, some), some, samples))
        except Exception as error:  # raised again, unless fewer samples may fit
            if rows == 1 or not ran_out(error, [adapter]):
                raise
            failed = True
        if failed:
            adapter.release_memory()
            rows //= 2
        else:
            at = some.stop
    return _join_outputs(parts)


def _run(run: Callable[[Sequence[Any]], Any], passed: Sequence[Any], some: slice, samples: int) -> Any:
    count, given = some.stop - some.start, run(passed)
    if count == samples:
        return given
    if count == 1 and len(flatten(given)) == 1:
        given = map_structure(lambda leaf: leaf.reshape(leaf.shape or 1), given)
    if any(leaf.shape[:1] != (count,) for leaf in flatten(given)):
        raise InputError(
            "batch_size divides the samples, and the model gives outputs that have no row for each of them. Leave it "
            "out, or pass a model that gives the score alone."
        )
    return given


def _join_outputs(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    columns = iter([np.concatenate(column) for column in zip(*map(flatten, parts), strict=True)])
    return map_structure(lambda _: next(columns), parts[0])


def take_rows(adapter: FrameworkAdapter, passed: Sequence[Any], samples: int, some: slice) -> list[Any]:
    """Some samples of what a pass takes, where they lie; what has no samples as it is."""
    return [
        value[some] if adapter.is_tensor(value) and tuple(value.shape[:1]) == (samples,) else value for value in passed
    ]


def some_passed(call: Call, passed: Sequence[Any], adapter: FrameworkAdapter) -> Sequence[Any]:
    """As many samples of what a pass takes as are enough, and allowed, to see what the model does."""
    samples = call.inputs.samples
    some = first_rows(samples, call.plan.arguments.batch_size)
    return passed if some == samples else take_rows(adapter, passed, samples, slice(some))


def first_rows(samples: int, batch_size: BatchSize) -> int:
    """How many samples are enough, and allowed, to see what a model gives for one."""
    most = 1 if batch_size == "auto" else batch_size  # of which it is known that they fit
    return samples if most is None else min(most, samples)
