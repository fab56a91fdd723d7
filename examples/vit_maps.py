"""Where a vision transformer looks: a small ViT trained here, its tokens laid out as maps, by three toolsets.

    python examples/vit_maps.py

The ViT (of transformers, random at first) learns which two pieces of clothing (or digits) a mosaic holds. Asked for
one of them, an explanation must point there and not at the other. `layer="auto"` finds the last layer from which maps
can be made; the twin in Keras is the same model, translated. It needs cfi-captum, cfi-tfkerasvis, cfi-zennit, cfi-bridge,
cfi-translate and the packages of `requirements-models.txt`; nothing is downloaded; a minute or two. Pictures go to
`models-output/`.
"""

from __future__ import annotations

import argparse
import os
import warnings
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
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
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
    twin: Any = cfi.translate(model, "tensorflow", inputs=images[:2], target="predicted").model
    maps: dict[str, np.ndarray] = {}
    for title, asked, key, toolset, arguments in (
        ("Grad-CAM (Captum)", model, "grad_cam", "captum", {"layer": "auto"}),
        ("Grad-CAM (tf-keras-vis)", model, "grad_cam", "tf-keras-vis", {"layer": "auto"}),
        ("Grad-CAM of the twin in Keras", twin, "grad_cam", "tf-keras-vis", {"layer": "auto"}),
        ("integrated gradients (Captum)", model, "integrated_gradients", "captum", {"exec_args": {"n_steps": 20}}),
    ):
        begun = perf_counter()
        found = cfi.attribute(asked, key, toolset, inputs=images, target=classes, **arguments)
        print(found.dims, np.shape(found.values), found.layer, found.route, found.provenance.get("layer"), perf_counter() - begun)
        maps[title] = np.asarray(found.values)


def accuracy(model: nn.Module, data: Pictures) -> float:
    """How often the two largest logits are those of the two classes, on mosaics of digits held out."""
    shown = quarters(data.held_out, 200, seed=2)
    with torch.no_grad():
        largest = model(torch.from_numpy(shown.images)).logits.topk(2).indices.numpy()
    return float(np.mean([len({*found} & {*wanted}) / 2 for found, wanted in zip(largest, shown.classes, strict=True)]))


if __name__ == "__main__":
    main()
