"""What the first answer costs: python benchmarks/first_answer.py [WHAT …] [--pairs N]; all of these without arguments.

saliency   a Keras ResNet-50 under Captum's Saliency, against an eager tape by hand
ig         the same under Captum's IntegratedGradients of 50 steps, against a compiled loop by hand with its compilation
torch      a torch ResNet-50 under tf-keras-vis's Saliency, against torch by hand
translate  `cfi.translate` of models of the zoo: certificate and layer map, against the conversion itself
listing    `cfi.methods()` with all plugins, above `import numpy`

The first three: 96 pixels, 4 images, everything for the first time. Each time is taken in a process of its own, by
turns by hand and by `cfi.attribute`, after both have explained a small model, so that libraries are loaded; the median
of the pairs counts, by the clock and in seconds of the processors (which other programs on the machine change less).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PIXELS, BATCH, STEPS, PAIRS = 96, 4, 50, 7
TARGETS = [1, 3, 5, 7]
TRANSLATED = ("resnet18", "mobilenet_v2", "densenet121", "ResNet50", "MobileNetV2", "VGG16")


def images(*shape: int) -> Any:
    import numpy as np

    return np.random.default_rng(2).normal(size=(BATCH, *shape)).astype(np.float32)


def keras_models() -> tuple[Any, Any]:
    """A small one with convolution and rectifier, and the one that is measured; both with logits."""
    import keras

    keras.utils.set_random_seed(1)
    rows = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10)]
    large = keras.applications.ResNet50(weights=None, input_shape=(PIXELS, PIXELS, 3), classes=10)
    logits = keras.layers.Dense(10, name="logits")(large.layers[-2].output)
    return keras.Sequential([keras.Input((8, 8, 3)), *rows]), keras.Model(large.inputs, logits)


def torch_models() -> tuple[Any, Any]:
    import torch
    import torchvision

    torch.manual_seed(1)
    small = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.Flatten(), torch.nn.Linear(108, 10))
    return small.eval(), torchvision.models.resnet50(weights=None, num_classes=10).eval()


# by hand


def tape(model: Any, inputs: Any) -> Any:
    import tensorflow as tf

    values = tf.constant(inputs)
    with tf.GradientTape(watch_accessed_variables=False) as recorded:
        recorded.watch(values)
        chosen = tf.gather_nd(model(values, training=False), list(enumerate(TARGETS)))
        score = tf.reduce_sum(chosen)
    return abs(recorded.gradient(score, values).numpy())


def compiled_loop(model: Any, inputs: Any) -> Any:
    """As an expert would write it: all steps at once, compiled."""
    import numpy as np
    import tensorflow as tf

    points, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas, weights = tf.constant((1 + points) / 2, tf.float32), tf.constant(weights / 2, tf.float32)
    rows = tf.constant([(row, TARGETS[row % BATCH]) for row in range(STEPS * BATCH)])

    @tf.function
    def gradient(values: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as recorded:
            recorded.watch(values)
            score = tf.reduce_sum(tf.gather_nd(model(values, training=False), rows))
        return recorded.gradient(score, values)

    inputs = tf.constant(inputs)
    path = tf.reshape(alphas[:, None, None, None, None] * inputs[None], (-1, *inputs.shape[1:]))
    return (inputs * tf.tensordot(weights, tf.reshape(gradient(path), (STEPS, *inputs.shape)), 1)).numpy()


def by_torch(model: Any, inputs: Any) -> Any:
    import torch

    leaf = torch.tensor(inputs, requires_grad=True)
    score = model(leaf)[torch.arange(BATCH), TARGETS].sum()
    return torch.autograd.grad(score, leaf)[0].numpy()


# by cfi


def attribute(key: str, toolset: str, **more: Any) -> Callable[[Any, Any], Any]:
    def call(model: Any, inputs: Any) -> Any:
        import cfi_core as cfi

        return cfi.attribute(model, key, toolset, inputs=inputs, target=TARGETS, **more).values

    return call


GRADIENTS = {"exec_args": {"n_steps": STEPS}, "baselines": 0}
CASES: dict[str, tuple[str, Callable[[], tuple[Any, Any]], Callable[..., Any], Callable[..., Any], float]] = {
    "saliency": ("Keras, Captum Saliency / eager tape", keras_models, tape, attribute("saliency", "captum"), 2.0),
    "ig": (
        f"Keras, Captum IntegratedGradients, {STEPS} steps / compiled loop",
        keras_models,
        compiled_loop,
        attribute("integrated_gradients", "captum", **GRADIENTS),
        1.15,
    ),
    "torch": (
        "torch, tf-keras-vis Saliency / torch",
        torch_models,
        by_torch,
        attribute("saliency", "tf-keras-vis"),
        1.5,
    ),
}


def measure(case: str, side: str) -> None:
    """Prints the seconds of one first answer."""
    from cfi_core.coexistence import load_safely

    load_safely()
    _, models, by_hand, by_cfi, _ = CASES[case]
    small, large = models()
    order = (lambda size: (3, size, size)) if case == "torch" else (lambda size: (size, size, 3))
    for call in (by_hand, by_cfi):
        call(small, images(*order(8)))
    call, inputs = by_hand if side == "hand" else by_cfi, images(*order(PIXELS))
    started, used = perf_counter(), process_time()
    call(large, inputs)
    print(json.dumps([perf_counter() - started, process_time() - used]))


def pairs(case: str, count: int) -> None:
    title, *_, bound = CASES[case]
    found = [[_in_process(f"{case}:{side}") for side in ("hand", "cfi")] for _ in range(count)]
    ratios = [statistics.median(cfi[i] / hand[i] for hand, cfi in found) for i in (0, 1)]
    hand, cfi = ([statistics.median(pair[side][i] for pair in found) for i in (0, 1)] for side in (0, 1))
    print(
        f"{title:<66} {ratios[0]:5.2f} {ratios[1]:5.2f}  at most {bound}  (by hand {hand[0]:.1f} s, {hand[1]:.2f} s; "
        f"cfi {cfi[0]:.1f} s, {cfi[1]:.2f} s)",
        flush=True,
    )


def _in_process(what: str) -> list[float]:
    done = subprocess.run([sys.executable, __file__, f"measure:{what}"], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def translate() -> None:
    """Certificate and layer map, in seconds of the processors."""
    from cfi_core.coexistence import load_safely

    load_safely()
    import keras
    import torchvision

    import cfi_core as cfi

    print(f"\n{'cfi.translate, seconds of the processors':<40} conversion   the rest  at most (3 times, or 5)")
    for name in TRANSLATED:
        is_torch = name.islower()
        model = (
            getattr(torchvision.models, name)(weights=None).eval()
            if is_torch
            else getattr(keras.applications, name)(weights=None, input_shape=(PIXELS, PIXELS, 3), classes=10)
        )
        shape = (3, PIXELS, PIXELS) if is_torch else (PIXELS, PIXELS, 3)
        started, used = perf_counter(), process_time()
        translated = cfi.translate(model, "tensorflow" if is_torch else "torch", inputs=images(*shape))
        seconds, share = process_time() - used, (process_time() - used) / (perf_counter() - started)
        conversion = translated.seconds * share
        print(
            f"{name:<40} {conversion:10.1f} {seconds - conversion:10.1f}  {max(3 * conversion, 5):7.1f}",
            flush=True,
        )


def listing(count: int) -> None:
    lines = ("import numpy", "import numpy, cfi_core as cfi; cfi.methods()")
    found = [[_seconds_of(line) for line in lines] for _ in range(count)]
    above = [statistics.median(one[i] - base[i] for base, one in found) for i in (0, 1)]
    print(f"\ncfi.methods() above `import numpy`: {above[0]:.2f} s, {above[1]:.2f} s of the processors (at most 0.3)")


def _seconds_of(line: str) -> list[float]:
    timed = f"import time; a, b = time.perf_counter(), time.process_time(); {line}; print(time.perf_counter() - a, "
    script = timed + "time.process_time() - b)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [float(one) for one in done.stdout.split()[-2:]]


def main(wanted: list[str]) -> None:
    count = int(wanted.pop(wanted.index("--pairs") + 1)) if "--pairs" in wanted else PAIRS
    wanted = [one for one in wanted if one != "--pairs"] or [*CASES, "translate", "listing"]
    print(f"{f'the first answer, {count} pairs, {os.cpu_count()} cores':<66} clock  processors")
    for case in CASES:
        if case in wanted:
            pairs(case, count)
    if "translate" in wanted:
        translate()
    if "listing" in wanted:
        listing(count)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("measure:"):
        measure(*sys.argv[1].split(":")[1:])
    else:
        main(sys.argv[1:])
