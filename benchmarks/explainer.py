"""What an explainer costs on a known model, beside the same by hand: alternating pairs, in one run.

    python benchmarks/explainer.py [native|bridge] ...

Promised over the toolset called directly on a model of its own framework: 50-step IntegratedGradients at most 1.02,
Saliency at most 1.1. Over a bridge, beside the model's own framework: at most 1.05 and 1.15. Checks are sampled:
batches that are checked in full (one in 16) are timed apart.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import cfi_core as cfi
from cfi_core.coexistence import load_safely

load_safely()

import captum.attr  # noqa: E402
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from torchvision.models import resnet50  # noqa: E402

PAIRS, BATCH, PIXELS, STEPS = 15, 4, 96, 50
TARGETS = [1, 2, 3, 4]
By = Callable[[np.ndarray], np.ndarray]


def images(*shape: int) -> np.ndarray:
    """New ones each time."""
    return np.random.default_rng().normal(size=(BATCH, *shape)).astype(np.float32)


def pairs(name: str, by_hand: By, explainer: cfi.Explainer, shape: tuple[int, ...], most: float) -> bool:
    """Prints the median ratio; whether it is as promised."""
    first = images(*shape)
    expected, values = by_hand(first), explainer(first).values
    apart = float(np.abs(values - expected).max() / np.abs(expected).max())
    ratios, full = [], []
    for number in range(PAIRS):
        batch = images(*shape)
        calls: dict[str, Callable[[], Any]] = {
            "hand": lambda batch=batch: by_hand(batch),
            "explainer": lambda batch=batch: explainer(batch, check=False),
        }
        seconds = {}
        for side in sorted(calls, reverse=bool(number % 2)):
            start = perf_counter()
            calls[side]()
            seconds[side] = perf_counter() - start
        ratios.append(seconds["explainer"] / seconds["hand"])
        if number % 5 == 0:
            start = perf_counter()
            explainer(batch, check=True)
            full.append((perf_counter() - start) / seconds["hand"])
    ratio = statistics.median(ratios)
    print(
        f"{name:<62} {ratio:6.3f} ({min(ratios):.3f} to {max(ratios):.3f})  ≤ {most:<5} in full "
        f"{statistics.median(full):5.2f}  by hand {seconds['hand']:.2f} s, values differ by {apart:.0e}",
        flush=True,
    )
    return ratio <= most


def native() -> bool:
    """Captum on a torch model."""
    torch.manual_seed(0)
    model, shape = resnet50(weights=None).eval(), (3, PIXELS, PIXELS)
    saliency, gradients = captum.attr.Saliency(model), captum.attr.IntegratedGradients(model)

    def directly(batch: np.ndarray) -> np.ndarray:
        return saliency.attribute(torch.tensor(batch), target=TARGETS, abs=False).numpy()

    def along_the_path(batch: np.ndarray) -> np.ndarray:
        return gradients.attribute(torch.tensor(batch), target=TARGETS, n_steps=STEPS).detach().numpy()

    return all(
        [
            pairs(
                "Captum's Saliency on a torch ResNet-50",
                directly,
                cfi.Explainer(model, "saliency", "captum", target=TARGETS, seed=0),
                shape,
                1.1,
            ),
            pairs(
                f"Captum's IntegratedGradients ({STEPS} steps) on a torch ResNet-50",
                along_the_path,
                cfi.Explainer(
                    model, "integrated_gradients", "captum", target=TARGETS, seed=0, exec_args={"n_steps": STEPS}
                ),
                shape,
                1.02,
            ),
        ]
    )


def bridge() -> bool:
    """Captum on a Keras model, beside compiled TensorFlow."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(
        weights=None, input_shape=(PIXELS, PIXELS, 3), classes=10, classifier_activation=None
    )
    shape = (PIXELS, PIXELS, 3)
    gradient = compiled_gradient(model)

    def directly(batch: np.ndarray) -> np.ndarray:
        return gradient(tf.constant(batch), tf.constant([*enumerate(TARGETS)])).numpy()

    points, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas, weights = tf.constant((1 + points) / 2, tf.float32), tf.constant(weights / 2, tf.float32)
    chosen = tf.constant([(row, TARGETS[row % BATCH]) for row in range(STEPS * BATCH)])

    def along_the_path(batch: np.ndarray) -> np.ndarray:
        inputs = tf.constant(batch)
        path = tf.reshape(alphas[:, None, None, None, None] * inputs[None], (-1, *inputs.shape[1:]))
        found = tf.reshape(gradient(path, chosen), (STEPS, *inputs.shape))
        return (inputs * tf.tensordot(weights, found, 1)).numpy()

    return all(
        [
            pairs(
                "Captum's Saliency on a Keras ResNet-50, over a bridge",
                directly,
                cfi.Explainer(model, "saliency", "captum", target=TARGETS, seed=0),
                shape,
                1.15,
            ),
            pairs(
                f"Captum's IntegratedGradients ({STEPS} steps) on a Keras ResNet-50, over a bridge",
                along_the_path,
                cfi.Explainer(
                    model, "integrated_gradients", "captum", target=TARGETS, seed=0, exec_args={"n_steps": STEPS}
                ),
                shape,
                1.05,
            ),
        ]
    )


def compiled_gradient(model: Any) -> Any:
    """Of the scores at the places, as a user of TensorFlow would write it."""

    @tf.function
    def gradient(values: Any, places: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            score = tf.reduce_sum(tf.gather_nd(model(values, training=False), places))
        return tape.gradient(score, values)

    return gradient


PARTS = {"native": native, "bridge": bridge}


def _run(part: str) -> bool:
    return PARTS[part]()


if __name__ == "__main__":
    print(f"torch {torch.__version__}, tensorflow {tf.__version__}, {os.cpu_count()} cores; medians of {PAIRS} pairs")
    wanted = sys.argv[1:] or list(PARTS)
    sys.exit(0 if all(list(map(_run, wanted))) else 1)
