"""Chunks in actors of Ray, each of which holds the model. One that dies is made anew, and given its chunk again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cloudpickle
import ray

from cfi_scale.errors import RunError
from cfi_scale.executors import cores, environment
from cfi_scale.warm import unpack
from cfi_scale.work import Outcome, Task, Work, Worker

ATTEMPTS = 4
"""How often an actor is given the same chunk, where it dies of it."""


class Ray:
    """Actors, on the Ray that runs or on one of this machine, which lives as long as the run.

    Args:
        workers: How many; None: one for every core that Ray has (every GPU, where `gpus` is given).
        threads: That libraries may use in each of them; None divides the cores of this machine.
        gpus: Of each actor, also a share of one.
    """

    def __init__(self, *, workers: int | None = None, threads: int | None = None, gpus: float = 0) -> None:
        self._workers, self._threads, self._gpus = workers, threads, gpus

    @contextmanager
    def open(self, work: Work) -> Iterator[_Session]:
        """Starts Ray where it does not run, and the actors."""
        own = not ray.is_initialized()
        if own:
            ray.init(num_cpus=self._workers or cores(), include_dashboard=False, log_to_driver=False)
        try:
            have = ray.cluster_resources()
            most = have.get("GPU", 0) / self._gpus if self._gpus else have.get("CPU", 1)
            workers = self._workers or max(1, int(most))
            variables = environment(self._threads or max(1, cores() // workers))
            if own:  # what is importable here is so there
                variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            with _session(work, workers, variables, self._gpus) as session:
                yield session
        finally:
            if own:
                ray.shutdown()


@contextmanager
def _session(work: Work, workers: int, variables: Mapping[str, str], gpus: float) -> Iterator[_Session]:
    packed = ray.put(cloudpickle.dumps(work))
    kind = ray.remote(_Actor).options(
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=ATTEMPTS,
        runtime_env={"env_vars": dict(variables)},
    )
    actors = [kind.remote(packed) for _ in range(workers)]
    try:
        yield _Session(actors)
    finally:
        for actor in actors:
            ray.kill(actor)


class _Actor:
    """A process with the model in it."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._worker: Worker | None = None

    def carry_out(self, task: Task) -> Outcome:
        if self._worker is None:  # here, so that what fails is an error of the task
            self._worker = unpack(self._packed)
        return self._worker.carry_out(task)


class _Session:
    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors

    @property
    def width(self) -> int:
        return len(self._actors)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        tasks = iter(tasks)
        running: dict[Any, tuple[Any, Task]] = {}
        # Two chunks each: the next is there when one is done.
        for actor in self._actors * 2:
            self._submit(tasks, actor, running)
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                actor, task = running.pop(done)
                outcome = _take(done, task)
                self._submit(tasks, actor, running)
                yield outcome
        finally:
            for one in running:
                ray.cancel(one)

    def _submit(self, tasks: Iterator[Task], actor: Any, running: dict[Any, tuple[Any, Task]]) -> None:
        task = next(tasks, None)
        if task is not None:
            running[actor.carry_out.remote(task)] = actor, task


def _take(done: Any, task: Task) -> Outcome:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    except ray.exceptions.RayError as error:
        raise RunError(
            f"Chunk {task.number} (samples {task.start} to {task.stop - 1}) killed its actor again and again, or Ray "
            f"is gone ({type(error).__name__}). What is in the store stays valid. If it needs more memory than there "
            f"is, pass a smaller batch_size or fewer workers."
        ) from error
