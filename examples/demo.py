"""The main job on real input: models of one framework, explained by the toolset of the other.

A PyTorch EfficientNet-Lite0 with its ImageNet weights is explained by tf-keras-vis on three photographs, and
a Keras CNN, trained here on real MNIST digits, by Captum. `make demo` sets up everything and runs this; nothing
is downloaded but packages. Pictures and an overview page are written to `demo-output/`.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

# Only in this script, to keep its output readable: a library must leave the log to its user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", message="CUDA initialization", category=UserWarning)

import numpy as np  # noqa: E402
from demo_models import PHOTO_LAYER, PHOTOS, digits, efficientnet_lite0, photographs, train_digit_cnn  # noqa: E402
from demo_page import Entry, write_overview, write_page  # noqa: E402

import cfi_core as cfi  # noqa: E402

PHOTO_MODEL = "EfficientNet-Lite0 (PyTorch), explained by tf-keras-vis"
DIGIT_MODEL = "CNN on MNIST digits (Keras), explained by Captum"
DIGITS_SHOWN = (2, 3, 5, 7)


def main() -> None:
    """Runs both halves and writes the overview."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the pictures")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    entries = [*explain_photographs(folder), *explain_digits(folder)]
    page = write_page(folder, entries)
    overview = write_overview(folder, entries)
    print(f"\n{len(entries)} explanations in {perf_counter() - start:.0f} s. Look at {page} or {overview}.")


def explain_photographs(folder: Path) -> list[Entry]:
    """A PyTorch model, explained by a toolset of TensorFlow."""
    import keras
    import torch

    model, photos = efficientnet_lite0(), photographs()
    targets = [target for target, _ in PHOTOS.values()]
    print(f"\n{PHOTO_MODEL}")
    with torch.no_grad():
        probabilities = model(torch.from_numpy(photos)).softmax(dim=1).numpy()
    for (photo, (target, name)), row in zip(PHOTOS.items(), probabilities, strict=True):
        print(f"  {photo}: class {row.argmax()} with probability {row.max():.2f} (expected {target}, {name})")

    entries = []
    for method, layer, exec_args in (
        # CFI returns raw maps; the ReLU of the Grad-CAM paper keeps what speaks for the class.
        ("grad_cam", PHOTO_LAYER, {"activation_modifier": keras.ops.relu}),
        # The 64 channels of the highest variance instead of all 1,280, each of which costs one forward pass.
        ("score_cam", PHOTO_LAYER, {"max_N": 64}),
        ("saliency", None, {}),
    ):
        result = cfi.attribute(
            model,
            method,
            "tf-keras-vis",
            inputs=photos,
            target=targets,
            layer=layer,
            exec_args=exec_args,
            seed=0,
        )
        entries.append(report(result, PHOTO_MODEL, folder))

    start = np.random.default_rng(0).uniform(-0.1, 0.1, size=(1, *photos.shape[1:])).astype(np.float32)
    result = cfi.visualize_features(
        model,
        "activation_maximization",
        "tf-keras-vis",
        inputs=start,
        target=PHOTOS["coffee"][0],
        exec_args={"input_range": (-1.0, 1.0), "steps": 100},
        seed=0,
    )
    entries.append(report(result, PHOTO_MODEL, folder))
    return entries


def explain_digits(folder: Path) -> list[Entry]:
    """A Keras model, explained by a toolset of PyTorch."""
    data = digits()
    model = train_digit_cnn(data)
    print(f"\n{DIGIT_MODEL}")
    predicted = model.predict(data.test_images, verbose=0).argmax(axis=1)
    accuracy = (predicted == data.test_labels).mean()
    print(
        f"  trained on {len(data.training_labels)} digits; {accuracy:.1%} of {len(predicted)} held-out ones are right"
    )
    right = predicted == data.test_labels
    shown = [int(np.flatnonzero(right & (data.test_labels == digit))[0]) for digit in DIGITS_SHOWN]
    images, targets = data.test_images[shown], data.test_labels[shown].tolist()

    entries = []
    for method, layer in (
        ("integrated_gradients", None),
        ("deep_lift", None),
        ("grad_cam", "conv2"),
        ("layer_conductance", "conv1"),
    ):
        result = cfi.attribute(model, method, "captum", inputs=images, target=targets, layer=layer, seed=0)
        entries.append(report(result, DIGIT_MODEL, folder))
    return entries


def report(result: Any, model: str, folder: Path) -> Entry:
    """Prints what was done and draws it."""
    facts = {
        "method": result.method_key + (f" at layer {result.layer}" if result.layer else ""),
        "toolset": result.toolset,
        "route": " → ".join(result.route) or "native",
        "certificate": str(result.certificate),
        "explained": str(result.provenance["explained"]),
        "seconds": f"{result.provenance['seconds']:.1f}",
    }
    picture = result.save(folder / f"{result.toolset}-{result.method_key}.png")
    print(f"\n  {facts['method']}")
    for name, value in list(facts.items())[1:]:
        print(f"    {name:<12}{value}", flush=True)
    print(f"    {'picture':<12}{picture}", flush=True)
    return Entry(model, picture, facts)


if __name__ == "__main__":
    main()
