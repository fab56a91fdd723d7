"""What a detector sees in a box: torchvision's SSD, trained here on drawn shapes, explained box by box.

    python examples/detector_boxes.py

A detector gives a list of dicts, boxes in any number; `cfi.targets.box` says which of them is meant, and explanations
say what it was found by. It needs cfi-captum, cfi-tfkerasvis, cfi-bridge and torchvision; nothing is downloaded; a
minute or two. Pictures go to `models-output/`.
"""

from __future__ import annotations

import argparse
import os
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
from torchvision.ops import box_iou  # noqa: E402

import cfi_core as cfi  # noqa: E402

SIDE, NAMES = 64, ("background", "square", "disc", "cross")


@dataclass(frozen=True)
class Drawn:
    """Images `(samples, 3, 64, 64)` from 0 to 1; boxes (left, top, right, bottom) and labels of two shapes in each."""

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
        {"boxes": torch.from_numpy(box).float(), "labels": torch.from_numpy(label)}
        for box, label in zip(shown.boxes, shown.labels, strict=True)
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


METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gradient (Captum)": ("saliency", "captum", {}),
    "gradient (tf-keras-vis)": ("saliency", "tf-keras-vis", {}),
    "occlusion (Captum)": (
        "occlusion",
        "captum",
        {"baselines": 0.3, "exec_args": {"sliding_window_shapes": (3, 8, 8), "strides": (3, 4, 4)}},
    ),
    "Grad-CAM (Captum)": ("grad_cam", "captum", {"layer": "auto"}),
    "LayerCAM (tf-keras-vis)": ("layer_cam", "tf-keras-vis", {"layer": "auto"}),
}
"""By title: key, toolset and arguments; 0.3 is about the grey behind the shapes."""


def explain(model: nn.Module, title: str, images: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """Maps of how each pixel speaks for one box of each image, and the attribution that they are made of."""
    key, toolset, arguments = METHODS[title]
    target = cfi.targets.box(iou_with=boxes.tolist(), label=labels.tolist())
    found = cfi.attribute(model, key, toolset, inputs=images, target=target, **arguments)
    values = np.asarray(found.values)
    if key == "saliency":
        return np.linalg.norm(values, axis=1), found
    positive = np.maximum(values if values.ndim == 3 else values.sum(1), 0)
    factor = SIDE // positive.shape[1]
    return positive.repeat(factor, 1).repeat(factor, 2), found


def energy(maps: np.ndarray, boxes: np.ndarray) -> float:
    """The share of a map that lies in the box, on average over the maps that are not zero."""
    inside = [one[window(box)].sum() / one.sum() for one, box in zip(maps, boxes, strict=True) if one.sum() > 0]
    return float(np.mean(inside))


def window(box: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    left, top, right, bottom = map(int, box)
    return slice(top, bottom), slice(left, right)


def main() -> None:
    """Trains, explains both boxes of every image, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("models-output"), help="folder for the pictures")
    parser.add_argument("--training", type=int, default=1500, help="images to learn from")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=12, help="images to explain, each for both of its boxes")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    start = perf_counter()
    model = train(options.training, options.epochs)
    print(f"detector trained in {perf_counter() - start:.0f} s, finds {recall(model):.0%} of the shapes of new images")
    shown = draw(options.images, seed=1)
    images, boxes, others = (
        np.repeat(shown.images, 2, 0),
        shown.boxes.reshape(-1, 4),
        shown.boxes[:, ::-1].reshape(-1, 4),
    )
    labels, maps = shown.labels.reshape(-1), {}
    print(f"{'share of the map':26}in the box  in the other")
    for title in METHODS:
        begun = perf_counter()
        maps[title], found = explain(model, title, images, boxes, labels)
        way = f"over the bridge, {found.certificate}" if found.route else "natively"
        at = f", layer {found.layer}" if found.layer else ""
        print(
            f"{title:26}{energy(maps[title], boxes):10.0%}{energy(maps[title], others):14.0%}   {way}{at}, "
            f"{perf_counter() - begun:.0f} s"
        )
    flat = np.ones_like(images[:, 0])
    print(f"{'chance':26}{energy(flat, boxes):10.0%}{energy(flat, others):14.0%}")
    paint(options.output / "boxes.png", model, images, boxes, labels, maps)
    print(f"{perf_counter() - start:.0f} s; {options.output / 'boxes.png'}")


def recall(model: nn.Module) -> float:
    """The share of shapes of new images found with their label, a score and an IoU above one half."""
    shown = draw(50, seed=2)
    with torch.no_grad():
        found = model(torch.from_numpy(shown.images))
    hits = []
    for one, boxes, labels in zip(found, shown.boxes, shown.labels, strict=True):
        overlaps = box_iou(torch.from_numpy(boxes).float(), one["boxes"]) > 0.5
        right = torch.from_numpy(labels)[:, None] == one["labels"]
        hits.append((overlaps & right & (one["scores"] > 0.5)).any(1).numpy())
    return float(np.mean(hits))


def paint(
    path: Path, model: nn.Module, images: np.ndarray, boxes: np.ndarray, labels: np.ndarray, maps: dict[str, np.ndarray]
) -> None:
    """The first rows: what is found, and for each box what it was found by."""
    rows, columns = min(4, len(images)), 1 + len(maps)
    figure = Figure(figsize=(1.75 * columns, 1.9 * rows + 0.5), layout="constrained")
    figure.suptitle("SSD of torchvision: what speaks for the white box", fontsize=10)
    with torch.no_grad():
        found = model(torch.from_numpy(images[:rows]))
    for row in range(rows):
        for column, (title, image) in enumerate(
            [("", images[row].transpose(1, 2, 0)), *((t, m[row]) for t, m in maps.items())]
        ):
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            axes.imshow(image, **({} if image.ndim == 3 else {"cmap": "inferno", "vmin": 0}))
            axes.set_axis_off()
            axes.set_title(title or f"asked for: {NAMES[labels[row]]}", fontsize=8)
            if column == 0:
                for box, label, score in zip(
                    *(found[row][key].numpy() for key in ("boxes", "labels", "scores")), strict=True
                ):
                    if score > 0.5:
                        frame(axes, box, "black")
                        axes.text(box[0], max(box[1] - 1, 6), f"{NAMES[label]} {score:.2f}", fontsize=7, color="white")
            frame(axes, boxes[row], "white")
    figure.savefig(path, dpi=100)


def frame(axes: Any, box: np.ndarray, color: str) -> None:
    """A box as a frame."""
    left, top, right, bottom = box
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color=color, linewidth=1.2)
    )


if __name__ == "__main__":
    main()
