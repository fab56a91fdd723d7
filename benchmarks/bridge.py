"""What a bridge costs: python benchmarks/bridge.py [speed] [first] [memory] [xplique]; all of them without arguments.

speed    IntegratedGradients of a Keras ResNet-50 by Captum, and Saliency of a torch ResNet-50 by tf-keras-vis, against
         the same computation written by hand in the framework of the model
xplique  the bridge against the PyTorch wrapper of Xplique, both under methods of Xplique (if that is installed)
first    time until the first result of an unknown model, against the conversion through ONNX
memory   peak memory above the loaded frameworks and model, against the same computation by hand

Ratios are of times measured alternately in one process; the median of the pairs counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()

import captum.attr  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

import cfi_core as cfi  # noqa: E402
from cfi_bridge import keras_host, torch_host  # noqa: E402
from cfi_core.adapters import adapter_for  # noqa: E402
from cfi_core.contract import BridgeRequest  # noqa: E402
from cfi_core.registry import registry  # noqa: E402

PIXELS, STEPS, BATCH, PAIRS = 96, 20, 4, 11
TARGETS = [1, 3, 5, 7]


def keras_model() -> Any:
    keras.utils.set_random_seed(1)
    return keras.applications.ResNet50(
        weights=None, input_shape=(PIXELS, PIXELS, 3), classes=10, classifier_activation=None
    )


def torch_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torchvision.models.resnet50(weights=None, num_classes=10).eval()


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(BATCH, *shape)).astype(np.float32)


# the same computations by hand


def keras_integrated_gradients(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """All steps at once, compiled, as an expert would write it: Gauss-Legendre quadrature, as in Captum."""
    points, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas = tf.constant((1 + points) / 2, tf.float32)
    weights = tf.constant(weights / 2, tf.float32)
    chosen = tf.constant([(row, TARGETS[row % BATCH]) for row in range(STEPS * BATCH)])

    @tf.function
    def gradient(values: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            score = tf.reduce_sum(tf.gather_nd(model(values, training=False), chosen))
        return tape.gradient(score, values)

    def attribute(inputs: np.ndarray) -> np.ndarray:
        inputs = tf.constant(inputs)
        path = tf.reshape(alphas[:, None, None, None, None] * inputs[None], (-1, *inputs.shape[1:]))
        gradients = tf.reshape(gradient(path), (STEPS, *inputs.shape))
        return (inputs * tf.tensordot(weights, gradients, 1)).numpy()

    return attribute


def torch_saliency(model: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def attribute(inputs: np.ndarray) -> np.ndarray:
        leaf = torch.tensor(inputs, requires_grad=True)
        score = model(leaf)[torch.arange(BATCH), TARGETS].sum()
        return torch.autograd.grad(score, leaf)[0].numpy()

    return attribute


def integrated_gradients_by_captum(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Captum's own class on the bridged model."""
    converted = torch_host.bridge(_request("tensorflow", model, images(PIXELS, PIXELS, 3)))
    explainer = captum.attr.IntegratedGradients(converted.model)

    def attribute(inputs: np.ndarray) -> np.ndarray:
        values = explainer.attribute(torch.tensor(inputs).permute(0, 3, 1, 2), target=TARGETS, n_steps=STEPS)
        return values.permute(0, 2, 3, 1).detach().numpy()

    return attribute


def saliency_by_tf_keras_vis(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """tf-keras-vis's own class on the bridged model."""
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    converted = keras_host.bridge(_request("torch", model, images(3, PIXELS, PIXELS)))
    explainer = Saliency(converted.model, clone=False)

    def attribute(inputs: np.ndarray) -> np.ndarray:
        values = explainer(
            CategoricalScore(TARGETS),
            np.moveaxis(inputs, 1, -1),
            keepdims=True,
            normalize_map=False,
            gradient_modifier=None,
        )
        return np.moveaxis(values, -1, 1)

    return attribute


def _request(framework: str, model: Any, batch: np.ndarray) -> BridgeRequest:
    adapter = adapter_for(registry(), framework)
    return BridgeRequest(adapter, adapter.twin(model), (adapter.tensor(batch[:2], model),))


def whole_integrated_gradients(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda inputs: (
        cfi.attribute(
            model, "integrated_gradients", "captum", inputs=inputs, target=TARGETS, exec_args={"n_steps": STEPS}
        ).values
    )


def whole_saliency(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda inputs: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=inputs, target=TARGETS).values


# what is measured


def pairs(name: str, by_hand: Callable[[], Any], bridged: Callable[[], Any]) -> float:
    expected, values = by_hand(), bridged()
    apart = float(np.linalg.norm(values - expected) / np.linalg.norm(expected))
    ratios = []
    for _ in range(PAIRS):
        times = []
        for call in (by_hand, bridged):
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
        ratios.append(times[1] / times[0])
    ratio = statistics.median(ratios)
    print(
        f"{name:<58} {ratio:6.3f}  (pairs {min(ratios):.3f} to {max(ratios):.3f}; by hand {times[0]:.2f} s; "
        f"values differ by {apart:.1e})",
        flush=True,
    )
    return ratio


def speed() -> None:
    print(f"\n{'time, bridge / by hand (ResNet-50, 96×96, batch 4)':<58}  ratio")
    model, batch = keras_model(), images(PIXELS, PIXELS, 3)
    by_hand = keras_integrated_gradients(model)
    for what, make in (("class", integrated_gradients_by_captum), ("cfi.attribute", whole_integrated_gradients)):
        bridged = make(model)
        name = f"Keras, Captum IntegratedGradients, {STEPS} steps, {what}"
        pairs(name, lambda: by_hand(batch), lambda call=bridged: call(batch))
    other, batch_first = torch_model(), images(3, PIXELS, PIXELS)
    by_hand_too = torch_saliency(other)
    for what, make in (("class", saliency_by_tf_keras_vis), ("cfi.attribute", whole_saliency)):
        bridged = make(other)
        name = f"torch, tf-keras-vis Saliency, {what}"
        pairs(name, lambda: by_hand_too(batch_first), lambda call=bridged: call(batch_first))


def first() -> None:
    print(f"\n{'time until the first result (s)':<58} bridge  conversion")
    for name, make, method, batch in (
        ("Keras ResNet-50, Captum Saliency", keras_model, "captum", images(PIXELS, PIXELS, 3)),
        ("torch ResNet-50, tf-keras-vis Saliency", torch_model, "tf-keras-vis", images(3, PIXELS, PIXELS)),
    ):
        seconds = []
        for translator in ("bridge", "conversion"):
            model = make()
            start = perf_counter()
            cfi.attribute(model, "saliency", method, inputs=batch, target=TARGETS, translator=translator)
            seconds.append(perf_counter() - start)
        print(f"{name:<58} {seconds[0]:6.1f}  {seconds[1]:10.1f}", flush=True)


def xplique() -> None:
    """The same torch model in TensorFlow: over the bridge, and through Xplique's PyTorch wrapper."""
    if find_spec("xplique") is None:
        print("\nXplique is not installed: pip install --no-deps xplique (see its requirements)")
        return
    from xplique.attributions import Saliency
    from xplique.wrappers import TorchWrapper

    print(f"\n{'time, bridge / Xplique wrapper, the same torch ResNet-50':<58}  ratio")
    model, batch = torch_model(), images(3, PIXELS, PIXELS)
    ours = keras_host.bridge(_request("torch", model, batch)).model
    theirs = TorchWrapper(model, "cpu", is_channel_first=True)
    last, one_hot = np.moveaxis(batch, 1, -1).copy(), np.eye(10, dtype=np.float32)[TARGETS]
    for many in (1, STEPS):
        values, scores = tf.constant(np.tile(last, (many, 1, 1, 1))), tf.constant(np.tile(one_hot, (many, 1)))
        name = f"one gradient, {many * BATCH} images"
        pairs(name, lambda at=(values, scores): gradient(theirs, *at), lambda at=(values, scores): gradient(ours, *at))
    saliency, by_tf_keras_vis = Saliency(theirs, batch_size=BATCH), saliency_by_tf_keras_vis(model)
    pairs(
        "Saliency: tf-keras-vis over the bridge / Xplique",
        lambda: np.moveaxis(np.broadcast_to(saliency(last, one_hot).numpy(), last.shape), -1, 1),
        lambda: np.abs(by_tf_keras_vis(batch)).max(axis=1, keepdims=True).repeat(3, axis=1),
    )


def gradient(model: Any, values: Any, scores: Any) -> np.ndarray:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        score = tf.reduce_sum(model(values) * scores)
    return tape.gradient(score, values).numpy()


def peak_of(what: str) -> tuple[float, float]:
    """Peak memory (MB) of one computation in a fresh process: above what is loaded before it, and of all."""
    result = subprocess.run([sys.executable, __file__, f"peak:{what}"], capture_output=True, text=True, check=True)
    above, whole = json.loads(result.stdout.strip().splitlines()[-1])
    return float(above), float(whole)


def peak(what: str) -> None:
    side, framework = what.split("-")
    if framework == "keras":
        model, batch = keras_model(), images(PIXELS, PIXELS, 3)
        small = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
        make = keras_integrated_gradients if side == "hand" else whole_integrated_gradients
        make(small)(images(8, 8, 3))  # loads what is loaded at the first call of all
        model(batch[:1])
    else:
        model, batch = torch_model(), images(3, PIXELS, PIXELS)
        other = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.Flatten(), torch.nn.Linear(108, 10)).eval()
        make = torch_saliency if side == "hand" else whole_saliency
        make(other)(images(3, 8, 8))
        model(torch.tensor(batch[:1]))
    call = make(model)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    for _ in range(3):
        call(batch)
    print(json.dumps([(memory("VmHWM") - before) / 1024, memory("VmHWM") / 1024]))


def memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def peaks() -> None:
    print(f"\n{'peak memory (MB): above the loaded model, of the process':<58}    bridge     by hand  ratios")
    for name, framework in (
        ("Keras ResNet-50, IntegratedGradients, 20 steps, batch 4", "keras"),
        ("torch ResNet-50, Saliency, batch 4", "torch"),
    ):
        bridged, by_hand = peak_of(f"bridge-{framework}"), peak_of(f"hand-{framework}")
        print(
            f"{name:<58} {bridged[0]:4.0f} {bridged[1]:5.0f}  {by_hand[0]:4.0f} {by_hand[1]:5.0f}  "
            f"{bridged[0] / by_hand[0]:.2f} {bridged[1] / by_hand[1]:.2f}",
            flush=True,
        )


PARTS = {"speed": speed, "first": first, "memory": peaks, "xplique": xplique}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PARTS)
    if wanted[0].startswith("peak:"):
        peak(wanted[0].removeprefix("peak:"))
    else:
        print(f"torch {torch.__version__}, tensorflow {tf.__version__}, {os.cpu_count()} cores")
        for part in wanted:
            PARTS[part]()
