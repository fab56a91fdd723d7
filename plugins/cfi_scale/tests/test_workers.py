"""The same store, to the last byte, whatever happens to the processes that make it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pressing
import psutil
import pytest

import cfi_core as cfi
import cfi_scale
from cfi_scale.store import Store

pytest.importorskip("distributed")  # an extra

SIZES = {"batch_size": 2, "chunk_size": 4, "progress": False}
pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def many():
    """Random images, as of another test; float32 `(200, 6, 5, 3)`, one of them bad."""
    made = np.random.default_rng(1).normal(size=(200, 6, 5, 3)).astype(np.float32)
    made[7] = np.nan
    return made


@pytest.fixture
def serial(tmp_path, many):
    """The bytes of the store that one process makes."""
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "serial", **SIZES)
    return pressing.tree(tmp_path / "serial")


def workers_of_dask():
    return [one for one in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(_words(one))]


def actors_of_ray():
    # Ray writes the name of an actor's class over the command line of its process.
    everything = psutil.process_iter()
    return [one for one in everything if " ".join(_words(one)).startswith("ray::_Actor") and _is_ours(one)]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_ours(process):
    try:
        return os.getpid() in [parent.pid for parent in process.parents()]
    except psutil.Error:
        return False


@contextmanager
def kills(find, times, store, *, every=1):
    """Kills one of the processes, whenever so many chunks more are done."""
    over, killed = threading.Event(), []

    def watch():
        draw = random.Random(0)
        aim = every
        while len(killed) < times and not over.wait(0.05):
            if len(Store(store).done()) >= aim and (found := find()):
                victim = draw.choice(found)
                victim.kill()
                killed.append(victim.pid)
                aim = len(Store(store).done()) + every

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_two_processes_of_dask_and_one_kill(tmp_path, many, serial, capsys):
    store = tmp_path / "s"
    with kills(workers_of_dask, 1, store) as killed:
        made = pressing.explainer(pause=0.05)
        cfi_scale.explain_dataset(made, many, store, executor="dask", workers=2, **{**SIZES, "progress": True})
    assert len(killed) == 1
    assert pressing.tree(store) == serial
    told = capsys.readouterr().err
    assert "dashboard: http://" in told
    assert "1 of 200 samples could not be explained" in told


@pytest.mark.faults
def test_what_is_refused_in_a_worker_is_raised_here_and_not_printed_there(tmp_path, many, capfd):
    class Doubles:
        def __len__(self):
            return 200

        def __getitem__(self, number):
            return many[number], "the same"

    with pytest.raises(cfi.InputError, match="'the same' stands for several samples"):
        cfi_scale.explain_dataset(
            pressing.explainer(),
            Doubles(),
            tmp_path / "s",
            fields=("inputs", "id"),
            executor="dask",
            workers=1,
            **SIZES,
        )
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.faults
def test_twenty_kills_of_workers(tmp_path, many, serial):
    store = tmp_path / "s"
    with kills(workers_of_dask, 20, store) as killed:
        cfi_scale.explain_dataset(pressing.explainer(pause=0.1), many, store, executor="dask", workers=2, **SIZES)
    assert len(killed) == 20
    assert pressing.tree(store) == serial


@pytest.mark.faults
def test_a_cluster_of_ones_own_with_data_that_do_not_travel(tmp_path, many, serial, monkeypatch):
    import dask
    from distributed import Client, LocalCluster

    monkeypatch.setattr("cfi_scale.sources.TRAVELS", 100)
    store = tmp_path / "s"
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        with kills(workers_of_dask, 1, store, every=5) as killed:
            cfi_scale.explain_dataset(pressing.explainer(pause=0.1), many, store, executor=client, **SIZES)
        assert client.status == "running"  # it is the user's
    assert len(killed) == 1
    assert pressing.tree(store) == serial


@pytest.mark.faults
def test_an_adaptive_cluster_that_begins_with_no_worker(tmp_path, many, serial, monkeypatch, capsys):
    from distributed import Client, LocalCluster

    monkeypatch.setattr("cfi_scale.on_dask.PATIENCE", 0.2)
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=2)
        made = pressing.explainer(pause=0.1)
        sizes = {**SIZES, "progress": True}
        cfi_scale.explain_dataset(made, many, tmp_path / "s", executor=client, **sizes)
    assert "has no worker now" in capsys.readouterr().err
    assert pressing.tree(tmp_path / "s") == serial


def start(tmp_path, many, asked, *, pause=0.1):
    """A script that explains in a process of its own."""
    np.save(tmp_path / "many.npy", many)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np, pressing, cfi_scale

        if __name__ == "__main__":
            # Who was started in the background has inherited that interrupts are ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            pressing.see_fake_plugin()
            many = np.load({str(tmp_path / "many.npy")!r}, mmap_mode="r")
            made = pressing.explainer(pause={pause})
            cfi_scale.explain_dataset(made, many, {str(tmp_path / "s")!r}, batch_size=2, chunk_size=4, {asked})
        """)
    )
    return subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(chunks, store, process):
    while len(Store(store).done()) < chunks:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.faults
def test_a_client_that_is_killed_leaves_no_process_and_goes_on(tmp_path, many, serial):
    process = start(tmp_path, many, "executor='dask', workers=2")
    wait_for(6, tmp_path / "s", process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    done = Store(tmp_path / "s").done()
    assert 6 <= len(done) < 50
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "s", **SIZES)
    assert pressing.tree(tmp_path / "s") == serial


@pytest.mark.faults
@pytest.mark.parametrize("asked", ["executor='serial'", "executor='dask', workers=2"])
def test_an_interrupt_says_how_to_go_on(tmp_path, many, serial, asked):
    process = start(tmp_path, many, asked)
    wait_for(3, tmp_path / "s", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: it reaches the workers, too
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Interrupted." in told and "the same call goes on with the rest" in told
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "s", **SIZES)
    assert pressing.tree(tmp_path / "s") == serial


@pytest.mark.faults
def test_a_scheduler_that_is_killed_ends_the_run_and_the_next_goes_on(tmp_path, many, serial):
    from distributed import Client

    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file"]
    file = str(tmp_path / "scheduler.json")
    scheduler = subprocess.Popen([*command, file, "--no-dashboard"], env=env, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1"]
    worker = subprocess.Popen([*command, "--death-timeout", "5", "--no-dashboard"], env=env, stderr=subprocess.DEVNULL)
    try:
        while not Path(file).exists():
            time.sleep(0.1)
        victim = [psutil.Process(scheduler.pid)]
        with (
            Client(scheduler_file=file, timeout=30) as client,
            kills(lambda: victim, 1, tmp_path / "s"),
            pytest.raises(cfi_scale.RunError, match="scheduler of dask is gone"),
        ):
            cfi_scale.explain_dataset(pressing.explainer(pause=0.1), many, tmp_path / "s", executor=client, **SIZES)
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "s", **SIZES)
    assert pressing.tree(tmp_path / "s") == serial


@pytest.mark.faults
def test_a_chunk_that_kills_its_workers_ends_the_run(tmp_path, many):
    class Deadly(pressing.Pressing):
        def __call__(self, inputs=None, target=None, **named):
            if (np.asarray(inputs) == 77).any():
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(inputs, target, **named)

    many[101] = 77
    with pytest.raises(cfi_scale.RunError, match=r"Chunk 25 \(samples 100 to 103\) killed its workers again"):
        cfi_scale.explain_dataset(
            Deadly(pressing.network(), "press_noise"), many, tmp_path / "s", executor="dask", workers=2, **SIZES
        )
    assert 25 not in Store(tmp_path / "s").done()
    many[101] = np.random.default_rng(1).normal(size=(200, 6, 5, 3)).astype(np.float32)[101]
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "s", **SIZES)


@pytest.mark.faults
def test_a_chunk_that_takes_more_memory_than_a_worker_has(tmp_path, many, serial):
    from distributed import Client, LocalCluster

    class Hungry(pressing.Pressing):
        def __call__(self, inputs=None, target=None, **named):
            if (np.asarray(inputs) == 77).any():
                held = [np.ones(2**24) for _ in range(16)]  # 2 GiB; dask looks every tenth of a second
                time.sleep(60)
                del held
            return super().__call__(inputs, target, **named)

    former, many[101] = many[101].copy(), 77
    limits = {"memory_limit": "1GiB", "n_workers": 2, "threads_per_worker": 1}
    with LocalCluster(**limits, dashboard_address=":0") as cluster, Client(cluster) as client:
        hungry = Hungry(pressing.network(), "press_noise")
        with pytest.raises(cfi_scale.RunError, match=r"Chunk 25 .* may need more memory than a worker has"):
            cfi_scale.explain_dataset(hungry, many, tmp_path / "s", executor=client, **SIZES)
    many[101] = former
    cfi_scale.explain_dataset(pressing.explainer(), many, tmp_path / "s", **SIZES)
    assert pressing.tree(tmp_path / "s") == serial


@pytest.mark.faults
def test_actors_of_ray_that_are_killed(tmp_path, many, serial):
    pytest.importorskip("ray")
    store = tmp_path / "s"
    with kills(actors_of_ray, 5, store, every=3) as killed:
        cfi_scale.explain_dataset(pressing.explainer(pause=0.1), many, store, executor="ray", workers=2, **SIZES)
    assert len(killed) == 5
    assert pressing.tree(store) == serial
