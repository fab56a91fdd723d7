"""Pictures of views, drawn with matplotlib alone (`pip install 'cfi-scale[plot]'`); pyplot is never used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.display import offer_figure
from cfi_core.errors import PlotError
from cfi_scale.views.samples import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cfi_scale.views.clusters import Clustering, Clusters
    from cfi_scale.views.maps import ClassMaps
    from cfi_scale.views.ranking import Ranking

_PANEL, _TITLE = 1.35, 0.45  # inches
_COLUMNS, _BESIDE = 12, 8  # panels in a line: of maps, and of classes side by side
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


def draw_class_maps(maps: ClassMaps, names: Sequence[str] | None) -> Figure:
    """Means and standard deviations, below each other for each class."""
    means, spreads = _flat(maps.mean, maps.dims), np.sqrt(_flat(maps.variance, maps.dims))
    titles = [str(one) for one in (maps.classes if names is None else names)]
    if len(titles) != len(means):
        raise PlotError(f"names= has {len(titles)} names for {len(means)} classes.")
    bands = -(-len(means) // _COLUMNS)
    columns = min(len(means), _COLUMNS)
    figure, axes = _grid(2 * bands, columns)
    scales = [_scale(means), _scale(spreads)]
    for place in range(bands * _COLUMNS):
        band, column = divmod(place, _COLUMNS)
        if column >= columns:
            continue
        for row, values, what in ((0, means, "mean"), (1, spreads, "standard deviation")):
            axis = axes[2 * band + row][column]
            if place >= len(means):
                axis.set_axis_off()
                continue
            _show(axis, values[place], scales[row])
            axis.set_title(f"{titles[place]} (n = {maps.counts[place]})" if row == 0 else "", fontsize=7)
            if column == 0:
                axis.set_ylabel(what, fontsize=7)
    for row, values in ((0, means), (1, spreads)):
        _bar(figure, axes[row], values, scales[row])
    return _offered(figure)


def draw_ranking(ranking: Ranking, images: Any) -> Figure:
    """Maps with their scores, in lines; each behind what it is of."""
    maps, each = _flat(ranking.values, ranking.dims), 1 if images is None else 2
    lines = _lines(ranking.classes, _COLUMNS // each)
    figure, axes = _grid(len(lines), each * max(map(len, lines)))
    scale = _scale(maps)
    for line, row in zip(lines, axes, strict=True):
        for axis in row[each * len(line) :]:
            axis.set_axis_off()
        for column, place in enumerate(line):
            axis = row[each * column + each - 1]
            _show(axis, maps[place], scale)
            axis.set_title(f"{ranking.scores[place]:.3g}", fontsize=7)
            if images is not None:
                _show_image(row[each * column], images[int(ranking.positions[place])])
            row[each * column].set_title(_title(ranking, place, images is None), fontsize=7)
        label = ranking.classes[line[0]]
        row[0].set_ylabel("" if label == ALL else str(label), fontsize=8)
    _bar(figure, [axis for row in axes for axis in row], maps, scale)
    figure.suptitle(f"by {ranking.statistic}", fontsize=9)
    return _offered(figure)


def draw_clustering(clustering: Clustering, *, most: int, places: bool, seed: int) -> Figure:
    """Of each class the eigenvalues, the mean map of each cluster, and where the samples lie; classes side by side."""
    shown = list(clustering)[:most]
    wide = (2 if places else 1) + max(one.count for one in shown)
    beside = min(len(shown), max(1, _BESIDE // wide))
    figure, axes = _grid(-(-len(shown) // beside), beside * wide)
    tiles = [row[start : start + wide] for row in axes for start in range(0, beside * wide, wide)]
    for axis in (axis for tile in tiles for axis in tile):
        axis.set_axis_off()
    for tile, one in zip(tiles, shown, strict=False):
        _draw_class(tile, one, places, seed)
    return _offered(figure)


def _draw_class(tile: Sequence[Axes], one: Clusters, places: bool, seed: int) -> None:
    maps, first = _flat(one.mean, one.dims), 2 if places else 1
    for axis in tile[: first + one.count]:
        axis.set_axis_on()
    _draw_spectrum(tile[0], one)
    if places:
        _draw_places(tile[1], one, seed)
    for cluster, axis in enumerate(tile[first : first + one.count]):
        _show(axis, maps[cluster], _scale(maps[cluster]))
        axis.set_title(f"{one.sizes[cluster]} samples\nagreement {one.agreement[cluster]:.2f}", fontsize=7)
        for spine in axis.spines.values():
            spine.set(color=_COLOURS[cluster % len(_COLOURS)], linewidth=2)


def _draw_spectrum(axis: Axes, one: Clusters) -> None:
    values = one.eigenvalues[: max(one.count + 1, 9)]
    axis.plot(range(1, len(values) + 1), values, "o", markersize=2.5, color="0.3")
    axis.axvline(one.count + 0.5, color="#c44e52", linewidth=1)
    axis.set(ylim=(-0.02, max(values.max() * 1.1, 0.05)), xticks=[1, len(values)])
    axis.locator_params(axis="y", nbins=4)
    axis.tick_params(labelsize=6, length=2, pad=1)
    axis.set_title(f"eigengap {one.eigengap:.1f}\nbehind {one.count}", fontsize=7)
    axis.set_ylabel(f"{one.label}", fontsize=9, rotation=0, ha="right", va="center")


def _draw_places(axis: Axes, one: Clusters, seed: int) -> None:
    places = one.layout(seed=seed)
    colours = [_COLOURS[group % len(_COLOURS)] for group in one.groups]
    axis.scatter(places[:, 0], places[:, 1], s=3, c=colours, linewidths=0)
    axis.set(xticks=[], yticks=[])
    axis.set_title("t-SNE", fontsize=7)


def _flat(maps: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    """Maps with one axis or two: an axis with one value is none.

    Raises:
        PlotError: There are more.
    """
    found = maps.reshape(len(maps), *(size for size in maps.shape[1:] if size > 1))
    if found.ndim > 3:
        shown = ", ".join(dims)
        raise PlotError(f"Maps with the axes {shown} have no picture. Sum over some of them: over={dims[0]!r}.")
    return found if found.ndim > 1 else found[:, None]


def _scale(maps: np.ndarray) -> dict[str, Any]:
    """Red speaks for, blue against, symmetric around zero; values without a sign from white to dark."""
    finite = maps[np.isfinite(maps)]
    bound = float(np.abs(finite).max()) if finite.size and np.any(finite) else 1.0
    return (
        {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
        if (finite < 0).any()
        else {
            "cmap": "Reds",
            "vmin": 0,
            "vmax": bound,
        }
    )


def _show(axis: Axes, values: np.ndarray, scale: dict[str, Any]) -> None:
    if values.ndim == 2:
        axis.imshow(values, interpolation="nearest", **scale)
        axis.set(xticks=[], yticks=[])
        return
    axis.bar(range(len(values)), values, color=["#b2182b" if one >= 0 else "#2166ac" for one in values])
    axis.set(ylim=(scale["vmin"] * 1.05, scale["vmax"] * 1.05), xticks=[])
    axis.tick_params(labelsize=6)


def _show_image(axis: Axes, image: Any) -> None:
    pixels = np.asarray(image).squeeze()
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise PlotError(
            f"images= must be (sample, height, width) or have colours last; one of them has {pixels.shape}."
        )
    axis.imshow(pixels, cmap="gray", interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _title(ranking: Ranking, place: int, alone: bool) -> str:
    text = str(ranking.ids[place])
    text = text if len(text) <= 18 else f"…{text[-17:]}"
    return f"{text}\n{ranking.scores[place]:.3g}" if alone else text


def _lines(classes: np.ndarray, most: int) -> list[list[int]]:
    """Positions line by line; each class begins a new one."""
    lines: list[list[int]] = []
    for place, label in enumerate(classes):
        if not lines or len(lines[-1]) == most or classes[lines[-1][0]] != label:
            lines.append([])
        lines[-1].append(place)
    return lines


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError("Pictures of views need matplotlib: pip install 'cfi-scale[plot]'.") from error
    size = (columns * (_PANEL + 0.1) + 1.0, rows * (_PANEL + _TITLE) + 0.3)
    figure = Figure(size, dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def _bar(figure: Figure, axes: Sequence[Axes], maps: np.ndarray, scale: dict[str, Any]) -> None:
    if maps.ndim == 3:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        colours = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])
        figure.colorbar(colours, ax=list(axes), fraction=0.03, pad=0.01, aspect=14).ax.tick_params(labelsize=6)


def _offered(figure: Figure) -> Figure:
    offer_figure(figure)
    return figure
