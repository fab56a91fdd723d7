"""Chunks on workers of dask.distributed.

The work, with the model in it, is a plugin of the workers: the scheduler sends it to each of them once, also to those
that come later or again. A task is a few numbers. The tasks of a worker that dies go to others.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from itertools import islice
from time import monotonic
from typing import Any
from uuid import uuid4

import cloudpickle
import dask
import distributed
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.comm import CommClosedError
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

from cfi_core import CFIError
from cfi_scale.errors import RunError
from cfi_scale.executors import cores, environment
from cfi_scale.progress import say
from cfi_scale.warm import unpack
from cfi_scale.work import Outcome, Task, Work, Worker

AHEAD = 3
"""Tasks for each thread that are handed over before they are needed."""
LEAST = 8
IN_FLIGHT = 2**26
"""Bytes of samples that are sent ahead, where workers do not read by themselves."""
PATIENCE = 30.0
"""Seconds after which it is told that there is no worker."""
_LOOK_EVERY = 2.0
_GONE = (Status.failed, Status.closed)
_MEND_EVERY = 2000  # milliseconds
ATTEMPTS = 3
"""How often a chunk whose worker died (more often than dask allows) is tried again."""


class Dask:
    """Workers of a client, or of a cluster of processes on this machine, which lives as long as the run.

    Args:
        client: Of a cluster that is there; None starts one.
        workers: Processes to start; None: one for every core, or every GPU that `CUDA_VISIBLE_DEVICES` names.
        threads: That libraries may use in each of them; None divides the cores.
    """

    def __init__(self, client: Client | None = None, *, workers: int | None = None, threads: int | None = None) -> None:
        self._client, self._workers, self._threads = client, workers, threads

    @contextmanager
    def open(self, work: Work) -> Iterator[_Session]:
        """Starts workers where there are none, and sends them the work."""
        if self._client is not None:
            with _session(self._client, work) as session:
                yield session
            return
        workers = self._workers or cores()
        with _local(workers, self._threads or max(1, cores() // workers)) as client:
            say(f"dashboard: {client.dashboard_link}")
            with _session(client, work) as session:
                yield session


@contextmanager
def _local(workers: int, threads: int) -> Iterator[Client]:
    # A process may take long to start again where many others run; dask would end it meanwhile.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"}),
        _start(workers, threads) as cluster,
        _mended(cluster, workers),
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _mended(cluster: LocalCluster, workers: int) -> Iterator[None]:
    """Starts processes anew that dask has given up: those that died while they started."""

    def mend() -> None:
        for name, one in list(cluster.workers.items()):
            if one.status in _GONE:
                del cluster.workers[name]
        if cluster.status is Status.running and len(cluster.workers) < workers:
            cluster.scale(workers)

    timer = PeriodicCallback(mend, _MEND_EVERY)
    cluster.loop.add_callback(timer.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(timer.stop)


def _start(workers: int, threads: int) -> LocalCluster:
    """A cluster of processes; begun anew where one dies while it starts.

    Raises:
        RunError: They do not start.
    """
    failed: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                env=environment(threads),
            )
        except (RuntimeError, TimeoutError) as error:
            failed = error
    raise RunError(
        f"The processes of dask do not start ({failed}). A script must do its work under if __name__ == '__main__':, "
        f"because these processes import it; what they say stands above."
    ) from failed


@contextmanager
def _session(client: Client, work: Work) -> Iterator[_Session]:
    name = f"cfi-scale-{uuid4().hex}"
    client.register_plugin(_Carrier(cloudpickle.dumps(work), name))
    try:
        with _watched(client):
            yield _Session(client, name)
    finally:
        with suppress(Exception):  # the scheduler may be gone, which the run has told
            client.unregister_worker_plugin(name)


@contextmanager
def _watched(client: Client) -> Iterator[None]:
    """Says so where the cluster has no worker for a while: it may be asked for some, or may have lost them for good."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PATIENCE):
            with suppress(Exception):  # the scheduler may be gone, which the run tells
                if not client.nthreads():
                    say(
                        "The cluster of dask has no worker now. The run waits for one; Ctrl-C ends it, nothing is lost."
                    )

    thread = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


class _Carrier(WorkerPlugin):
    """Brings the work to each worker, where it is unpacked when the first task comes."""

    idempotent = True

    def __init__(self, packed: bytes, name: str) -> None:
        self.packed, self.name = packed, name
        self._worker: Worker | None = None

    def carry_out(self, task: Task) -> Outcome:
        if self._worker is None:
            self._worker = unpack(self.packed)
        return self._worker.carry_out(task)


def _carry_out(name: str, task: Task) -> Outcome | CFIError:
    """The outcome, or why there is none: of what is raised, dask would print the traceback in every terminal."""
    try:
        return distributed.get_worker().plugins[name].carry_out(task)
    except CFIError as error:
        return error


class _Session:
    def __init__(self, client: Client, name: str, carry_out: Callable[[str, Task], Any] = _carry_out) -> None:
        self._client, self._name, self._carry_out = client, name, carry_out
        self._tried: Counter[int] = Counter()
        self._width, self._looked = 1, -_LOOK_EVERY

    @property
    def width(self) -> int:
        if monotonic() - self._looked > _LOOK_EVERY:  # the scheduler is asked, which is not for free
            self._width, self._looked = max(1, sum(self._client.nthreads().values())), monotonic()
        return self._width

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        tasks = iter(tasks)
        running: dict[Any, Task] = {}
        done = distributed.as_completed()
        try:
            self._fill(tasks, running, done)
            while running:
                future = next(done)
                task = running.pop(future)
                yield from self._take(future, task, running, done)
                self._fill(tasks, running, done)
        finally:
            with suppress(Exception):
                self._client.cancel(list(running), force=True)

    def _fill(self, tasks: Iterator[Task], running: dict[Any, Task], done: Any) -> None:
        """As many tasks as keep the workers busy."""
        most = max(LEAST, AHEAD * self.width)
        while len(running) < most and _bytes_of(running) < IN_FLIGHT:
            following = list(islice(tasks, 1))
            if not following:
                return
            self._submit(following[0], running, done)

    def _submit(self, task: Task, running: dict[Any, Task], done: Any) -> None:
        future = self._client.submit(
            self._carry_out,
            self._name,
            task,
            pure=False,
            key=f"explain-{task.number}-{uuid4().hex[:8]}",
            priority=-task.number,
        )
        running[future] = task
        done.add(future)

    def _take(self, future: Any, task: Task, running: dict[Any, Task], done: Any) -> Iterator[Outcome]:
        """The outcome; or another try, where workers died."""
        try:
            outcome = future.result()
            if isinstance(outcome, CFIError):
                raise outcome
            yield outcome
        except distributed.KilledWorker as error:
            self._tried[task.number] += 1
            if self._tried[task.number] >= ATTEMPTS:
                raise RunError(
                    f"Chunk {task.number} (samples {task.start} to {task.stop - 1}) killed its workers again and again "
                    f"({error}). It may need more memory than a worker has: pass a smaller batch_size or fewer workers."
                ) from error
            self._submit(task, running, done)
        except (distributed.client.FutureCancelledError, CommClosedError) as error:
            raise RunError(
                f"The scheduler of dask is gone ({type(error).__name__}). What is in the store stays valid: start the "
                f"run again, and it goes on where it stopped."
            ) from error


def _bytes_of(running: dict[Any, Task]) -> int:
    return sum(task.samples.nbytes for task in running.values() if task.samples is not None)
