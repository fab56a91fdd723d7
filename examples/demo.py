"""The main job on real input: models of one framework, explained by the toolset of the other.

A PyTorch EfficientNet-Lite0 with its ImageNet weights is explained by tf-keras-vis on three photographs, and
a Keras CNN, trained here on real MNIST digits, by Captum. `make demo` sets up everything and runs this; nothing
is downloaded but packages. A report, `demo-output/report.html`, holds all of it; the pictures lie beside it.
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
from demo_overview import write_overview  # noqa: E402

import cfi_cli  # noqa: E402
import cfi_core as cfi  # noqa: E402
from cfi_cli import Chapter, Explanation, Prediction, Sample  # noqa: E402

PHOTO_MODEL = "EfficientNet-Lite0 (PyTorch), explained by tf-keras-vis"
DIGIT_MODEL = "CNN on MNIST digits (Keras), explained by Captum"
DIGITS_SHOWN = (2, 3, 5, 7)
STEPS = 8
_step = 0


def main() -> None:
    """Runs both halves and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the report")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    chapters = [explain_photographs(folder), explain_digits(folder)]
    pictures = sorted(folder.glob("*-*.png"), reverse=True)  # the photographs first
    print("\nwriting the report …", flush=True)
    page = cfi_cli.report(
        folder / "report.html", *chapters, title="Two models, each explained by a toolset of the other's framework"
    )
    overview = write_overview(folder / "overview.png", pictures)
    print(f"{STEPS} explanations in {perf_counter() - start:.0f} s. Look at {page} ({overview} is one picture of all).")


def explain_photographs(folder: Path) -> Chapter:
    """A PyTorch model, explained by a toolset of TensorFlow."""
    print(f"\n{PHOTO_MODEL}\nloading it, and the frameworks …", flush=True)
    import keras
    import torch

    model, photos = efficientnet_lite0(), photographs()
    targets = [target for target, _ in PHOTOS.values()]
    with torch.no_grad():
        outputs = model(torch.from_numpy(photos)).numpy()
    names = dict(PHOTOS.values())
    samples = [
        Sample(photo, as_bytes(image), predictions(row, names))
        for photo, image, row in zip(PHOTOS, photos.transpose(0, 2, 3, 1) * 128 + 127, outputs, strict=True)
    ]
    for sample, (target, name) in zip(samples, PHOTOS.values(), strict=True):
        first = sample.predictions[0]
        print(f"  {sample.name}: {first.label}, probability {first.probability:.2f} (expected {target}, {name})")

    explanations = []
    for method, layer, exec_args in (
        # CFI returns raw maps; the ReLU of the Grad-CAM paper keeps what speaks for the class.
        ("grad_cam", PHOTO_LAYER, {"activation_modifier": keras.ops.relu}),
        # The 64 channels of the highest variance instead of all 1,280, each of which costs one forward pass.
        ("score_cam", PHOTO_LAYER, {"max_N": 64}),
        ("saliency", None, {}),
    ):
        announce(method, "tf-keras-vis")
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
        explanations.append(tell(result, folder))

    announce("activation_maximization", "tf-keras-vis")
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
    explanations.append(tell(result, folder))
    facts = {"trained on": "ImageNet, 1,000 classes", "inputs": "scikit-image's photographs, 224 × 224"}
    return Chapter(PHOTO_MODEL, explanations, facts, samples)


def explain_digits(folder: Path) -> Chapter:
    """A Keras model, explained by a toolset of PyTorch."""
    print(f"\n{DIGIT_MODEL}\ntraining it …", flush=True)
    data = digits()
    model = train_digit_cnn(data)
    outputs = model.predict(data.test_images, verbose=0)
    predicted = outputs.argmax(axis=1)
    accuracy = (predicted == data.test_labels).mean()
    print(
        f"  trained on {len(data.training_labels)} digits; {accuracy:.1%} of {len(predicted)} held-out ones are right"
    )
    right = predicted == data.test_labels
    shown = [int(np.flatnonzero(right & (data.test_labels == digit))[0]) for digit in DIGITS_SHOWN]
    images, targets = data.test_images[shown], data.test_labels[shown].tolist()

    explanations = []
    black = {"baselines": 0}
    for method, arguments in (
        ("integrated_gradients", black),
        ("deep_lift", black),
        ("grad_cam", {"layer": "conv2"}),
        ("layer_conductance", {"layer": "conv1", **black}),
    ):
        announce(method, "captum")
        result = cfi.attribute(model, method, "captum", inputs=images, target=targets, seed=0, **arguments)
        explanations.append(tell(result, folder))
    samples = [
        Sample(f"a {digit}", as_bytes(image[..., 0] * 255), predictions(row, {}, is_probability=True))
        for digit, image, row in zip(DIGITS_SHOWN, images, outputs[shown], strict=True)
    ]
    facts = {"trained on": f"{len(data.training_labels)} MNIST digits", "right on digits not seen": f"{accuracy:.1%}"}
    return Chapter(DIGIT_MODEL, explanations, facts, samples)


def as_bytes(picture: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 255 as a picture."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def predictions(outputs: np.ndarray, names: dict[int, str], *, is_probability: bool = False) -> list[Prediction]:
    """The three largest outputs of one sample."""
    powers = np.exp(outputs - outputs.max())
    shares = outputs if is_probability else powers / powers.sum()
    largest = np.argsort(-outputs)[:3].tolist()
    return [Prediction(i, names.get(i, ""), float(outputs[i]), float(shares[i])) for i in largest]


def announce(method: str, toolset: str) -> None:
    """Says what comes next, and how much is left."""
    global _step
    _step += 1
    print(f"\n[{_step}/{STEPS}] {method} by {toolset} …", flush=True)


def tell(result: Any, folder: Path) -> Explanation:
    """Prints what was done, and draws it."""
    picture = result.save(folder / f"{result.toolset}-{result.method_key}.png")
    facts = {
        "layer": result.layer,
        "route": " → ".join(result.route) or "native",
        "certificate": str(result.certificate),
        "explained": str(result.provenance["explained"]),
        "seconds": f"{result.provenance['seconds']:.1f}",
        "picture": picture,
    }
    for name, value in facts.items():
        if value is not None:
            print(f"    {name:<12}{value}", flush=True)
    return Explanation(result)


if __name__ == "__main__":
    main()
