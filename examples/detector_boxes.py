"""What a detector sees in a box: torchvision's SSD, trained here on drawn shapes, explained box by box.

    python examples/detector_boxes.py

A detector gives a list of dicts, boxes in any number; `cfi.targets.box` says which of them is meant, and explanations
say what it was found by. It needs cfi-captum, cfi-tfkerasvis, cfi-bridge and torchvision; nothing is downloaded; a
minute or two. Pictures go to `models-output/`.
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator  # noqa: E402
from torchvision.models.detection.ssd import SSD  # noqa: E402

import cfi_core as cfi  # noqa: E402

SIDE, NAMES = 64, ("background", "square", "disc", "cross")


@dataclass(frozen=True)
class Drawn:
    """Images `(samples, 3, 64, 64)` from 0 to 1; of each the boxes (left, top, right, bottom) and labels of two shapes."""

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def draw(number: int, seed: int) -> Drawn:
    """So many images of two shapes of different kinds and colours, the same for a seed."""
    generator = np.random.default_rng(seed)
    images, boxes, labels = np.zeros((number, SIDE, SIDE, 3)), np.zeros((number, 2, 4)), np.zeros((number, 2), int)
    for sample in range(number):
        images[sample] = generator.uniform(0.2, 0.4, 3)
        labels[sample] = generator.choice([1, 2, 3], 2, replace=False)
        for one, half in enumerate(generator.permutation(2)):
            size = int(generator.integers(16, 27))
            left = int(generator.integers(half * SIDE // 2, (half + 1) * SIDE // 2 - size, endpoint=True))
            top = int(generator.integers(0, SIDE - size, endpoint=True))
            images[sample, top : top + size, left : left + size][_shape(labels[sample, one], size)] = generator.uniform(
                0.5, 1, 3
            )
            boxes[sample, one] = left, top, left + size, top + size
    images += generator.normal(0, 0.03, images.shape)
    return Drawn(np.clip(images, 0, 1).transpose(0, 3, 1, 2).astype(np.float32), boxes, labels)


def _shape(label: int, size: int) -> np.ndarray:
    y, x = np.abs(np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    return {1: np.maximum(x, y) <= 1, 2: x**2 + y**2 <= 1, 3: np.minimum(x, y) <= 0.3}[int(label)]


class Backbone(nn.Module):
    """Maps of 8×8 and 4×4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*_block(3, 16), *_block(16, 32), *_block(32, 64))
        self.second = nn.Sequential(*_block(64, 64))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.first(x)
        return {"fine": fine, "coarse": self.second(fine)}


def _block(before: int, width: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]


def train(number: int, epochs: int, seed: int = 0) -> SSD:
    """A detector that has learned the three shapes."""
    torch.manual_seed(seed)
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.3, 0.4, 0.5], steps=[8, 16])
    model = SSD(
        Backbone(),
        boxes,
        (SIDE, SIDE),
        len(NAMES),
        head=None,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        score_thresh=0.05,
        detections_per_img=20,
    )
    shown = draw(number, seed + 1000)
    images = torch.from_numpy(shown.images)
    wanted = [
        {"boxes": torch.from_numpy(b).float(), "labels": torch.from_numpy(l)}
        for b, l in zip(shown.boxes, shown.labels, strict=True)
    ]
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (number // 32))
    for _ in range(epochs):
        order = torch.randperm(number)
        for start in range(0, number - 31, 32):
            batch = order[start : start + 32].tolist()
            optimizer.zero_grad()
            sum(model([images[i] for i in batch], [wanted[i] for i in batch]).values()).backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)
