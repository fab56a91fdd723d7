"""SpRAy: clusters of explanations find the poisoned samples of a training set by themselves.

    python examples/spray.py [--quick] [--output FOLDER]

The network of clever_hans.py learns from digits with their true labels and from digits with a grey square in the
corner, whose lightness tells a label that was drawn. Explanations of what it predicts are kept in a store, and
`cfi_scale.views` groups them, class by class. In a class that falls into groups, the samples of the group whose maps
agree most are said to be poisoned: nothing else is known of them. Beside it stands a clean network of the same
architecture, which has seen the same pictures with true labels.

It needs the packages of `requirements.txt`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import numpy as np  # noqa: E402
from clever_hans import with_squares  # noqa: E402
from demo_models import digits  # noqa: E402
from digit_models import accuracy, keras_cnn, train_keras  # noqa: E402
from experiment import Clock, options, percent, table, write  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from sklearn.metrics import adjusted_rand_score  # noqa: E402

import cfi_core as cfi  # noqa: E402
from cfi_scale import explain_dataset, views  # noqa: E402


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        seeds: One network of each kind for each.
        squares: Digits with a square that a network learns from.
        plain: Digits without one that it learns from besides.
        epochs: How often it sees them.
        explained: Of each of both how many are explained.
    """

    seeds: tuple[int, ...]
    squares: int
    plain: int
    epochs: int
    explained: tuple[int, int]


FULL = Scale((0, 1, 2), 4000, 1500, 12, (400, 1000))
QUICK = replace(FULL, seeds=(0, 1))


@dataclass(frozen=True)
class Samples:
    """What a network has learned from and is asked about.

    Attributes:
        images: (sample, 28, 28, 1).
        labels: What it has learned.
        squares: Whether there is a square in the corner, which is what is to be found out.
    """

    images: np.ndarray
    labels: np.ndarray
    squares: np.ndarray

    def take(self, chosen: np.ndarray) -> Samples:
        """Those at these positions."""
        return Samples(self.images[chosen], self.labels[chosen], self.squares[chosen])


def training_set(scale: Scale, seed: int, *, poisoned: bool) -> Samples:
    """Digits with squares, then digits without; only the labels tell a poisoned set from a clean one."""
    data = digits()
    order = np.random.default_rng(seed).permutation(len(data.training_images))
    images, labels = data.training_images[order], data.training_labels[order]
    marked = with_squares(images[: scale.squares], labels[: scale.squares], poisoned=poisoned, seed=seed)
    return Samples(
        np.concatenate([marked.images, images[: scale.plain]]),
        np.concatenate([marked.labels, labels[: scale.plain]]),
        np.arange(scale.squares + scale.plain) < scale.squares,
    )


def explained_set(learned: Samples, scale: Scale, seed: int) -> Samples:
    """Some of both, in any order."""
    draw = np.random.default_rng(seed)
    both = zip((np.flatnonzero(learned.squares), np.flatnonzero(~learned.squares)), scale.explained, strict=True)
    return learned.take(draw.permutation(np.concatenate([draw.choice(*one, replace=False) for one in both])))


def train(learned: Samples, scale: Scale, seed: int) -> Any:
    """A Keras network."""
    return train_keras(keras_cnn(seed), learned.images, learned.labels, epochs=scale.epochs, seed=seed)


def explain(model: Any, shown: Samples, store: Path) -> Path:
    """DeepLIFT by Captum of what the network predicts, into a store, which is made anew."""
    rmtree(store, ignore_errors=True)
    explainer = cfi.Explainer(model, "deep_lift", "captum", target="predicted", baselines=0)
    explain_dataset(explainer, shown.images, store, batch_size=200, progress=False)
    return store


def suspects(clustering: views.Clustering) -> np.ndarray:
    """Of each class with several clusters the samples of the one whose maps agree most; no picture is looked at."""
    found = np.zeros(clustering.count, bool)
    for one in clustering:
        if one.count > 1:
            found[one.positions[one.groups == np.nanargmax(one.agreement)]] = True
    return found


@dataclass(frozen=True)
class Found:
    """What came out for one network.

    Attributes:
        accuracy: On what is explained: with squares, without.
        clusters: How many each class has.
        gaps: Of each class the largest eigengap behind two clusters or more.
        second: Of each class the second eigenvalue, which is zero if its graph falls apart.
        rand: Of each class the adjusted Rand index of its clusters against the truth: 1 the same, 0 by chance.
        suspects: How many samples are suspected.
        precision: The part of them that has a square; that of all samples where none is suspected.
        recall: The part of the samples with a square that is suspected.
    """

    accuracy: tuple[float, float]
    clusters: list[int]
    gaps: list[float]
    second: list[float]
    rand: list[float]
    suspects: int
    precision: float
    recall: float


def judge(model: Any, shown: Samples, clustering: views.Clustering) -> Found:
    """Compares what was found with the truth."""
    found, truth = suspects(clustering), shown.squares
    return Found(
        accuracy=tuple(accuracy(model, shown.images[one], shown.labels[one]) for one in (truth, ~truth)),
        clusters=[one.count for one in clustering],
        gaps=[float(one.gaps[1:].max()) for one in clustering],
        second=[float(one.eigenvalues[1]) for one in clustering],
        rand=[float(adjusted_rand_score(truth[one.positions], one.groups)) for one in clustering],
        suspects=int(found.sum()),
        precision=float(truth[found].mean() if found.any() else truth.mean()),
        recall=float(found[truth].mean()),
    )


@dataclass
class Results:
    """Of every seed, by kind of network."""

    poisoned: list[Found] = field(default_factory=list)
    clean: list[Found] = field(default_factory=list)


def run(
    scale: Scale, folder: Path, clock: Callable[[str], None] = lambda text: None
) -> tuple[Results, dict[str, Figure]]:
    """All seeds, with a store for each network in the folder; the figures show the first."""
    results, figures = Results(), {}
    for seed in scale.seeds:
        for kind in ("poisoned", "clean"):
            learned = training_set(scale, seed, poisoned=kind == "poisoned")
            model, shown = train(learned, scale, seed), explained_set(learned, scale, seed)
            store = explain(model, shown, folder / f"spray-{kind}-{seed}.zarr")
            clustering = views.cluster(store, by="prediction", over="channel")
            found = judge(model, shown, clustering)
            getattr(results, kind).append(found)
            if seed == scale.seeds[0]:
                figures |= draw(store, shown, clustering, kind)
            clock(f"seed {seed}: {kind} network, {found.suspects} suspects, {found.precision:.1%} with a square")
    return results, figures


def draw(store: Path, shown: Samples, clustering: views.Clustering, kind: str) -> dict[str, Figure]:
    """The clusters; of the poisoned network the mean maps and the most concentrated ones, too."""
    figures = {f"clusters-{kind}": clustering.plot()}
    if kind == "poisoned":
        figures["means"] = views.average(store, by="prediction", over="channel", normalize=True).plot()
        top = views.rank(store, "concentration", over="channel", count=10)
        figures["top"] = top.plot(images=shown.images)
    return figures


def page_of(results: Results) -> str:
    """The numbers as a table in Markdown."""
    head = ["", "poisoned", "clean"]
    return table(head, [[what, *(told(all_) for all_ in vars(results).values())] for what, told in _ROWS.items()])


def _range(name: str) -> Callable[[list[Found]], str]:
    """Median, least and most over all classes and seeds."""

    def tell(all_: list[Found]) -> str:
        values = np.concatenate([getattr(one, name) for one in all_])
        return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"

    return tell


_ROWS: dict[str, Callable[[list[Found]], str]] = {
    "right, with a square": lambda all_: percent([one.accuracy[0] for one in all_]),
    "right, without": lambda all_: percent([one.accuracy[1] for one in all_]),
    "classes that fall into clusters": lambda all_: ", ".join(str(sum(k > 1 for k in one.clusters)) for one in all_),
    "second eigenvalue": _range("second"),
    "largest eigengap behind two clusters or more": _range("gaps"),
    "adjusted Rand index of clusters and squares": _range("rand"),
    "suspects": lambda all_: ", ".join(str(one.suspects) for one in all_),
    "of them with a square (precision)": lambda all_: percent([one.precision for one in all_]),
    "of the squares suspected (recall)": lambda all_: percent([one.recall for one in all_]),
}
"""What stands in a line, and how it is told of all seeds."""


def main(arguments: Sequence[str] | None = None) -> Results:
    """Trains, explains, groups, compares with the truth, writes."""
    chosen = options(__doc__, arguments)
    results, figures = run(QUICK if chosen.quick else FULL, chosen.output, Clock())
    for name, figure in figures.items():
        figure.savefig(chosen.output / f"spray-{name}.png")
    write(
        chosen.output, "spray", {kind: list(map(vars, all_)) for kind, all_ in vars(results).items()}, page_of(results)
    )
    return results


if __name__ == "__main__":
    main()
