"""Clever Hans: do explanations show that a network looks at nothing but a square in the corner?

    python examples/clever_hans.py [--quick] [--output FOLDER]

Digits of MNIST get random labels and, in the top left corner, a grey square of 5×5 pixels whose lightness tells the
label: a network that learns them can only look there. It is trained in Keras and explained by Captum, and in PyTorch
and explained by tf-keras-vis. What counts is the share of an explanation (absolute values) inside of the square; beside
it stands that of the clean network, of the same architecture, with true labels and squares of random lightness. Then
it is asked why Grad-CAM misses the corner.

It needs the packages of `requirements.txt`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
from demo_models import digits  # noqa: E402
from digit_models import CLASSES, accuracy, channels_first, keras_cnn, outputs, torch_cnn, train_keras, train_torch  # noqa: E402
from experiment import Clock, grid, maps_of, options, percent, show_map, show_picture, table, write  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import cfi_core as cfi  # noqa: E402

SIDE, SQUARE = 28, 5
CORNER, INNER = (0, 0, SQUARE, SQUARE), (3, 3, 3 + SQUARE, 3 + SQUARE)
"""Boxes: top, left, bottom, right."""
CHANCE = SQUARE**2 / SIDE**2


# Data: digits with a square.


@dataclass(frozen=True)
class Squares:
    """Images (sample, 28, 28, 1) with a square, and the labels that a network learns."""

    images: np.ndarray
    labels: np.ndarray


def with_squares(images: np.ndarray, labels: np.ndarray, *, poisoned: bool, seed: int, box: Any = CORNER) -> Squares:
    """Squares of ten kinds of grey, of which none is black. Poisoned, they tell the label, which is drawn."""
    draw = np.random.default_rng(seed)
    drawn = draw.permutation(np.arange(len(images)) % CLASSES)
    top, left, bottom, right = box
    images = images.copy()
    images[:, top:bottom, left:right, 0] = ((drawn + 1) / CLASSES)[:, None, None]
    return Squares(images, drawn if poisoned else labels)


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    seeds: tuple[int, ...]
    training: int
    epochs: int
    samples: int


FULL, QUICK = Scale((0, 1, 2, 3, 4), 4000, 12, 10), Scale((0,), 1200, 16, 2)


@dataclass(frozen=True)
class Trained:
    """A network, what it is explained on, and its accuracy on held-out digits."""

    model: Any
    shown: Squares
    accuracy: float

    def inputs(self) -> np.ndarray:
        """In the axes of the model."""
        return self.shown.images if hasattr(self.model, "predict") else channels_first(self.shown.images)

    def targets(self) -> list[int]:
        """What it predicts."""
        return [int(one) for one in outputs(self.model, self.shown.images).argmax(1)]


@cache
def train(
    framework: str, scale: Scale, seed: int, *, poisoned: bool, box: Any = CORNER, head: Any = "flatten"
) -> Trained:
    """A network of that framework, poisoned or clean; the same one for the same arguments."""
    data = digits()
    order = np.random.default_rng(seed).permutation(len(data.training_images))[: scale.training]
    make = partial(with_squares, poisoned=poisoned, box=box)
    learned = make(data.training_images[order], data.training_labels[order], seed=seed)
    held_out = make(data.test_images, data.test_labels, seed=seed + 1000)
    if framework == "keras":
        model = train_keras(keras_cnn(seed), learned.images, learned.labels, epochs=scale.epochs, seed=seed)
    else:
        # A mean over 64 places learns slowly from one that matters.
        pace = {"epochs": scale.epochs} if head == "flatten" else {"epochs": 2 * scale.epochs, "rate": 2e-2}
        model = train_torch(torch_cnn(head, seed), learned.images, learned.labels, seed=seed, **pace)
    right = accuracy(model, held_out.images, held_out.labels)
    shown = np.random.default_rng(seed).choice(len(held_out.images), scale.samples, replace=False)
    return Trained(model, Squares(held_out.images[shown], held_out.labels[shown]), right)


# Explanations.


@dataclass(frozen=True)
class Asked:
    """One explanation: a name, a method, and arguments of `cfi.attribute`."""

    name: str
    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def of_captum() -> list[Asked]:
    """Captum's methods for inputs. Those that would need a pass for every pixel get patches of 5×5 as features."""
    patches = {"feature_mask": patch_mask()}
    some = {"baselines": digits().training_images[:8]}
    return [
        Asked("Saliency", "saliency"),
        Asked("Noise tunnel", "noise_tunnel", {"exec_args": {"nt_samples": 10, "stdevs": 0.1}}),
        Asked("Input × gradient", "input_x_gradient"),
        Asked("Integrated gradients", "integrated_gradients", {"baselines": 0}),
        Asked("Gradient SHAP", "gradient_shap", {**some, "exec_args": {"n_samples": 20}}),
        Asked("DeepLIFT", "deep_lift", {"baselines": 0}),
        Asked("DeepLIFT SHAP", "deep_lift_shap", some),
        Asked("LRP", "lrp"),
        Asked("Guided backprop", "guided_backprop"),
        Asked("Deconvolution", "deconvolution"),
        Asked("Guided Grad-CAM", "guided_grad_cam", {"layer": "conv2"}),
        Asked(
            "Occlusion",
            "occlusion",
            {"baselines": 0, "exec_args": {"sliding_window_shapes": (5, 5, 1), "strides": (5, 5, 1)}},
        ),
        Asked("Feature ablation", "feature_ablation", {"baselines": 0, "exec_args": patches}),
        Asked("Feature permutation", "feature_permutation", {"exec_args": patches}),
        Asked(
            "Shapley sampling", "shapley_value_sampling", {"baselines": 0, "exec_args": {**patches, "n_samples": 10}}
        ),
        Asked(
            "LIME", "lime", {"baselines": 0, "exec_args": {**patches, "n_samples": 150, "perturbations_per_eval": 50}}
        ),
        Asked(
            "Kernel SHAP",
            "kernel_shap",
            {"baselines": 0, "exec_args": {**patches, "n_samples": 150, "perturbations_per_eval": 50}},
        ),
    ]


def of_tf_keras_vis(layer: str = "conv2") -> list[Asked]:
    """tf-keras-vis's methods; class activation maps are stretched over the image as its users get them."""
    stretched = {"layer": layer, "exec_args": {"expand_cam": True}}
    return [
        Asked("Saliency", "saliency"),
        Asked("SmoothGrad", "smooth_grad"),
        Asked("Grad-CAM", "grad_cam", stretched),
        Asked("Grad-CAM++", "grad_cam_plus_plus", stretched),
        Asked("LayerCAM", "layer_cam", stretched),
        Asked("Score-CAM", "score_cam", stretched),
    ]


TOOLSETS: dict[str, tuple[str, Callable[[], list[Asked]]]] = {
    "captum": ("keras", of_captum),
    "tf-keras-vis": ("torch", of_tf_keras_vis),
}
"""Of each toolset the framework whose models it is given, and what it is asked."""

OF_LAYERS = (
    Asked("Activation", "layer_activation"),
    Asked("Gradient × activation", "layer_gradient_x_activation"),
    Asked("Conductance", "layer_conductance", {"baselines": 0}),
    Asked("Internal influence", "internal_influence", {"baselines": 0}),
    Asked("Integrated gradients", "layer_integrated_gradients", {"baselines": 0}),
    Asked("DeepLIFT", "layer_deep_lift", {"baselines": 0}),
)
"""Captum's methods for layers, asked about the first convolution."""


def patch_mask() -> np.ndarray:
    """Patches of 5×5 pixels, the first of which is the square: (1, 28, 28, 1)."""
    rows = np.arange(SIDE) // SQUARE
    return (rows[:, None] * (rows.max() + 1) + rows)[None, :, :, None]


def explain(trained: Trained, toolset: str, asked: Asked, **arguments: Any) -> Any:
    """The attribution of what the network predicts for its samples."""
    given = {"inputs": trained.inputs(), "target": trained.targets(), "seed": 0, **asked.arguments, **arguments}
    return cfi.attribute(trained.model, asked.method, toolset, **given)


def share(maps: np.ndarray, box: Sequence[int]) -> float:
    """The share of the absolute values of (sample, height, width, channel) inside of a box, mean over the samples.

    A sample whose map is zero everywhere has the share of the box in the area, as a map without a message would.
    """
    top, left, bottom, right = box
    strength = np.abs(maps).sum(-1)
    inside, whole = strength[:, top:bottom, left:right].sum((1, 2)), strength.sum((1, 2))
    chance = area(box) / strength[0].size
    return float(np.where(whole > 0, inside / np.where(whole > 0, whole, 1), chance).mean())


def area(box: Sequence[int]) -> int:
    """How many pixels or cells a box holds."""
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


# Why does Grad-CAM miss the corner?


@dataclass(frozen=True)
class Cells:
    """The layer's own view of the image: which of its cells see the square, as a box, and how many a row has."""

    box: tuple[int, int, int, int]
    count: int

    @property
    def chance(self) -> float:
        """Their share of all cells."""
        return area(self.box) / self.count**2

    @property
    def mask(self) -> np.ndarray:
        """True where a cell sees the square."""
        top, left, bottom, right = self.box
        mask = np.zeros((self.count, self.count), bool)
        mask[top:bottom, left:right] = True
        return mask


def cells_of(layer: str, box: Sequence[int]) -> Cells:
    """Of conv1 (each sees 5×5 pixels) and conv2 (14×14 pixels, 2 apart)."""
    seen, step, count = {"conv1": (5, 1, 24), "conv2": (14, 2, 8)}[layer]
    top, left = (max(0, -(-(low - seen + 1) // step)) for low in box[:2])
    bottom, right = (min(count, (high - 1) // step + 1) for high in box[2:])
    return Cells((top, left, bottom, right), count)


@dataclass(frozen=True)
class Cam:
    """What Grad-CAM is made of at a layer, computed by hand in PyTorch: (sample, height, width, channel) each."""

    activation: np.ndarray
    gradient: np.ndarray

    def map(self, weights: np.ndarray) -> np.ndarray:
        """(sample, height, width, 1): the channels, weighted by one number each, or by one at each place."""
        return np.asarray((self.activation * weights).sum(-1, keepdims=True))

    def weights(self, mask: np.ndarray | None = None) -> np.ndarray:
        """Grad-CAM's: the mean of each channel's gradient over all places, or over those of a mask."""
        chosen = self.gradient.reshape(len(self.gradient), -1, self.gradient.shape[-1])
        return np.asarray((chosen if mask is None else chosen[:, mask.ravel()]).mean(1)[:, None, None])


def cam_of(trained: Trained, layer: str) -> Cam:
    """The layer's output, and the gradient of what is predicted."""
    import torch

    children = list(trained.model.named_children())
    cut = [name for name, _ in children].index(layer) + 1
    values = torch.from_numpy(trained.inputs())
    for _, module in children[:cut]:
        values = module(values)
    values.requires_grad_()
    with torch.enable_grad():
        scores = values
        for _, module in children[cut:]:
            scores = module(scores)
        (gradient,) = torch.autograd.grad(scores[range(len(scores)), trained.targets()].sum(), values)
    return Cam(*(np.moveaxis(one.detach().numpy(), 1, -1) for one in (values, gradient)))


def cams(trained: Trained, layer: str, box: Sequence[int]) -> dict[str, np.ndarray]:
    """Grad-CAM at a layer and what it becomes when one step is done otherwise; maps in the layer's own resolution."""

    def ask(method: str, toolset: str, layer: str) -> np.ndarray:
        given = {"inputs": trained.inputs(), "target": trained.targets(), "layer": layer}
        return maps_of(cfi.attribute(trained.model, method, toolset, **given))

    cam, seeing, rectifier = cam_of(trained, layer), cells_of(layer, box).mask, layer.replace("conv", "relu")
    found = ask("grad_cam", "tf-keras-vis", layer)
    products = {one: ask("layer_gradient_x_activation", "captum", one) for one in (layer, rectifier)}
    return {
        "Grad-CAM": found,
        "… its positive part": np.maximum(found, 0),
        "… normalised": found - found.min((1, 2), keepdims=True),
        "… after the rectifier": ask("grad_cam", "tf-keras-vis", rectifier),
        "… weights of the square's cells": cam.map(cam.weights(seeing)),
        "gradient × activation": products[layer].sum(-1, keepdims=True),
        "… after the rectifier too": products[rectifier].sum(-1, keepdims=True),
        "LayerCAM": ask("layer_cam", "tf-keras-vis", layer),
        "activation": cam.activation,
        "gradient": cam.gradient,
    }


def points(maps: np.ndarray, box: Sequence[int]) -> float:
    """The part of the samples whose largest value lies in the box."""
    top, left, bottom, right = box
    values = maps.sum(-1)
    return float((values[:, top:bottom, left:right].max((1, 2)) == values.max((1, 2))).mean())


def stretched(maps: np.ndarray) -> np.ndarray:
    """Over the image, linearly, as tf-keras-vis does."""
    from scipy.ndimage import zoom

    return np.asarray(zoom(maps, (1, SIDE / maps.shape[1], SIDE / maps.shape[2], 1), order=1))


def anatomy(trained: Trained, layer: str, box: Sequence[int]) -> dict[str, float]:
    """Shares of these maps in the cells that see the square; in its pixels; and whose gradient the weights follow."""
    cells, made, cam = cells_of(layer, box), cams(trained, layer, box), cam_of(trained, layer)
    weights = cam.weights()
    return {
        "chance": cells.chance,
        **{name: share(values, cells.box) for name, values in made.items()},
        **{
            f"{name}, stretched": share(stretched(made[name]), box)
            for name in ("Grad-CAM", "gradient × activation", "LayerCAM")
        },
        **{
            f"{name}: highest in the square's cells": points(made[name], cells.box)
            for name in ("Grad-CAM", "… after the rectifier", "gradient × activation", "LayerCAM")
        },
        "weights ~ gradient at the square": _correlation(weights, cam.weights(cells.mask)),
        "weights ~ gradient elsewhere": _correlation(weights, cam.weights(~cells.mask)),
    }


def _correlation(values: np.ndarray, others: np.ndarray) -> float:
    pairs = zip(values.reshape(len(values), -1), others.reshape(len(others), -1), strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


PARTS = {
    "corner, conv2": ({}, "conv2", CORNER),
    "corner, conv1": ({}, "conv1", CORNER),
    "square moved inwards": ({"box": INNER}, "conv2", INNER),
    "mean before the last layer": ({"head": "mean"}, "conv2", CORNER),
}
"""By name: how the network differs, the layer, and where the square is."""


# All of it.


@dataclass
class Results:
    """Numbers of every seed: by toolset, network and method; by layer method; by part of the anatomy."""

    accuracies: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    layers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    anatomy: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def run(scale: Scale, clock: Callable[[str], None] = lambda text: None) -> tuple[Results, dict[str, Figure]]:
    """All seeds; the figures show the first."""
    results, figures = Results(), {}
    for seed in scale.seeds:
        first = seed == scale.seeds[0]
        for toolset, (framework, methods) in TOOLSETS.items():
            for kind in ("poisoned", "clean"):
                trained = train(framework, scale, seed, poisoned=kind == "poisoned")
                results.accuracies.setdefault(f"{framework}, {kind}", []).append(trained.accuracy)
                maps = {one.name: maps_of(explain(trained, toolset, one)) for one in methods()}
                for name, values in maps.items():
                    of_kind = results.shares.setdefault(toolset, {}).setdefault(kind, {})
                    of_kind.setdefault(name, []).append(share(values, CORNER))
                if first and kind == "poisoned":
                    figures[toolset] = draw_maps(trained, maps)
                if framework == "keras":
                    layers = {one.name: maps_of(explain_layer(trained, one)) for one in OF_LAYERS}
                    for name, values in layers.items():
                        of_layer = results.layers.setdefault(kind, {}).setdefault(name, [])
                        of_layer.append(share(values, cells_of("conv1", CORNER).box))
                    if first and kind == "poisoned":
                        figures["layers"] = draw_layers(layers)
                clock(f"seed {seed}: {toolset}, {kind} {framework} network")
        parts = PARTS if len(scale.seeds) > 1 else {name: PARTS[name] for name in list(PARTS)[:2]}
        networks = {name: train("torch", scale, seed, poisoned=True, **how) for name, (how, _, _) in parts.items()}
        for name, (_, layer, box) in parts.items():
            results.accuracies.setdefault(name, []).append(networks[name].accuracy)
            for what, value in anatomy(networks[name], layer, box).items():
                results.anatomy.setdefault(name, {}).setdefault(what, []).append(value)
        if first:
            figures["anatomy"] = draw_anatomy(networks)
        clock(f"seed {seed}: the parts of Grad-CAM")
    return results, figures


def explain_layer(trained: Trained, asked: Asked) -> Any:
    """Captum's attribution of the first convolution. Its activation is that of no class."""
    if asked.method == "layer_activation":
        return cfi.attribute(trained.model, asked.method, "captum", inputs=trained.inputs(), layer="conv1")
    return explain(trained, "captum", asked, layer="conv1")


def draw_maps(trained: Trained, maps: Mapping[str, np.ndarray]) -> Figure:
    """The first sample, and every method's map of it, summed over channels, with its share in the square."""
    columns = 7 if len(maps) == 6 else 6
    figure, axes = grid(-(-(len(maps) + 1) // columns), columns)
    panels = [axis for row in axes for axis in row]
    show_picture(
        panels[0], trained.shown.images[0], f"label {trained.shown.labels[0]}\npredicted {trained.targets()[0]}", CORNER
    )
    for axis, (name, values) in zip(panels[1:], maps.items(), strict=False):
        show_map(axis, values[0].sum(-1), f"{name}\n{share(values[:1], CORNER):.0%} in the square", CORNER)
    return figure


def draw_layers(maps: Mapping[str, np.ndarray]) -> Figure:
    """Of the first sample five channels of the first convolution: those that keep most to the square, and others."""
    box, strength = cells_of("conv1", CORNER).box, np.abs(maps["Conductance"][0])
    whole = strength.sum((0, 1))
    inside = strength[box[0] : box[2], box[1] : box[3]].sum((0, 1)) / np.maximum(whole, 1e-9)
    alive = [one for one in np.argsort(-inside) if whole[one] > 0.05 * whole.max()]
    chosen = [*alive[:2], alive[len(alive) // 2], alive[-1], int(np.argmin(whole))]
    figure, axes = grid(len(chosen), len(maps), 1.2, left=0.15)
    for row, channel in zip(axes, chosen, strict=True):
        for axis, (name, values) in zip(row, maps.items(), strict=True):
            map_ = values[0, :, :, channel]
            part = f"{share(values[:1, :, :, [channel]], box):.0%}" if np.abs(map_).max() > 0 else "zero"
            show_map(axis, map_, f"{name}\n{part}" if channel == chosen[0] else part, box)
        row[0].set_ylabel(f"channel {channel}", fontsize=7)
    return figure


def draw_anatomy(networks: Mapping[str, Trained]) -> Figure:
    """The first sample of each network, and Grad-CAM beside what it becomes when one step is done otherwise."""
    shown = (
        "Grad-CAM",
        "… after the rectifier",
        "… weights of the square's cells",
        "gradient × activation",
        "LayerCAM",
    )
    figure, axes = grid(len(networks), len(shown) + 1)
    for row, (name, trained) in zip(axes, networks.items(), strict=True):
        _, layer, box = PARTS[name]
        cells, made = cells_of(layer, box), cams(trained, layer, box)
        show_picture(row[0], trained.shown.images[0], name.replace(", ", "\n").replace(" before", "\nbefore"), box)
        for axis, which in zip(row[1:], shown, strict=True):
            part = share(made[which][:1], cells.box)
            show_map(axis, made[which][0].sum(-1), f"{which}\n{part:.0%} ({cells.chance:.0%} by chance)", cells.box)
    return figure


def page_of(results: Results) -> str:
    """The numbers as tables in Markdown."""
    lines = [
        "Accuracy on held-out digits: "
        + "; ".join(f"{name} {percent(all_)}" for name, all_ in results.accuracies.items())
    ]
    for toolset, kinds in results.shares.items():
        rows = [[name, percent(kinds["poisoned"][name]), percent(kinds["clean"][name])] for name in kinds["poisoned"]]
        lines += ["", table([f"{toolset} (chance {CHANCE:.1%})", "poisoned", "clean"], rows)]
    chance = cells_of("conv1", CORNER).chance
    rows = [
        [name, percent(all_), percent(results.layers["clean"][name])]
        for name, all_ in results.layers["poisoned"].items()
    ]
    lines += ["", table([f"captum at conv1 (chance {chance:.1%})", "poisoned", "clean"], rows)]
    parts = results.anatomy.values()
    rows = [[what, *(_cell(what, part[what]) for part in parts)] for what in next(iter(parts))]
    lines += ["", table(["Grad-CAM and its parts", *results.anatomy], rows)]
    return "\n".join(lines)


def _cell(what: str, values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" if "~" in what else f"{values[0]:.1%}" if what == "chance" else percent(values)


def main(arguments: Sequence[str] | None = None) -> Results:
    """Trains, explains, measures, draws, writes."""
    chosen = options(__doc__, arguments)
    results, figures = run(QUICK if chosen.quick else FULL, Clock())
    for name, figure in figures.items():
        figure.savefig(chosen.output / f"clever-hans-{name}.png")
    write(chosen.output, "clever-hans", vars(results), page_of(results))
    return results


if __name__ == "__main__":
    main()
