"""The pointing game on mosaics of two classes: TorchRay's methods.

`python examples/torchray_game.py` trains the networks of three seeds (a minute or two each on one core), asks every
held-out mosaic for both of its classes, and writes the table of docs/pointing-game.md.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from mosaics import LAST_LAYER, NETWORKS, SIDE, Mosaics, accuracy, mosaics, pictures, train
from torch import nn

from cfi_torchray import LicenceWarning, Pointing, pointing_game

TOLERANCE = 2
"""Of 64 pixels: as much as 15 of the 400 to 500 that the paper's photographs have."""


def main() -> None:
    """Plays, prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("torchray-output"), help="folder for the table")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--training", type=int, default=4000, help="mosaics to learn from")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=60, help="mosaics to explain; a quarter of them by RISE")
    parser.add_argument("--masks", type=int, default=300, help="of RISE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=LicenceWarning)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    start, rows = perf_counter(), {}
    for seed in range(options.seeds):
        for name, row in play(seed, options).items():
            rows.setdefault(name, []).append(row)
    table = write_table(rows)
    (options.output / "pointing-game.json").write_text(json.dumps(rows, indent=1))
    (options.output / "pointing-game.md").write_text(table)
    print(f"{table}\n{perf_counter() - start:.0f} s")


def play(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Mean hit rates of one seed, by network and method."""
    data = pictures()
    shown, few = (mosaics(data.held_out, number, seed) for number in (options.samples, options.samples // 4))
    found: dict[str, float] = {}
    for network, make in NETWORKS.items():
        model = train(make, data, number=options.training, epochs=options.epochs, seed=seed)
        found[f"{network}: classes found"] = accuracy(model, shown)
        quick = game(model, shown, gradients(network), seed)
        slow = game(model, few, perturbations(options), seed)
        found |= {f"{network}: {name}": rate for name, rate in (quick.mean | slow.mean).items()}
        print(f"seed {seed}, {network}: {found[f'{network}: classes found']:.2f} of the classes found\n{quick}\n{slow}")
    return found


def game(model: nn.Module, shown: Mosaics, explanations: dict[str, Any], seed: int) -> Pointing:
    """One network, all methods."""
    images, classes, boxes = shown.asked()
    return pointing_game(
        explanations,
        boxes,
        classes,
        model=model,
        inputs=images,
        size=(SIDE, SIDE),
        tolerance=TOLERANCE,
        seed=seed,
        batch_size=50,
    )


def gradients(network: str) -> dict[str, Any]:
    """Methods that take one or two passes: by name, what `cfi.attribute` gets."""
    layer = LAST_LAYER[network]
    below = "features.13" if network == "VGG" else "blocks.1"

    def torchray(key: str, reduced: str | None = "max", **more: Any) -> dict[str, Any]:
        own = {} if reduced is None else {"gradient_to_saliency": reduced}
        own |= more.pop("exec_args", {})
        return {"method_key": key, "toolset": "torchray", "exec_args": own, **more}

    return {
        "saliency": torchray("saliency"),
        "linear_approx": torchray("linear_approx", None),
        "deconvolution": torchray("deconvolution"),
        "guided_backprop": torchray("guided_backprop"),
        "grad_cam": torchray("grad_cam", None, layer=layer),
        "linear_approx at the last layer": torchray("linear_approx", None, layer=layer),
        "excitation_backprop": torchray("excitation_backprop", "sum"),
        "excitation_backprop at a middle layer": torchray("excitation_backprop", "sum", layer=below),
        "contrastive_excitation_backprop at a middle layer": torchray(
            "contrastive_excitation_backprop", "sum", layer=below, exec_args={"contrast_layer": layer}
        ),
        "grad_cam (Captum)": {"method_key": "grad_cam", "toolset": "captum", "layer": layer},
        "integrated_gradients (Captum)": {
            "method_key": "integrated_gradients",
            "toolset": "captum",
            "exec_args": {"n_steps": 20},
        },
    }


def perturbations(options: argparse.Namespace) -> dict[str, Any]:
    """Methods that cover parts of the image."""
    return {
        "rise": {
            "method_key": "rise",
            "toolset": "torchray",
            "exec_args": {"num_masks": options.masks, "batch_size": 100},
        },
    }


def write_table(rows: dict[str, list[float]]) -> str:
    """A table in Markdown: methods in rows, networks in columns, mean ± standard deviation over seeds."""
    names = list(dict.fromkeys(name.partition(": ")[2] for name in rows))
    lines = [f"| explanation | {' | '.join(NETWORKS)} |", f"| --- |{' --- |' * len(NETWORKS)}"]
    for name in names:
        cells = [_cell(rows[f"{network}: {name}"]) for network in NETWORKS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread} %"


if __name__ == "__main__":
    main()
