"""How many calls of eight threads end in a second: through CFI, and by the toolsets alone with a model for each thread.

    python benchmarks/threads.py [ROUNDS] [KIND ...]

Both are measured in turns in one process, each operation on one thread; the ratio is that of the best of each. The last
kind is "mixed".
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.coexistence import load_safely

load_safely()

import captum.attr  # noqa: E402
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import cfi_core as cfi  # noqa: E402
from cfi_tfkerasvis.workarounds import CategoricalScore, Gradcam, Saliency  # noqa: E402

THREADS, CALLS, SIZE = 8, 2, 64
IMAGES = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype("float32")
LAST = np.ascontiguousarray(np.moveaxis(IMAGES, 1, -1))
Work = Callable[[Any], Any]


def torch_model() -> nn.Module:
    """A CNN whose passes take milliseconds, so that it is the method that is measured."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for channels, more in ((3, 16), (16, 32), (32, 32)):
        blocks += [nn.Conv2d(channels, more, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10)).eval()


def keras_model() -> keras.Model:
    """The same in Keras."""
    blocks = [keras.layers.Conv2D(size, 3, padding="same", activation="relu", name=f"conv{size}") for size in (16, 32)]
    head = [keras.layers.AveragePooling2D(16), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *blocks, *head])


def images() -> torch.Tensor:
    """A fresh tensor, on which captum leaves its mark."""
    return torch.tensor(IMAGES)


def seed(number: int) -> None:
    """What a user of the bare toolset does for results that can be repeated; of eight threads, in vain."""
    torch.manual_seed(number)
    np.random.seed(number)


def _explain(key: str, toolset: str = "captum", **arguments: Any) -> Work:
    inputs = LAST if toolset == "tf-keras-vis" else IMAGES
    return lambda model: cfi.attribute(model, key, toolset, inputs=inputs, target=3, seed=1, **arguments)


# For each kind of call: the framework of the model, the call through CFI, and the bare one.
KINDS: dict[str, tuple[str, Work, Work]] = {
    "integrated gradients": (
        "torch",
        _explain("integrated_gradients", exec_args={"n_steps": 20}),
        lambda model: captum.attr.IntegratedGradients(model).attribute(images(), target=3, n_steps=20),
    ),
    "noise tunnel": (
        "torch",
        _explain("noise_tunnel", exec_args={"nt_samples": 20}),
        lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model)).attribute(
            images(), target=3, nt_samples=20, abs=False
        ),
    ),
    "gradient SHAP": (
        "torch",
        _explain("gradient_shap", baselines=np.zeros_like(IMAGES), exec_args={"n_samples": 20}),
        lambda model: captum.attr.GradientShap(model).attribute(images(), images() * 0, 20, target=3),
    ),
    "occlusion": (
        "torch",
        _explain("occlusion", exec_args={"sliding_window_shapes": (3, 16, 16), "strides": (3, 8, 8)}),
        lambda model: captum.attr.Occlusion(model).attribute(images(), (3, 16, 16), (3, 8, 8), target=3),
    ),
    "SmoothGrad": (
        "keras",
        _explain("smooth_grad", "tf-keras-vis", exec_args={"smooth_samples": 20}),
        lambda model: Saliency(model, clone=False)(
            CategoricalScore([3] * 4), LAST, smooth_samples=20, smooth_noise=0.2, keepdims=True
        ),
    ),
    "Grad-CAM": (
        "keras",
        _explain("grad_cam", "tf-keras-vis", layer="conv32"),
        lambda model: Gradcam(model, clone=False)(CategoricalScore([3] * 4), LAST, penultimate_layer="conv32"),
    ),
}


def calls_per_second(works: list[list[Callable[[], Any]]]) -> float:
    """Runs the calls of each thread one after the other, the threads at once."""
    start = threading.Barrier(len(works) + 1)

    def run(calls: list[Callable[[], Any]]) -> None:
        start.wait()
        for call in calls:
            call()

    threads = [threading.Thread(target=run, args=(calls,)) for calls in works]
    for thread in threads:
        thread.start()
    start.wait()
    began = perf_counter()
    for thread in threads:
        thread.join()
    return sum(map(len, works)) / (perf_counter() - began)


def compare(kinds: list[str], models: list[dict[str, Any]], shared: dict[str, Any], rounds: int) -> None:
    """Prints one line: bare, CFI with a model for each thread, CFI with one torch model for all."""

    def works(which: int, given: list[dict[str, Any]]) -> list[list[Callable[[], Any]]]:
        def task(thread: int, number: int) -> Callable[[], Any]:
            kind = KINDS[kinds[(thread + number) % len(kinds)]]
            return lambda: kind[which](given[thread][kind[0]])

        return [[task(thread, number) for number in range(CALLS)] for thread in range(THREADS)]

    common = [{**own, "torch": shared["torch"]} for own in models]
    ways = {"bare": works(2, models), "cfi": works(1, models), "one model": works(1, common), "alone": works(1, models)}
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds + 1):
        for name, work in ways.items():
            given = [[call for calls in work for call in calls]] if name == "alone" else work
            best[name] = max(best[name], calls_per_second(given))
    name = kinds[0] if len(kinds) == 1 else "mixed"
    print(
        f"{name:<22}{best['bare']:>8.1f}{best['cfi']:>8.1f}{best['one model']:>11.1f}{best['alone']:>12.1f}"
        f"{best['cfi'] / best['bare']:>9.2f}{best['one model'] / best['bare']:>11.2f}"
    )


def main() -> None:
    """Each kind alone, and all of them mixed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    first = torch_model()
    models = [{"torch": copy.deepcopy(first), "keras": keras_model()} for _ in range(THREADS)]
    print(f"calls a second, {THREADS} threads; 'alone' is one thread with CFI")
    print(f"{'':<22}{'bare':>8}{'CFI':>8}{'one model':>11}{'alone':>12}{'ratio':>9}{'one model':>11}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in sys.argv[2:] or [*KINDS, "mixed"]:
            compare(list(KINDS) if kind == "mixed" else [kind], models, models[0], rounds)


if __name__ == "__main__":
    main()
