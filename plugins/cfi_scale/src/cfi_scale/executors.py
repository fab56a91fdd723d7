"""Where chunks are explained: here, on workers of dask, in actors of Ray, or wherever a class of yours sends them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from operator import index
from typing import Any, Protocol

from cfi_core import ArgumentError
from cfi_core.adapters import is_importable
from cfi_scale.work import Outcome, Task, Work, Worker

NAMES = ("serial", "dask", "ray")


class Session(Protocol):
    """Workers that know the work."""

    @property
    def width(self) -> int:
        """How many chunks are explained at a time, as far as is known at the beginning."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Carries tasks out, each of them whole, and gives outcomes in any order; takes tasks as it needs them.

        Raises:
            RunError: A task failed again and again.
        """


class Executor(Protocol):
    """What makes workers ready."""

    def open(self, work: Work) -> AbstractContextManager[Session]:
        """Brings the work to workers, each of which calls `cfi_scale.Worker(work)` once and `carry_out` for tasks."""


class Serial:
    """One chunk after the other, in this process."""

    width = 1

    def open(self, work: Work) -> AbstractContextManager[Session]:
        """Nothing has to be sent."""
        return nullcontext(_Here(Worker(work)))


class _Here:
    width = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        return map(self._worker.carry_out, tasks)


def executor_for(executor: Any, workers: int | None, threads: int | None) -> Executor:
    """The executor that is meant.

    Args:
        executor: A name, a client of dask, or what has a method `open`.
        workers: How many, where they are started here.
        threads: Of each of them.

    Raises:
        ArgumentError: It is none of these, or its library is not installed.
    """
    workers = None if workers is None else whole_number("workers", workers, 1)
    threads = None if threads is None else whole_number("threads", threads, 1)
    if executor == "serial":
        if workers not in (None, 1):
            raise ArgumentError(f"executor='serial' has one worker, not {workers}. Pass executor='dask' or 'ray'.")
        return Serial()
    if executor in NAMES:
        library = "distributed" if executor == "dask" else executor
        if not is_importable(library):
            raise ArgumentError(f"executor={executor!r} needs {library}: pip install 'cfi-scale[{executor}]'.")
        kind = "Dask" if executor == "dask" else "Ray"
        return getattr(import_module(f"cfi_scale.on_{executor}"), kind)(workers=workers, threads=threads)
    if type(executor).__module__.partition(".")[0] == "distributed":
        return import_module("cfi_scale.on_dask").Dask(executor)
    if callable(getattr(executor, "open", None)):
        return executor
    raise ArgumentError(
        f"executor={executor!r} is none of {', '.join(map(repr, NAMES))}, no client of dask.distributed, and has no "
        f"method open(work)."
    )


def whole_number(name: str, value: Any, least: int) -> int:
    """An argument as a number of Python's.

    Raises:
        ArgumentError: It is none, or a smaller one.
    """
    try:
        found = index(value)
    except TypeError:
        found = least - 1
    if found < least or isinstance(value, bool):
        raise ArgumentError(f"{name}={value!r} is no whole number from {least} on.")
    return found


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int) -> dict[str, str]:
    """Variables that keep the libraries of a worker to so many threads."""
    one = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    return {**dict.fromkeys(one, str(threads)), "TF_NUM_INTEROP_THREADS": "1"}
