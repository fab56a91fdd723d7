"""What excites a class, a channel, a neuron; and where one picture speaks for two classes.

    python examples/activation_maximization.py [--quick] [--output FOLDER]

tf-keras-vis makes inputs that drive units of a Keras and of a PyTorch network for digits as high as it can; beside them
stand the digits that excite the same units most. Then an EfficientNet-Lite0 with ImageNet weights sees a cat and a cup
in one photograph, and Grad-CAM of both toolsets is asked for either class.

It needs the packages of `requirements.txt`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
from demo_models import PHOTO_LAYER, PHOTOS, digits, efficientnet_lite0  # noqa: E402
from digit_models import channels_first, outputs  # noqa: E402
from experiment import Clock, grid, maps_of, options, show_picture, table, write  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D  # noqa: E402
from toolset_comparison import Asked, networks  # noqa: E402

import cfi_core as cfi  # noqa: E402

LAYER, PLACE = "conv2", (4, 4)
SMOOTH = {"class": 20.0, "channel": 1.0, "neuron": 1.0}
"""Weights of the total variation, for scores of that size. tf-keras-vis's random shifts are left out: they add up over
the steps, and these networks see where a stroke is."""
CATS_AND_CUPS = ("chelsea", "coffee")


@dataclass(frozen=True)
class Unit:
    """A class, a channel of a layer, or one neuron of it: the channel at a place."""

    kind: str
    index: int

    @property
    def name(self) -> str:
        """For titles."""
        return f"{self.kind} {self.index}" + (f" at {PLACE}" if self.kind == "neuron" else "")

    def arguments(self, *, channels_last: bool) -> dict[str, Any]:
        """As `cfi.visualize_features` takes it: a neuron has an index for each axis, in the model's order."""
        if self.kind == "class":
            return {"target": self.index}
        place = (*PLACE, self.index) if channels_last else (self.index, *PLACE)
        return {"layer": LAYER, "neuron": (self.index,) if self.kind == "channel" else place}

    def scores(self, logits: np.ndarray, activations: np.ndarray) -> np.ndarray:
        """How much samples excite it, from the network's logits and the layer's (sample, height, width, channel)."""
        if self.kind == "class":
            return np.asarray(logits[:, self.index])
        channel = activations[..., self.index]
        return np.asarray(channel.mean((1, 2)) if self.kind == "channel" else channel[:, PLACE[0], PLACE[1]])


@dataclass(frozen=True)
class Excited:
    """What excites a unit: the image that was made, the digits that excite it most, and their scores."""

    unit: Unit
    made: np.ndarray
    score: float
    noise: float
    digits: np.ndarray
    best: np.ndarray
    route: tuple[str, ...]


def excite(asked: Asked, unit: Unit, logits: np.ndarray, activations: np.ndarray, *, steps: int) -> Excited:
    """The made image and the best of the digits that belong to the logits and activations."""
    images = digits().training_images[: len(logits)]
    last = hasattr(asked.model, "predict")
    regularizers = [TotalVariation2D(weight=SMOOTH[unit.kind]), Norm(weight=0.03, p=1)]
    noise = np.random.default_rng(0).uniform(0.0, 0.2, (1, 28, 28, 1)).astype(np.float32)
    found = cfi.visualize_features(
        asked.model,
        "activation_maximization",
        "tf-keras-vis",
        inputs=noise if last else channels_first(noise),
        exec_args={
            "input_range": (0.0, 1.0),
            "steps": steps,
            "regularizers": regularizers,
            "input_modifiers": [],
        },
        seed=0,
        **unit.arguments(channels_last=last),
    )
    scores = unit.scores(logits, activations)
    best = np.argsort(-scores)[:3]
    score, start = (float(np.ravel(found.extras[name])[0]) for name in ("scores", "initial_scores"))
    return Excited(unit, maps_of(found)[0], score, start, images[best], scores[best], found.route)


def excite_all(asked: Mapping[str, Asked], *, steps: int, number: int, units: int) -> dict[str, list[Excited]]:
    """Of each network so many classes, channels and neurons; those channels that vary most within a digit."""
    found = {}
    images = digits().training_images[:number]
    for name, network in asked.items():
        inputs = images if hasattr(network.model, "predict") else channels_first(images)
        activations = maps_of(cfi.attribute(network.model, "layer_activation", "captum", inputs=inputs, layer=LAYER))
        logits = outputs(network.model, images)
        channels = np.argsort(-activations.std((1, 2)).mean(0))[:units]
        chosen = [Unit("class", one) for one in (0, 3, 5)[:units]]
        chosen += [Unit(kind, int(one)) for kind in ("channel", "neuron") for one in channels]
        found[name] = [excite(network, unit, logits, activations, steps=steps) for unit in chosen]
    return found


def draw_excited(found: Mapping[str, Sequence[Excited]]) -> Figure:
    """A column for each unit; the digits that excite it most above, what was made below."""
    columns = max(map(len, found.values()))
    figure, axes = grid(4 * len(found), columns, 1.0, 0.33)
    for block, (name, all_) in enumerate(found.items()):
        for column, one in enumerate(all_):
            for row, (image, score) in enumerate(zip(one.digits, one.best, strict=True)):
                title = f"{one.unit.name}\n{score:.2f}" if row == 0 else f"{score:.2f}"
                show_picture(axes[4 * block + row][column], image, title)
            show_picture(axes[4 * block + 3][column], one.made, f"{name}, made\n{one.score:.2f}")
    return figure


# One picture, two classes.


def cat_and_cup() -> np.ndarray:
    """Two photographs of scikit-image, one above the other, as EfficientNet-Lite takes them: (1, 3, 224, 224)."""
    from skimage import data, transform

    halves = []
    for name, top in zip(CATS_AND_CUPS, (20, 60), strict=True):
        photo = getattr(data, name)()
        halves.append(transform.resize(photo[top : top + photo.shape[1] // 2], (112, 224), anti_aliasing=True))
    pixels = 255 * np.concatenate(halves)
    return ((pixels.transpose(2, 0, 1)[None] - 127) / 128).astype(np.float32)


@dataclass(frozen=True)
class TwoClasses:
    """Grad-CAM of one toolset for both classes, and of its positive part the share in the half of the class."""

    toolset: str
    shares: dict[str, float]
    found: Any


def two_classes(model: Any, photo: np.ndarray, toolset: str) -> TwoClasses:
    """Asks for the cat on the left and the cup on the right."""
    targets = [PHOTOS[name][0] for name in CATS_AND_CUPS]
    found = cfi.attribute(
        model, "grad_cam", toolset, inputs=np.repeat(photo, 2, axis=0), target=targets, layer=PHOTO_LAYER
    )
    positive = np.maximum(maps_of(found)[..., 0], 0)
    # A row in the middle belongs to both halves in part.
    above = np.clip(positive.shape[1] / 2 - np.arange(positive.shape[1]), 0, 1)[:, None]
    shares = [float((map_ * part).sum() / map_.sum()) for map_, part in zip(positive, (above, 1 - above), strict=True)]
    names = [PHOTOS[name][1] for name in CATS_AND_CUPS]
    return TwoClasses(toolset, dict(zip(names, shares, strict=True)), found)


def draw_two_classes(photo: np.ndarray, found: TwoClasses) -> Figure:
    """The photograph, and over it what speaks for either class."""
    picture = (photo.transpose(0, 2, 3, 1) * 128 + 127) / 255
    names = {PHOTOS[name][0]: PHOTOS[name][1] for name in CATS_AND_CUPS}
    figure: Figure = found.found.plot(
        images=np.repeat(picture, 2, axis=0).clip(0, 1), target_names=names, sign="positive", show=False
    )
    return figure


# All of it.


def page_of(units: Mapping[str, Sequence[Excited]], classes: Sequence[TwoClasses]) -> str:
    """The numbers as tables."""
    rows = [
        [
            name,
            one.unit.name,
            " → ".join(one.route) or "native",
            *(f"{x:.2f}" for x in (one.noise, one.best[0], one.score)),
        ]
        for name, all_ in units.items()
        for one in all_
    ]
    lines = [table(["network", "unit", "route", "start from noise", "best digit", "made"], rows), ""]
    rows = [[one.toolset, *(f"{part:.0%}" for part in one.shares.values())] for one in classes]
    return "\n".join([*lines, table(["share of the positive map in the right half", *classes[0].shares], rows)])


def run(*, quick: bool, clock: Callable[[str], None] = lambda text: None) -> tuple[Any, Any, np.ndarray]:
    """Units of both networks, both classes by both toolsets, and the photograph."""
    small = {"training": 1000, "epochs": 3, "samples": 2}
    asked = networks(**small) if quick else networks()
    clock("networks trained")
    units = excite_all(asked, steps=20 if quick else 100, number=200 if quick else 4000, units=1 if quick else 3)
    clock("units excited")
    model, photo = efficientnet_lite0(), cat_and_cup()
    classes = [two_classes(model, photo, toolset) for toolset in ("captum", "tf-keras-vis")]
    clock("two classes explained")
    return units, classes, photo


def main(arguments: Sequence[str] | None = None) -> tuple[Any, Any]:
    """Trains, makes, measures, draws, writes."""
    chosen = options(__doc__, arguments)
    units, classes, photo = run(quick=chosen.quick, clock=Clock())
    draw_excited(units).savefig(chosen.output / "activation-maximization.png")
    draw_two_classes(photo, classes[-1]).savefig(chosen.output / "two-classes.png")
    numbers = {
        "units": {
            name: [{k: v for k, v in asdict(one).items() if k not in ("made", "digits")} for one in all_]
            for name, all_ in units.items()
        },
        "classes": {one.toolset: one.shares for one in classes},
    }
    write(chosen.output, "activation-maximization", numbers, page_of(units, classes))
    return units, classes


if __name__ == "__main__":
    main()
