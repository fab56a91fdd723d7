"""The mean map of each class, and how much its samples differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.errors import PlotError
from cfi_scale.views.pictures import draw_class_maps
from cfi_scale.views.samples import Reading, Samples, Sign, axes_of, classes_of, gather

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """What the attributions of each class have in common, and where they differ.

    Attributes:
        classes: The classes, in order.
        counts: How many samples each has.
        mean: Mean of the maps (class, …), in double precision; not a number for a class without samples.
        variance: Mean of the squared distances from it (class, …).
        dims: The names of the axes of one map.
        left_out: How many samples had no finite values or no class: they failed, or are not computed yet.
    """

    classes: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    dims: tuple[str, ...]
    left_out: int

    def to_xarray(self) -> Dataset:
        """Variables `mean`, `variance` (class, …) and `count` (class)."""
        import xarray

        axes = ("class", *self.dims)
        return xarray.Dataset(
            {"mean": (axes, self.mean), "variance": (axes, self.variance), "count": ("class", self.counts)},
            coords={"class": self.classes},
            attrs={"left_out": self.left_out},
        )

    def plot(self, *, names: Sequence[str] | None = None) -> Figure:
        """Means, and standard deviations below them, each row on one scale.

        Args:
            names: What to write above each class; None: the class itself.

        Raises:
            PlotError: matplotlib is not installed, the names do not fit, or the maps have more than two axes.
        """
        shown = self.classes if names is None else names
        if len(shown) != len(self.classes):
            raise PlotError(f"There are {len(shown)} names for {len(self.classes)} classes.")
        titles = [f"{name} (n = {count})" for name, count in zip(shown, self.counts, strict=True)]
        return draw_class_maps(self.mean, self.variance, self.dims, titles)

    def __repr__(self) -> str:
        left = f", {self.left_out} left out" if self.left_out else ""
        return f"<ClassMaps of {len(self.classes)} classes, {self.counts.sum()} samples{left}, {self.dims}>"


def average(
    data: Any,
    by: Any = "target",
    *,
    sign: Sign = "all",
    over: str | Sequence[str] = (),
    normalize: bool = False,
    classes: Sequence[Any] | None = None,
    variable: str = "attribution",
    dims: Sequence[str] | None = None,
) -> ClassMaps:
    """Mean and variance of the attributions of each class.

    Samples are read in portions of at most 64 MiB (or one chunk of the store, where that is more), and the two moments
    are put together as Chan, Golub and LeVeque (1979) do: no difference of large numbers is taken. What must fit into
    memory are two maps for each class.

    Args:
        data: The path of a store, an `xarray.Dataset`, or an array (sample, …).
        by: What tells classes apart: the name of a variable of the data set (`"target"`, `"prediction"`), a label for
            each sample, or None, which puts all samples together.
        sign: Which values count: `"all"`, `"positive"`, `"negative"` or `"absolute_value"`.
        over: Axes that are summed over first, such as `"channel"`.
        normalize: Whether each sample's values are divided by the sum of their absolute values, so that samples with
            large values count no more than others.
        classes: Only these classes; None: all.
        variable: Which variable of the data set holds the attributions.
        dims: The names of the axes of a plain array, the first of which is `"sample"`.

    Raises:
        ArgumentError: An argument does not fit the data.
    """
    samples = gather(data, by, Reading(sign, axes_of(over), normalize), variable=variable, dims=dims)
    sums = {label: _Sums() for label in classes_of(samples, classes).tolist()}
    finite = 0
    for positions, maps in samples.portions():
        finite += len(positions)
        for label, part in _parts(samples, positions, maps):
            if label in sums:
                sums[label].add(part)
    return _class_maps(sums, samples, len(samples) - finite)


@dataclass
class _Sums:
    """Number, mean, and sum of squared distances from it, of maps that come bit by bit."""

    count: int = 0
    mean: Any = field(default=0.0)
    squares: Any = field(default=0.0)

    def add(self, maps: np.ndarray) -> None:
        """Further maps (sample, …)."""
        count, mean = len(maps), maps.mean(0)
        distance, whole = mean - self.mean, self.count + count
        self.squares = self.squares + ((maps - mean) ** 2).sum(0) + distance**2 * (self.count * count / whole)
        self.mean = self.mean + distance * (count / whole)
        self.count = whole


def _parts(samples: Samples, positions: np.ndarray, maps: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    labels = samples.labels[positions]
    for label in np.unique(labels):
        yield label.item(), maps[labels == label]


def _class_maps(sums: dict[Any, _Sums], samples: Samples, left_out: int) -> ClassMaps:
    shape = tuple(samples.values.shape[samples.dims.index(axis)] for axis in samples.map_dims)
    none = np.full(shape, np.nan)
    means = [one.mean if one.count else none for one in sums.values()]
    variances = [one.squares / one.count if one.count else none for one in sums.values()]
    return ClassMaps(
        np.array(list(sums)),
        np.array([one.count for one in sums.values()]),
        np.stack(means),
        np.stack(variances),
        samples.map_dims,
        left_out,
    )
