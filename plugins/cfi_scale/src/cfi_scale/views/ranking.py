"""The samples that stand out by a statistic of their attribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.errors import ArgumentError, PlotError
from cfi_scale.views.pictures import draw_ranking
from cfi_scale.views.samples import Reading, Samples, Sign, axes_of, classes_of, gather

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes maps (sample, …) and gives one number for each sample."""


def _concentration(maps: np.ndarray) -> np.ndarray:
    strength = np.abs(maps.reshape(len(maps), -1))
    whole = strength.sum(1, keepdims=True)
    return ((strength / np.where(whole > 0, whole, 1)) ** 2).sum(1)


STATISTICS: Mapping[str, Statistic] = {
    "sum": lambda maps: maps.reshape(len(maps), -1).sum(1),
    "absolute_sum": lambda maps: np.abs(maps.reshape(len(maps), -1)).sum(1),
    "maximum": lambda maps: np.abs(maps.reshape(len(maps), -1)).max(1),
    "concentration": _concentration,
}
"""By name. The concentration is the sum of the squared shares of all values: 1 if one value is all there is, 1/n if all
n are equal (the index of Herfindahl and Hirschman)."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The samples at the top, class by class.

    Attributes:
        statistic: What they are ordered by.
        classes: The class of each, in order: those of the first class come first.
        positions: Where each is in the data.
        ids: What each is called.
        scores: The statistic of each, the first of a class at its top.
        values: The map of each (sample, …).
        dims: The names of the axes of one map.
        all_scores: The statistic of every sample of the data; not a number where it was left out.
        left_out: How many samples had no finite values or no class.
    """

    statistic: str
    classes: np.ndarray
    positions: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    dims: tuple[str, ...]
    all_scores: np.ndarray
    left_out: int

    def plot(self, *, images: Any = None) -> Figure:
        """The maps, in a row for each class, or in lines where there is one class.

        Args:
            images: What was explained (sample, height, width) or with three colours on a last axis, for every sample of
                the data; each is shown beside its map.

        Raises:
            PlotError: matplotlib is not installed, the maps have more than two axes, or there are too few images.
        """
        if images is not None and len(images) != len(self.all_scores):
            raise PlotError(f"There are {len(images)} images for {len(self.all_scores)} samples of the data.")
        shown = None if images is None else [images[int(place)] for place in self.positions]
        heading = f"by {self.statistic}"
        labels, ids, scores = self.classes.tolist(), self.ids.tolist(), self.scores.tolist()
        return draw_ranking(self.values, self.dims, scores, ids, labels, shown, heading)

    def __repr__(self) -> str:
        left = f", {self.left_out} left out" if self.left_out else ""
        return f"<Ranking by {self.statistic}, {len(self.ids)} of {len(self.all_scores)} samples{left}>"


def rank(
    data: Any,
    statistic: str | Statistic = "absolute_sum",
    by: Any = None,
    *,
    count: int = 9,
    lowest: bool = False,
    sign: Sign = "all",
    over: str | Sequence[str] = (),
    classes: Sequence[Any] | None = None,
    variable: str = "attribution",
    dims: Sequence[str] | None = None,
) -> Ranking:
    """The samples with the highest statistic, of all or of each class.

    Values are read in portions; the maps of the samples at the top are read once more.

    Args:
        data: The path of a store, an `xarray.Dataset`, or an array (sample, …).
        statistic: A name of `STATISTICS`, or a function that takes maps (sample, …) in double precision and gives one
            number for each.
        by: What tells classes apart, as for `average`; None ranks all samples together.
        count: How many of each class.
        lowest: Whether the lowest come first.
        sign: Which values count.
        over: Axes that are summed over first.
        classes: Only these classes; None: all.
        variable: Which variable of the data set holds the attributions.
        dims: The names of the axes of a plain array.

    Raises:
        ArgumentError: An argument does not fit the data, or the function gives something else than finite numbers.
    """
    if count < 1:
        raise ArgumentError(f"count={count} must be at least 1.")
    name, function = _resolved(statistic)
    samples = gather(data, by, Reading(sign, axes_of(over)), variable=variable, dims=dims)
    scores = np.full(len(samples), np.nan)
    for positions, maps in samples.portions():
        scores[positions] = _scored(name, function, maps)
    tops = [_top(scores, samples.labels == label, count, lowest) for label in classes_of(samples, classes)]
    return _ranking(name, samples, scores, np.concatenate(tops))


def _resolved(statistic: str | Statistic) -> tuple[str, Statistic]:
    if callable(statistic):
        return getattr(statistic, "__name__", "a function"), statistic
    if statistic not in STATISTICS:
        known = ", ".join(STATISTICS)
        raise ArgumentError(
            f"There is no statistic {statistic!r}; there are {known}. A function of the maps is one, too."
        )
    return statistic, STATISTICS[statistic]


def _scored(name: str, function: Statistic, maps: np.ndarray) -> np.ndarray:
    found = np.asarray(function(maps))
    if found.shape != (len(maps),) or not np.isfinite(found).all():
        raise ArgumentError(
            f"The statistic {name} gave {found.dtype} of shape {found.shape} for {len(maps)} maps; it must give one "
            f"finite number for each."
        )
    return found


def _top(scores: np.ndarray, chosen: np.ndarray, count: int, lowest: bool) -> np.ndarray:
    """Positions, of equal scores the first."""
    places = np.flatnonzero(chosen & np.isfinite(scores))
    order = np.argsort(scores[places] if lowest else -scores[places], kind="stable")
    return places[order[:count]]


def _ranking(name: str, samples: Samples, scores: np.ndarray, top: np.ndarray) -> Ranking:
    return Ranking(
        statistic=name,
        classes=samples.labels[top],
        positions=top,
        ids=samples.ids[top],
        scores=scores[top],
        values=samples.at(top),
        dims=samples.map_dims,
        all_scores=scores,
        left_out=int(np.isnan(scores).sum()),
    )
