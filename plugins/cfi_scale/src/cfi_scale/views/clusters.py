"""Clusters of attributions: do the samples of a class stand for one way to see it, or for several? (SpRAy)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.errors import ArgumentError
from cfi_scale.views.pictures import Tile, draw_clusters
from cfi_scale.views.samples import Reading, Samples, Sign, axes_of, classes_of, gather
from cfi_scale.views.spectrum import Spectrum, gaps_between, spectrum_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPATIAL = ("depth", "height", "width", "position")
"""The axes along which a map is made coarser."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of one class.

    Attributes:
        label: The class.
        positions: Where its samples are in the data.
        ids: What they are called.
        groups: The cluster of each, from 0, which is the largest.
        eigenvalues: The lowest ones of the graph's normalized Laplacian.
        vectors: Their eigenvectors (sample, eigenvalue), in which the clusters were looked for.
        mean: The mean map of each cluster (cluster, …), of maps of length one, as coarse as they were compared.
        agreement: Of each cluster the mean cosine between the maps of two of its samples: 1 if all are alike.
        dims: The names of the axes of one map.
    """

    label: Any
    positions: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    eigenvalues: np.ndarray
    vectors: np.ndarray
    mean: np.ndarray
    agreement: np.ndarray
    dims: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self.mean)

    @property
    def sizes(self) -> np.ndarray:
        """How many samples each has."""
        return np.bincount(self.groups, minlength=self.count)

    @property
    def eigengap(self) -> float:
        """How many times the eigenvalue of the last cluster the next one is, with 0.01 added to both; 1 is no gap."""
        return float(self.gaps[self.count - 1])

    @property
    def gaps(self) -> np.ndarray:
        """The same behind one cluster, behind two, and so on."""
        return gaps_between(self.eigenvalues)

    def layout(self, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
        """A place for each sample (sample, 2), by scikit-learn's t-SNE of the eigenvectors, which is for looking at."""
        from sklearn.manifold import TSNE

        few = (len(self.groups) - 1) / 3
        kept = self.vectors[:, : max(2, self.count + 1)]
        return np.asarray(TSNE(perplexity=min(perplexity, few), init="random", random_state=seed).fit_transform(kept))


@dataclass(frozen=True, eq=False)
class Clustering:
    """The clusters of every class.

    Attributes:
        classes: By label, in order.
        count: How many samples the data hold.
        left_out: Positions of samples without finite values, without a class, or with nothing but zeros.
        too_few: Classes with too few samples to look for clusters, and how many these have.
    """

    classes: Mapping[Any, Clusters]
    count: int
    left_out: np.ndarray
    too_few: Mapping[Any, int]

    def __getitem__(self, label: Any) -> Clusters:
        if label not in self.classes:
            raise ArgumentError(f"There is no class {label!r}; there are {', '.join(map(str, self.classes))}.")
        return self.classes[label]

    def __iter__(self) -> Iterator[Clusters]:
        return iter(self.classes.values())

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{one.label}: {one.count}" for one in list(self)[:12]) + (" …" if len(self) > 12 else "")
        left = f", {len(self.left_out)} samples left out" if len(self.left_out) else ""
        few = f", {len(self.too_few)} classes too small" if self.too_few else ""
        return f"<Clustering of {self.count} samples, clusters by class {counts}{left}{few}>"

    @property
    def groups(self) -> np.ndarray:
        """The cluster of every sample within its class; -1 where it is in none."""
        found = np.full(self.count, -1)
        for one in self:
            found[one.positions] = one.groups
        return found

    def plot(self, *, most: int = 12, places: bool = False, seed: int = 0) -> Figure:
        """A row for each class: its eigenvalues, and the mean map of each cluster.

        Args:
            most: The most classes drawn.
            places: Whether t-SNE shows where the samples lie (`Clusters.layout`).
            seed: Of t-SNE.

        Raises:
            PlotError: matplotlib is not installed, or the maps have more than two axes.
        """
        shown = list(self)[:most]
        return draw_clusters([_tile(one, one.layout(seed=seed) if places else None) for one in shown])


def _tile(one: Clusters, places: np.ndarray | None) -> Tile:
    return Tile(
        label=str(one.label),
        eigenvalues=one.eigenvalues,
        gap=one.eigengap,
        means=one.mean,
        dims=one.dims,
        titles=[
            f"{size} samples\nagreement {agreement:.2f}"
            for size, agreement in zip(one.sizes, one.agreement, strict=True)
        ],
        groups=one.groups,
        places=places,
    )


def cluster(
    data: Any,
    by: Any = "prediction",
    *,
    clusters: int | None = None,
    most: int = 8,
    neighbours: int | None = None,
    cells: int | None = 14,
    sign: Sign = "all",
    over: str | Sequence[str] = (),
    classes: Sequence[Any] | None = None,
    variable: str = "attribution",
    dims: Sequence[str] | None = None,
    seed: int = 0,
) -> Clustering:
    """Spectral clusters of the attributions of each class.

    The way of spectral relevance analysis (SpRAy; Lapuschkin et al. 2019, "Unmasking Clever Hans predictors and
    assessing what machines really learn"): maps are made coarser and of length one; each sample is joined to its
    nearest ones; the lowest eigenvalues of the graph's normalized Laplacian tell how many clusters there are, by the
    largest gap between two that follow each other, and its eigenvectors tell which sample is in which. A class that is
    seen in one way has its largest gap behind the first eigenvalue, and is one cluster. A gap is a ratio here
    (`spectrum.gaps_between`), where the paper looks at differences.

    What a cluster stands for is for people to see: in `Clusters.mean`, and in the samples that are in it.

    Args:
        data: The path of a store, an `xarray.Dataset`, or an array (sample, …). The coarse maps must fit into memory.
        by: What tells classes apart, as for `average`; None takes all samples together.
        clusters: How many clusters to make of each class; None: as many as the largest gap says.
        most: The most clusters that are looked for, unless the graph falls into more components.
        neighbours: How many samples each is joined to; None: the logarithm of their number, but at least 3.
        cells: The most values of a map along an axis of space; larger ones are averaged over areas of equal size. None
            leaves the maps as they are.
        sign: Which values count.
        over: Axes that are summed over first, such as `"channel"`.
        classes: Only these classes; None: all.
        variable: Which variable of the data set holds the attributions.
        dims: The names of the axes of a plain array. Only axes of space (`"height"`, `"width"`, …) are made coarser.
        seed: For k-means and the iteration for eigenvalues.

    Raises:
        ArgumentError: An argument does not fit the data, or no class has enough samples.
    """
    _check(clusters, most, neighbours, cells)
    samples = gather(data, by, Reading(sign, axes_of(over)), variable=variable, dims=dims)
    positions, maps = _coarse(samples, cells)
    found, few = {}, {}
    for label in classes_of(samples, classes):
        chosen = samples.labels[positions] == label
        joined = neighbours or max(3, round(np.log(max(1, chosen.sum()))))
        if chosen.sum() < max(2 * (joined + 1), (clusters or 0) + 2):
            few[label.item()] = int(chosen.sum())
            continue
        spectrum = spectrum_of(maps[chosen].reshape(chosen.sum(), -1), joined, (clusters or most) + 1, seed)
        found[label.item()] = _clusters(
            label.item(), samples, positions[chosen], maps[chosen], spectrum, clusters, seed
        )
    if not found:
        raise ArgumentError(
            f"No class has enough samples to look for clusters: {_told(few)}. Explain more, or ask for fewer clusters= "
            f"or neighbours=; by=None takes all samples together."
        )
    return Clustering(found, len(samples), np.setdiff1d(np.arange(len(samples)), positions), few)


def _clusters(
    label: Any,
    samples: Samples,
    positions: np.ndarray,
    maps: np.ndarray,
    spectrum: Spectrum,
    count: int | None,
    seed: int,
) -> Clusters:
    count = count or int(spectrum.gaps.argmax()) + 1
    groups = spectrum.groups(count, seed)
    sizes = np.bincount(groups, minlength=count)
    mean = np.stack([maps[groups == one].mean(0) for one in range(count)])
    return Clusters(
        label=label,
        positions=positions,
        ids=samples.ids[positions],
        groups=groups,
        eigenvalues=spectrum.eigenvalues,
        vectors=spectrum.vectors,
        mean=mean,
        agreement=_agreement(mean, sizes),
        dims=samples.map_dims,
    )


def _agreement(mean: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The mean cosine of two different vectors of length one, from the length of their mean."""
    squared = (mean.reshape(len(mean), -1) ** 2).sum(1)
    pairs = np.where(sizes > 1, sizes * (sizes - 1), 1)
    return np.where(sizes > 1, (squared * sizes**2 - sizes) / pairs, np.nan)


def _coarse(samples: Samples, cells: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and coarse maps of length one; a map of zeros has no direction, and is left out."""
    places, parts = [], []
    for positions, maps in samples.portions():
        for axis, name in enumerate(samples.map_dims, 1):
            if cells is not None and name in SPATIAL and maps.shape[axis] > cells:
                maps = np.moveaxis(np.moveaxis(maps, axis, -1) @ _areas(maps.shape[axis], cells).T, -1, axis)
        lengths = np.linalg.norm(maps.reshape(len(maps), -1), axis=1)
        kept = lengths > 0
        places.append(positions[kept])
        parts.append(maps[kept] / lengths[kept].reshape(-1, *(1,) * (maps.ndim - 1)))
    return np.concatenate(places), np.concatenate(parts)


def _areas(size: int, cells: int) -> np.ndarray:
    """What share each value has in the mean of each cell (cell, value): cells are of equal size, and may cut values."""
    edges, low = np.linspace(0, size, cells + 1), np.arange(size)
    shared = np.minimum(edges[1:, None], low + 1) - np.maximum(edges[:-1, None], low)
    return np.maximum(shared, 0) * (cells / size)


def _check(clusters: int | None, most: int, neighbours: int | None, cells: int | None) -> None:
    named = {"clusters": clusters, "most": most, "neighbours": neighbours, "cells": cells}
    for name, value in named.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1.")


def _told(few: Mapping[Any, int]) -> str:
    return ", ".join(f"{label} has {count}" for label, count in few.items())
