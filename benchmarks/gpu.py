"""What a GPU changes: python benchmarks/gpu.py, in under ten minutes. Without one it says so, and that is no error.

bridge       IntegratedGradients of a Keras ResNet-50 by Captum, and Saliency of a torch ResNet-50 by tf-keras-vis, over
             the bridge against the same computation by hand in the model's framework: times, and bytes that were copied
             between host and device in one pass (torch's profiler counts them)
memory       peak memory of torch on the device for one Saliency, over the bridge and by hand
out          a batch too large for the device: batch_size="auto" halves until it fits, and the values are those of
             batch_size=4
half         Saliency of a torch ResNet-50 in half precision and in bfloat16 against single precision, and over a bridge
determinism  the same call twice, bit for bit, and against the CPU

Each part begins if there is time left for it; one that fails is told, and the next begins.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable
from shutil import which
from time import perf_counter
from typing import Any

LIMIT = 540.0
"""Seconds in which parts may begin."""
PIXELS, STEPS, BATCH, PAIRS = 224, 20, 8, 15
TARGETS = [row % 10 for row in range(BATCH)]


def has_gpu() -> bool:
    """Whether the driver lists one; asked before frameworks are loaded, which take half a minute."""
    if which("nvidia-smi") is None:
        return False
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and "GPU" in found.stdout


def main() -> int:
    if not has_gpu():
        print("No GPU here: nothing was measured.")
        return 0
    started = perf_counter()
    import tensorflow as tf
    import torch

    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)  # so that both frameworks have some
    if not torch.cuda.is_available() or not tf.config.list_physical_devices("GPU"):
        seen = f"torch sees {torch.cuda.device_count()}, TensorFlow {len(tf.config.list_physical_devices('GPU'))}"
        print(f"There is a GPU that not both frameworks can use ({seen}): nothing was measured.")
        return 0
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, tensorflow {tf.__version__}")
    failed = 0
    for name, part in PARTS.items():
        if perf_counter() - started > LIMIT:
            print(f"{name}: no time left")
            continue
        try:
            part()
        except Exception:  # noqa: BLE001 - the next part is measured all the same
            failed += 1
            print(f"{name} failed:\n{traceback.format_exc()}", flush=True)
    print(f"{perf_counter() - started:.0f} s in all")
    return 1 if failed else 0


def keras_model() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    return keras.applications.ResNet50(
        weights=None, input_shape=(PIXELS, PIXELS, 3), classes=10, classifier_activation=None
    )


def torch_model() -> Any:
    import torch
    import torchvision

    torch.manual_seed(1)
    return torchvision.models.resnet50(weights=None, num_classes=10).eval().cuda()


def images(*shape: int, count: int = BATCH) -> Any:
    import numpy as np

    return np.random.default_rng(2).normal(size=(count, *shape)).astype(np.float32)


def on_device(count: int = BATCH) -> Any:
    import torch

    return torch.tensor(images(3, PIXELS, PIXELS, count=count)).cuda()


# the same computations by hand


def keras_gradient(model: Any) -> Callable[[Any], Any]:
    """The gradients of all points of a path, compiled."""
    import tensorflow as tf

    @tf.function
    def gradient(values: Any, chosen: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            score = tf.reduce_sum(tf.gather_nd(model(values, training=False), chosen))
        return tape.gradient(score, values)

    return gradient


def keras_integrated_gradients(model: Any) -> Callable[[Any], Any]:
    import numpy as np
    import tensorflow as tf

    points, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas, weights = tf.constant((1 + points) / 2, tf.float32), tf.constant(weights / 2, tf.float32)
    gradient = keras_gradient(model)
    chosen = tf.constant([(row, TARGETS[row % BATCH]) for row in range(STEPS * BATCH)])

    def attribute(inputs: Any) -> Any:
        inputs = tf.constant(inputs)
        path = tf.reshape(alphas[:, None, None, None, None] * inputs[None], (-1, *inputs.shape[1:]))
        gradients = tf.reshape(gradient(path, chosen), (STEPS, *inputs.shape))
        return (inputs * tf.tensordot(weights, gradients, 1)).numpy()

    return attribute


def torch_saliency(model: Any) -> Callable[[Any], Any]:
    import torch

    def attribute(inputs: Any) -> Any:
        leaf = inputs.detach().clone().requires_grad_()
        score = model(leaf)[torch.arange(len(leaf)), TARGETS].sum()
        return torch.autograd.grad(score, leaf)[0].float().cpu().numpy()

    return attribute


# the parts


def bridge() -> None:
    import torch

    import cfi_core as cfi

    own = {"exec_args": {"n_steps": STEPS}, "baselines": 0.0}
    model, batch = keras_model(), images(PIXELS, PIXELS, 3)
    by_hand = keras_integrated_gradients(model)

    def over_torch() -> Any:
        return cfi.attribute(model, "integrated_gradients", "captum", inputs=batch, target=TARGETS, **own).values

    pairs(f"Keras, Captum IntegratedGradients, {STEPS} steps", lambda: by_hand(batch), over_torch)
    other, given = torch_model(), on_device()
    saliency = torch_saliency(other)

    def over_keras() -> Any:
        return cfi.attribute(other, "saliency", "tf-keras-vis", inputs=given, target=TARGETS).values

    pairs("torch, tf-keras-vis Saliency", lambda: saliency(given), over_keras)
    for name, call in (("Keras under Captum", over_torch), ("torch under tf-keras-vis", over_keras)):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            call()
        copies = [event for event in seen.events() or () if "Memcpy" in event.name]
        kinds = {kind: sum(kind in event.name for event in copies) for kind in ("HtoD", "DtoH", "DtoD")}
        print(f"{name}: copies of one call {kinds}", flush=True)


def memory() -> None:
    import torch

    import cfi_core as cfi

    model, given = torch_model(), on_device()
    by_hand = torch_saliency(model)
    peaks = {}
    for name, call in {
        "by hand": lambda: by_hand(given),
        "native": lambda: cfi.attribute(model, "saliency", "captum", inputs=given, target=TARGETS),
        "bridge": lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=given, target=TARGETS),
    }.items():
        call()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(
        ", ".join(f"{name} {peak:.0f} MiB ({peak / peaks['by hand']:.2f})" for name, peak in peaks.items()), flush=True
    )


def out() -> None:
    """Memory is taken away until few samples fit, so that it is quick on a large device too."""
    import numpy as np
    import torch

    import cfi_core as cfi

    model, given = torch_model(), on_device(64)
    own = {"exec_args": {"n_steps": STEPS}, "baselines": 0.0, "inputs": given, "target": 3}
    expected = cfi.attribute(model, "integrated_gradients", "captum", batch_size=4, **own)
    torch.cuda.empty_cache()
    free, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((whole - free + 3 * 2**30) / whole)
    try:
        started = perf_counter()
        found = cfi.attribute(model, "integrated_gradients", "captum", batch_size="auto", **own)
        seconds = perf_counter() - started
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    apart = np.linalg.norm(found.values - expected.values) / np.linalg.norm(expected.values)
    print(f"{found.provenance['batch_size']}; {seconds:.1f} s; apart from batch_size=4 by {apart:.1e}", flush=True)


def half() -> None:
    import numpy as np
    import torch

    import cfi_core as cfi

    model, given = torch_model(), on_device()
    expected = cfi.attribute(model, "saliency", "captum", inputs=given, target=TARGETS).values
    for kind in (torch.float16, torch.bfloat16):
        lower = torch_model().to(kind)
        for toolset in ("captum", "tf-keras-vis"):
            found = cfi.attribute(lower, "saliency", toolset, inputs=given.to(kind), target=TARGETS)
            apart = np.linalg.norm(found.values - expected) / np.linalg.norm(expected)
            print(f"{kind}, {toolset}: apart from single precision by {apart:.1e}", flush=True)


def determinism() -> None:
    import numpy as np

    import cfi_core as cfi

    model, given = torch_model(), on_device()
    own = {"inputs": given, "target": TARGETS, "exec_args": {"nt_samples": 4}, "seed": 1}
    first, second = (cfi.attribute(model, "noise_tunnel", "captum", batch_size=4, **own).values for _ in range(2))
    print(f"the same call twice: {'equal' if np.array_equal(first, second) else 'not equal'} bit for bit", flush=True)
    device, host = (
        cfi.attribute(one, "saliency", "captum", inputs=inputs, target=TARGETS).values
        for one, inputs in ((model, given), (torch_model().cpu(), given.cpu()))
    )
    print(f"apart from the CPU by {np.linalg.norm(device - host) / np.linalg.norm(host):.1e}", flush=True)


def pairs(name: str, by_hand: Callable[[], Any], bridged: Callable[[], Any]) -> None:
    import numpy as np

    expected, values = by_hand(), bridged()
    apart = float(np.linalg.norm(values - expected) / np.linalg.norm(expected))
    bridged()
    ratios = []
    for _ in range(PAIRS):
        times = []
        for call in (by_hand, bridged):  # both end with an array on the host, so that all of it has been computed
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
        ratios.append(times[1] / times[0])
    middle = statistics.median(ratios)
    print(
        f"{name:<50} {middle:6.3f}  (pairs {min(ratios):.3f} to {max(ratios):.3f}; by hand {times[0]:.3f} s; values "
        f"differ by {apart:.1e})",
        flush=True,
    )


PARTS: dict[str, Callable[[], None]] = {
    "bridge": bridge,
    "memory": memory,
    "out": out,
    "half": half,
    "determinism": determinism,
}

if __name__ == "__main__":
    sys.exit(main())
