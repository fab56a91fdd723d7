"""A tour of TorchRay's methods: on two small networks trained here, on EfficientNet-Lite0, and on Keras twins.

`python examples/torchray_tour.py` writes its pictures to `torchray-output/`; `--quick` makes them in less than a
minute and of less. Nothing is downloaded. The pointing game is in `torchray_game.py`.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", message="CUDA initialization", category=UserWarning)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from demo_models import PHOTOS, efficientnet_lite0, photographs  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from mosaics import LAST_LAYER, NETWORKS, Mosaics, accuracy, mosaics, pictures, train  # noqa: E402
from torch import nn  # noqa: E402

import cfi_core as cfi  # noqa: E402
from cfi_torchray import LicenceWarning, pointing_game  # noqa: E402

BOXES = {"chelsea": (20, 40, 200, 190), "coffee": (15, 45, 200, 200), "rocket": (40, 80, 185, 125)}
"""Drawn by hand on the photographs of 224×224: the cat's head, the cup with its saucer, the rocket."""


@dataclass(frozen=True)
class Tour:
    """What all stations share."""

    folder: Path
    networks: dict[str, nn.Module]
    shown: Mosaics
    names: tuple[str, ...]
    quick: bool

    def ray(self, model: Any, key: str, images: np.ndarray, target: Any, **arguments: Any) -> np.ndarray:
        """Values of one of TorchRay's methods."""
        result: Any = cfi.attribute(model, key, "torchray", inputs=images, target=target, seed=0, **arguments)
        return np.asarray(result.values)

    def draw(self, name: str, rows: list[list[tuple[str, np.ndarray]]], width: float = 1.7) -> None:
        """Maps in a grid: positive ones from black, signed ones around white."""
        columns = max(map(len, rows))
        figure = Figure(figsize=(width * columns, (width + 0.25) * len(rows)), layout="constrained")
        for row, cells in enumerate(rows):
            for column, (title, image) in enumerate(cells):
                axes = figure.add_subplot(len(rows), columns, row * columns + column + 1)
                _show(axes, image)
                axes.set_title(title, fontsize=7)
        figure.savefig(self.folder / f"{name}.png", dpi=110)
        print(f"  {self.folder / f'{name}.png'}")


def _show(axes: Any, image: np.ndarray) -> None:
    axes.set_axis_off()
    if image.ndim == 3:
        axes.imshow(image)
        return
    largest = np.percentile(np.abs(image), 99.5) or 1
    if image.min() < -0.02 * largest:
        axes.imshow(image, cmap="seismic", vmin=-largest, vmax=largest)
    else:
        axes.imshow(image, cmap="inferno", vmin=0, vmax=largest)


def gray(image: np.ndarray) -> np.ndarray:
    """A mosaic as a picture."""
    return np.repeat(np.clip(image[0], 0, 1)[..., None], 3, axis=2)


def main() -> None:
    """Goes from station to station."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("torchray-output"), help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="networks that have learned little, few masks")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=[one.__name__ for one in STATIONS], metavar="STATION"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=LicenceWarning)
    torch.set_num_threads(1)
    start = perf_counter()
    tour = prepare(options.output, options.quick)
    for station in STATIONS:
        if station.__name__ not in options.without:
            print((station.__doc__ or "").partition("\n")[0])
            station(tour)
    print(f"{perf_counter() - start:.0f} s")


def prepare(folder: Path, quick: bool) -> Tour:
    """Trains the networks."""
    data = pictures()
    shown = mosaics(data.held_out, 6 if quick else 100, seed=3)
    networks = {}
    for name, make in NETWORKS.items():
        started = perf_counter()
        networks[name] = train(make, data, number=256 if quick else 4000, epochs=1 if quick else 5, seed=0)
        found = accuracy(networks[name], shown)
        print(
            f"{name}: trained in {perf_counter() - started:.0f} s, names {found:.0%} of the classes of held-out mosaics"
        )
    return Tour(folder, networks, shown, data.names, quick)


def gradient_two_ways(tour: Tour) -> None:
    """The vanilla gradient, by hand and by CFI: its norm over the channels, and their sum, with its sign."""
    model, images, classes = tour.networks["VGG"], tour.shown.images[:3], tour.shown.classes[:3, 0]
    x = torch.tensor(images, requires_grad=True)
    model(x)[range(3), classes.tolist()].sum().backward()
    by_hand = x.grad.norm(dim=1).numpy()
    found = {
        name: tour.ray(model, "saliency", images, classes.tolist(), exec_args={"gradient_to_saliency": name})
        for name in ("norm", "sum")
    }
    print(f"  largest difference {np.abs(found['norm'] - by_hand).max():.1e}")
    rows = [
        [
            (tour.names[classes[i]], gray(images[i])),
            ("by hand, norm", by_hand[i]),
            ("norm", found["norm"][i]),
            ("sum", found["sum"][i]),
        ]
        for i in range(3)
    ]
    tour.draw("1-gradient-two-ways", rows)


class PositiveGradient(torch.autograd.Function):
    """A rectifier whose gradient passes where it is positive, whatever the input was: Zeiler and Fergus's rule."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g.clamp(min=0)


class OwnRule:
    """Puts one's own rule in the place of torch's rectifiers, as the tutorials do it."""

    def __enter__(self) -> None:
        self.before = torch.relu, torch.relu_
        torch.relu = torch.relu_ = PositiveGradient.apply

    def __exit__(self, *raised: object) -> None:
        torch.relu, torch.relu_ = self.before


def own_rule(tour: Tour) -> None:
    """A ReLU rule of one's own, beside the toolset's deconvolution, and guided backpropagation."""
    rows = []
    for name, model in tour.networks.items():
        images, target = tour.shown.images[:1], int(tour.shown.classes[0, 0])
        own = {"context_builder": OwnRule, "gradient_to_saliency": "max"}
        mine = tour.ray(model, "saliency", images, target, exec_args=own)[0]
        reduced = {"exec_args": {"gradient_to_saliency": "max"}}
        theirs = tour.ray(model, "deconvolution", images, target, **reduced)[0]
        print(f"  {name}: own rule and deconvolution differ by {np.abs(mine - theirs).max():.1e}")
        guided = tour.ray(model, "guided_backprop", images, target, **reduced)[0]
        rows.append(
            [
                (f"{name}: {tour.names[target]}", gray(images[0])),
                ("own rule", mine),
                ("deconvolution", theirs),
                ("guided backprop", guided),
            ]
        )
    tour.draw("2-own-rule", rows)


def calls(network: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods of the comparisons: title, key and arguments."""
    last, middle = LAST_LAYER[network], "features.13" if network == "VGG" else "blocks.1"
    return {
        "gradient": ("saliency", {"exec_args": {"gradient_to_saliency": "max"}}),
        "linear approx": ("linear_approx", {}),
        "deconvnet": ("deconvolution", {"exec_args": {"gradient_to_saliency": "max"}}),
        "guided backprop": ("guided_backprop", {"exec_args": {"gradient_to_saliency": "max"}}),
        "Grad-CAM": ("grad_cam", {"layer": last, "exec_args": {"resize": True}}),
        "excitation backprop": ("excitation_backprop", {"exec_args": {"gradient_to_saliency": "sum"}}),
        "contrastive, middle": (
            "contrastive_excitation_backprop",
            {
                "layer": middle,
                "exec_args": {"contrast_layer": last, "gradient_to_saliency": "sum", "resize": True},
            },
        ),
    }


def methods_by_architecture(tour: Tour) -> None:
    """Both classes of one picture, methods × architectures."""
    rows = []
    for name, model in tour.networks.items():
        images = tour.shown.images[1:2]
        for target in map(int, tour.shown.classes[1]):
            cells = [(f"{name}: {tour.names[target]}", gray(images[0]))]
            for title, (key, arguments) in calls(name).items():
                cells.append((title, tour.ray(model, key, images, target, **arguments)[0]))
            rows.append(cells)
    tour.draw("3-methods-by-architecture", rows)


def every_layer(tour: Tour) -> None:
    """Guided backpropagation at every layer of the VGG-like network that is no rectifier."""
    model, images, target = tour.networks["VGG"], tour.shown.images[2:3], int(tour.shown.classes[2, 0])
    cells = [(tour.names[target], gray(images[0]))]
    for name, module in model.features.named_children():
        if not isinstance(module, nn.ReLU):
            own = {"gradient_to_saliency": "max"}
            values = tour.ray(model, "guided_backprop", images, target, layer=f"features.{name}", exec_args=own)
            # Before the global average pooling the gradient is the same everywhere, and no picture.
            if np.ptp(values[0]) > 0:
                cells.append((f"features.{name} {type(module).__name__}", values[0]))
    tour.draw("4-every-layer", [cells[i : i + 5] for i in range(0, len(cells), 5)])


def rise(tour: Tour) -> None:
    """RISE for all classes at once, and extremal perturbations of two areas."""
    rows = []
    for name, model in tour.networks.items():
        images, classes = tour.shown.images[3:4], tour.shown.classes[3]
        own = {"num_masks": 100 if tour.quick else 3000, "all_classes": True, "batch_size": 100}
        result: Any = cfi.attribute(
            model, "rise", "torchray", inputs=images, target=int(classes[0]), seed=0, exec_args=own
        )
        cells = [(f"{name}", gray(images[0]))]
        maps = result.extras["all_classes"][0]
        for target in map(int, classes):
            cells.append((f"RISE: {tour.names[target]}", maps[target] - maps[target].min()))
        own = {"areas": [0.1, 0.2], "max_iter": 20 if tour.quick else 300, "step": 4, "sigma": 6}
        for target in map(int, classes):
            mask = tour.ray(model, "extremal_perturbation", images, target, exec_args=own)[0]
            cells.append((f"extremal: {tour.names[target]}", mask))
        rows.append(cells)
    tour.draw("5-rise-and-extremal-perturbation", rows)


def efficientnet(tour: Tour) -> None:
    """EfficientNet-Lite0, whose rectifiers are ReLU6 and whose bottlenecks are linear, on photographs."""
    model, photos, targets = efficientnet_lite0(), photographs(), [target for target, _ in PHOTOS.values()]
    reduced = {"gradient_to_saliency": "max", "smooth": 0.01}
    columns: dict[str, np.ndarray] = {
        title: tour.ray(model, key, photos, targets, exec_args=reduced)
        for title, key in (("gradient", "saliency"), ("deconvnet", "deconvolution"), ("guided", "guided_backprop"))
    }
    layer = {"layer": "_avg_pooling.features", "exec_args": {"resize": True}}
    columns["Grad-CAM"] = np.maximum(tour.ray(model, "grad_cam", photos, targets, **layer), 0)
    own = {"num_masks": 4 if tour.quick else 1000, "batch_size": 25}
    probable = nn.Sequential(model, nn.Softmax(1)).eval()  # RISE is about probabilities, as its paper has it
    drawn = tour.ray(probable, "rise", photos, targets, exec_args=own)
    columns["RISE"] = drawn - drawn.min(axis=(1, 2), keepdims=True)
    if not tour.quick:
        own = {"areas": [0.15], "max_iter": 120}
        columns["extremal"] = np.concatenate(
            [tour.ray(model, "extremal_perturbation", photos[i : i + 1], targets[i], exec_args=own) for i in range(3)]
        )
    try:
        tour.ray(model, "excitation_backprop", photos, targets, layer="_blocks.0")
    except cfi.MethodError as error:
        print(f"  refused, as it must be: {error}")
    pixels = np.clip((photos * 128 + 127) / 255, 0, 1).transpose(0, 2, 3, 1)
    rows = [
        [(name, pixels[i]), *((title, values[i]) for title, values in columns.items())] for i, name in enumerate(PHOTOS)
    ]
    tour.draw("6-efficientnet", rows)
    game = pointing_game(columns, [[BOXES[name]] for name in PHOTOS], targets, size=(224, 224), tolerance=7)
    print(f"  on the photographs, {game}")


def keras_twins(tour: Tour) -> None:
    """The same networks in Keras: over a bridge, and where rules need modules, through a conversion."""
    rows = []
    for name, model in tour.networks.items():
        images, target = tour.shown.images[4:5], int(tour.shown.classes[4, 0])
        twin: Any = cfi.translate(model, "tensorflow", inputs=tour.shown.images[:4]).model
        last = images.transpose(0, 2, 3, 1)
        cells = [(f"{name} in Keras", gray(images[0]))]
        for title, (key, arguments) in calls(name).items():
            if "layer" in arguments:
                continue
            found: Any = cfi.attribute(twin, key, "torchray", inputs=last, target=target, **arguments)
            native = tour.ray(model, key, images, target, **arguments)
            apart = np.abs(found.values - native).max() / np.abs(native).max()
            cells.append((f"{title}\n{found.route[0]}, {apart:.0e}", found.values[0]))
            print(f"  {name}, {key}: {found.route[0]}, relative difference {apart:.1e}")
        rows.append(cells)
    tour.draw("7-keras-twins", rows)


STATIONS: tuple[Callable[[Tour], None], ...] = (
    gradient_two_ways,
    own_rule,
    methods_by_architecture,
    every_layer,
    rise,
    efficientnet,
    keras_twins,
)

if __name__ == "__main__":
    main()
