"""Captum against tf-keras-vis: Saliency and Grad-CAM, on a Keras and a PyTorch network, and why they differ.

    python examples/toolset_comparison.py [--quick] [--output FOLDER]

Both toolsets explain the same digits of the same networks, with comparable settings and with their own defaults.
`cfi.compare` measures how far the answers are apart, and finds the settings that make the difference.

It needs the packages of `requirements.txt`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
from demo_models import digits  # noqa: E402
from digit_models import channels_first, keras_cnn, outputs, torch_cnn, train_keras, train_torch  # noqa: E402
from experiment import Clock, grid, maps_of, options, show_map, show_picture, table, write  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import cfi_core as cfi  # noqa: E402

BOTH = ("captum", "tf-keras-vis")


@dataclass(frozen=True)
class Setting:
    """One way to ask both toolsets for the same: which set of defaults, and what each is told besides."""

    name: str
    method: str
    defaults: str = "raw"
    captum: Mapping[str, Any] | None = None
    tf_keras_vis: Mapping[str, Any] | None = None

    def methods(self) -> dict[str, dict[str, Any]]:
        """As `cfi.compare` takes them."""
        own = dict(zip(BOTH, (self.captum, self.tf_keras_vis), strict=True))
        return {
            toolset: {"method_key": self.method, "toolset": toolset, "exec_args": dict(given or {})}
            for toolset, given in own.items()
        }


SALIENCY = (
    Setting("aligned", "saliency"),
    Setting("own defaults", "saliency", "toolset"),
)
GRAD_CAM = (
    Setting("aligned", "grad_cam"),
    Setting("scaled bilinearly", "grad_cam", "raw", {"upsample": "bilinear"}, {"expand_cam": True}),
    Setting("scaled to blocks", "grad_cam", "raw", {"upsample": "nearest"}, {"expand_cam": True}),
    Setting("own defaults", "grad_cam", "toolset"),
)
"""CFI's raw values are the aligned ones: no absolute value, rectifier, normalisation or scaling on either side."""


@dataclass(frozen=True)
class Asked:
    """A network, the digits that it is asked about in its own axes, and as pictures."""

    model: Any
    inputs: np.ndarray
    pictures: np.ndarray
    targets: list[int]


def networks(*, training: int = 4000, epochs: int = 4, samples: int = 4) -> dict[str, Asked]:
    """A Keras and a PyTorch network, trained on the same digits; samples are held-out digits that both name rightly."""
    data = digits()
    images, labels = data.training_images[-training:], data.training_labels[-training:]
    if training < len(data.training_images):
        chosen = np.random.default_rng(0).permutation(len(data.training_images))[:training]
        images, labels = data.training_images[chosen], data.training_labels[chosen]
    models = {
        "Keras": train_keras(keras_cnn(), images, labels, epochs=epochs),
        "PyTorch": train_torch(torch_cnn(), images, labels, epochs=epochs),
    }
    right = np.all([outputs(one, data.test_images).argmax(1) == data.test_labels for one in models.values()], axis=0)
    shown = np.random.default_rng(3).choice(np.flatnonzero(right), samples, replace=False)
    pictures, targets = data.test_images[shown], [int(one) for one in data.test_labels[shown]]
    return {
        name: Asked(model, pictures if name == "Keras" else channels_first(pictures), pictures, targets)
        for name, model in models.items()
    }


def compare(asked: Asked, setting: Setting, *, reasons: bool = True) -> Any:
    """The comparison of both toolsets."""
    layer = "conv2" if setting.method == "grad_cam" else None
    return cfi.compare(
        asked.model,
        setting.methods(),
        inputs=asked.inputs,
        target=asked.targets,
        layer=layer,
        defaults=setting.defaults,
        seed=0,
        reasons=reasons,
    )


def run(
    asked: Mapping[str, Asked], clock: Callable[[str], None] = lambda text: None, *, reasons: bool = True
) -> dict[str, dict[str, dict[str, Any]]]:
    """By method, setting and framework of the network: the comparison."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for title, settings in (("Saliency", SALIENCY), ("Grad-CAM", GRAD_CAM)):
        for setting in settings:
            for name, network in asked.items():
                found.setdefault(title, {}).setdefault(setting.name, {})[name] = compare(
                    network, setting, reasons=reasons
                )
                clock(f"{title}, {setting.name}, {name} network")
    return found


def draw(asked: Mapping[str, Asked], comparisons: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Columns: networks and settings. Rows: Captum, tf-keras-vis, and what the former has more."""
    columns = [(name, setting) for name in asked for setting in comparisons]
    figure, axes = grid(4, len(columns), 1.3)
    for place, (name, setting) in enumerate(columns):
        found = comparisons[setting][name]
        pair = found.pair(*BOTH)
        show_picture(axes[0][place], asked[name].pictures[0], f"{name} network\n{setting}")
        for row, toolset in zip(axes[1:3], BOTH, strict=True):
            values = maps_of(found.attributions[toolset])[0].sum(-1)
            show_map(row[place], values, f"{toolset}, {len(values)}×{len(values)}\nup to {np.abs(values).max():.2g}")
        values = maps_of(found.subtract(*BOTH))[0].sum(-1)
        largest = np.abs(values).max()
        show_map(axes[3][place], values, f"difference: {pair.measures.difference:.0e}\nup to {largest:.1g}")
    return figure


def distance_of_zooms(asked: Asked) -> float:
    """How far `expand_cam` is from a bilinear interpolation whose corner points are those of the map.

    PyTorch, and so Captum, takes pixels as areas by default (`align_corners=False`); the relative L2 difference.
    """
    import torch

    stretched = Setting("", "grad_cam", "raw", {}, {"expand_cam": True})
    found = compare(asked, stretched, reasons=False).attributions
    small = torch.from_numpy(np.moveaxis(maps_of(found["captum"]), -1, 1))
    zoomed = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=True).numpy()
    other = np.moveaxis(maps_of(found["tf-keras-vis"]), -1, 1)
    return float(np.linalg.norm(zoomed - other) / np.linalg.norm(other))


def page_of(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A table, and what `cfi.compare` prints of the Keras network."""
    rows = [
        [title, setting, name, *_cells(comparison.pair(*BOTH))]
        for title, settings in found.items()
        for setting, networks_ in settings.items()
        for name, comparison in networks_.items()
    ]
    head = ["method", "settings", "network", "difference", "cosine", "found", "what remains then"]
    lines = [table(head, rows)]
    for title, settings in found.items():
        for setting, networks_ in settings.items():
            for name, comparison in networks_.items():
                lines += ["", f"{title}, {setting}, {name} network:", "", "```", str(comparison), "```"]
    return "\n".join(lines)


def _cells(pair: Any) -> list[str]:
    remaining = "" if pair.remaining is None or not pair.rows else f"{pair.remaining:.1e}"
    settings = ", ".join(f"`{row.name}`" for row in pair.rows)
    why = f"{pair.verdict}: {settings}" if settings else str(pair.verdict)
    return [f"{pair.measures.difference:.1e}", f"{pair.measures.cosine:.3f}", why, remaining]


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Trains, compares, draws, writes."""
    chosen, clock = options(__doc__, arguments), Clock()
    asked = networks(training=1000, epochs=3, samples=2) if chosen.quick else networks()
    clock("trained")
    found = run(asked, clock)
    for title, comparisons in found.items():
        draw(asked, comparisons).savefig(chosen.output / f"comparison-{title.lower()}.png")
    zooms = distance_of_zooms(asked["PyTorch"])
    numbers: dict[str, Any] = {"expand_cam - aligned corners": zooms}
    numbers |= {
        title: {
            setting: {name: one.as_dict()["pairs"] for name, one in by_name.items()}
            for setting, by_name in all_.items()
        }
        for title, all_ in found.items()
    }
    write(
        chosen.output,
        "comparison-of-toolsets",
        numbers,
        page_of(found) + f"\n\nexpand_cam against aligned corners: {zooms:.1e}",
    )
    return found


if __name__ == "__main__":
    main()
