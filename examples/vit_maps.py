"""Where a vision transformer looks: a small ViT trained here, its tokens laid out as maps, by two toolsets.

    python examples/vit_maps.py

The ViT (of transformers, random at first) learns which two pieces of clothing (or digits) a mosaic holds. Asked for
one of them, an explanation must point there and not at the other. `layer="auto"` finds the last layer from which maps
can be made; the twin in Keras is the same model, translated. It needs cfi-captum, cfi-tfkerasvis, cfi-bridge,
cfi-translate and the packages of `requirements-models.txt`; nothing is downloaded; a minute or two. Pictures go to
`models-output/`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from mosaics import SIDE, TILE, Mosaics, Pictures, pictures  # noqa: E402
from torch import nn  # noqa: E402
from transformers import ViTConfig, ViTForImageClassification  # noqa: E402

import cfi_core as cfi  # noqa: E402

PATCH, CLASSES = 8, 4


def vit(names: tuple[str, ...]) -> ViTForImageClassification:
    """A small one: 64 patches of 8×8 pixels and a class token."""
    config = ViTConfig(
        image_size=SIDE,
        patch_size=PATCH,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return ViTForImageClassification(config)


def quarters(part: tuple[np.ndarray, np.ndarray], number: int, seed: int) -> Mosaics:
    """So many mosaics of two of the first four classes, each in the middle of a quarter: a ViT learns slowly."""
    draw = np.random.default_rng(seed)
    images, labels = part
    of_class = [np.flatnonzero(labels == one) for one in range(CLASSES)]
    whole, classes, boxes = np.zeros((number, 1, SIDE, SIDE)), np.zeros((number, 2), int), np.zeros((number, 2, 4), int)
    for sample in range(number):
        classes[sample] = draw.choice(CLASSES, 2, replace=False)
        for one, quarter in enumerate(draw.choice(4, 2, replace=False)):
            top, left = np.array(divmod(int(quarter), 2)) * SIDE // 2 + (SIDE // 2 - TILE) // 2
            whole[sample, 0, top : top + TILE, left : left + TILE] = images[draw.choice(of_class[classes[sample, one]])]
            boxes[sample, one] = top, left, top + TILE, left + TILE
    noise = draw.uniform(0, 0.15, whole.shape)
    return Mosaics(np.clip(whole + noise, 0, 1).astype(np.float32), classes, boxes)


def train(data: Pictures, number: int, epochs: int, seed: int = 0) -> ViTForImageClassification:
    """A ViT that has learned which two classes a mosaic holds."""
    torch.manual_seed(seed)
    model = vit(data.names[:CLASSES])
    shown = quarters(data.training, number, seed + 1000)
    images, wanted = torch.from_numpy(shown.images), torch.zeros(number, CLASSES)
    wanted.scatter_(1, torch.from_numpy(shown.classes), 1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * (number // 64))
    for _ in range(epochs):
        order = torch.randperm(number)
        for start in range(0, number - 63, 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(images[batch]).logits, wanted[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


METHODS: dict[str, tuple[bool, str, str, dict[str, Any]]] = {
    "Grad-CAM (Captum)": (False, "grad_cam", "captum", {"layer": "auto"}),
    "Grad-CAM (tf-keras-vis)": (False, "grad_cam", "tf-keras-vis", {"layer": "auto"}),
    "Grad-CAM, twin in Keras (tf-keras-vis)": (True, "grad_cam", "tf-keras-vis", {"layer": "auto"}),
    "integrated gradients (Captum)": (False, "integrated_gradients", "captum", {}),
    "integrated gradients, twin (Captum)": (True, "integrated_gradients", "captum", {}),
}
"""By title: whether it is asked of the Keras twin, key, toolset and arguments."""


def main() -> None:
    """Trains, explains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("models-output"), help="folder for the pictures")
    parser.add_argument("--training", type=int, default=4000, help="mosaics to learn from")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--mosaics", type=int, default=20, help="mosaics to explain, each for both of its classes")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    start, data = perf_counter(), pictures()
    model = train(data, options.training, options.epochs)
    print(f"ViT trained in {perf_counter() - start:.0f} s, names {accuracy(model, data):.0%} of the classes")
    shown = quarters(data.held_out, options.mosaics, seed=3)
    images, classes, boxes = shown.asked()
    others = [boxes[index ^ 1] for index in range(len(boxes))]
    twin: Any = cfi.translate(model, "tensorflow", inputs=images[:4]).model
    maps: dict[str, np.ndarray] = {}
    print(f"{'':40}largest value     share of the positive values")
    print(f"{'':40}at the class    at the class  at the other one")
    for title, (of_twin, key, toolset, arguments) in METHODS.items():
        begun = perf_counter()
        asked, given = (twin, np.moveaxis(images, 1, -1)) if of_twin else (model, images)
        found = cfi.attribute(asked, key, toolset, inputs=given, target=classes, **arguments)
        maps[title] = enlarge(
            np.asarray(found.values).sum(found.dims.index("channel")) if "channel" in found.dims else found.values
        )
        way = f"{' and '.join(found.route) or 'natively'}{f', layer {found.layer}' if found.layer else ''}"
        figures = f"{hits(maps[title], boxes):12.0%}{share(maps[title], boxes):16.0%}{share(maps[title], others):18.0%}"
        print(f"{title:40}{figures}   {way}, {perf_counter() - begun:.0f} s")
    flat = share(np.ones((len(images), SIDE, SIDE)), boxes)
    print(f"{'chance':40}{flat:12.0%}{flat:16.0%}{flat:18.0%}")
    paint(options.output / "vit.png", images, [data.names[one] for one in classes], maps)
    print(f"{perf_counter() - start:.0f} s; {options.output / 'vit.png'}")


def enlarge(maps: np.ndarray) -> np.ndarray:
    """Maps of tokens at the size of the image."""
    factor = SIDE // maps.shape[1]
    return maps.repeat(factor, 1).repeat(factor, 2)


def hits(maps: np.ndarray, boxes: list[list[tuple[int, ...]]]) -> float:
    """The share of maps whose largest value (the middle of it, where it is one of a patch) is in the box."""
    middles = [np.argwhere(one == one.max()).mean(0) for one in maps]
    return float(
        np.mean(
            [
                top <= y < bottom and left <= x < right
                for (y, x), ((top, left, bottom, right),) in zip(middles, boxes, strict=True)
            ]
        )
    )


def share(maps: np.ndarray, boxes: list[list[tuple[int, ...]]]) -> float:
    """How much of the positive values is in the box, on average over the maps that have some."""
    positive = np.maximum(maps, 0)
    parts = [
        one[top:bottom, left:right].sum() / one.sum()
        for one, ((top, left, bottom, right),) in zip(positive, boxes, strict=True)
        if one.any()
    ]
    return float(np.mean(parts))


def paint(path: Path, images: np.ndarray, names: list[str], maps: dict[str, np.ndarray]) -> None:
    """The first mosaics, each asked for both of its classes."""
    rows, columns = min(4, len(images)), 1 + len(maps)
    figure = Figure(figsize=(1.75 * columns, 1.9 * rows + 0.4), layout="constrained")
    figure.suptitle("A vision transformer: what speaks for one of two classes (red) or against it (blue)", fontsize=10)
    for row in range(rows):
        for column, (title, image) in enumerate(
            [("", images[row, 0]), *((title, m[row]) for title, m in maps.items())]
        ):
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            largest = np.percentile(np.abs(image), 99.5)
            signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
            axes.imshow(image, **(signed if title else {"cmap": "gray"}))
            axes.set_axis_off()
            axes.set_title(
                title.replace(" (", "\n(").replace(", twin", ",\ntwin") or f"asked for:\n{names[row]}", fontsize=7
            )
    figure.savefig(path, dpi=100)


def accuracy(model: nn.Module, data: Pictures) -> float:
    """How often the two largest logits are those of the two classes, on mosaics of digits held out."""
    shown = quarters(data.held_out, 200, seed=2)
    with torch.no_grad():
        largest = model(torch.from_numpy(shown.images)).logits.topk(2).indices.numpy()
    return float(np.mean([len({*found} & {*wanted}) / 2 for found, wanted in zip(largest, shown.classes, strict=True)]))


if __name__ == "__main__":
    main()
