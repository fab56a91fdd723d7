"""Pictures of views, drawn with matplotlib alone (`pip install 'cfi-scale[plot]'`); pyplot is never used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.display import offer_figure
from cfi_core.errors import PlotError
from cfi_scale.views.samples import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _TITLE = 1.35, 0.45  # inches
_COLUMNS, _BESIDE = 12, 8  # panels in a line: of maps, and of classes side by side
_LONGEST = 18
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


@dataclass(frozen=True, eq=False)
class Tile:
    """What is drawn of the clusters of one class.

    Attributes:
        label: The class.
        eigenvalues: The lowest ones.
        gap: The ratio behind the last cluster.
        means: The mean map of each cluster (cluster, …).
        dims: The names of the axes of one map.
        titles: What stands above each.
        groups: The cluster of each sample.
        places: Where each sample lies (sample, 2); None if that is not drawn.
    """

    label: str
    eigenvalues: np.ndarray
    gap: float
    means: np.ndarray
    dims: tuple[str, ...]
    titles: Sequence[str]
    groups: np.ndarray
    places: np.ndarray | None


def draw_class_maps(means: np.ndarray, variances: np.ndarray, dims: Sequence[str], titles: Sequence[str]) -> Figure:
    """Means and standard deviations (class, …), below each other for each class.

    Raises:
        PlotError: The maps have no picture.
    """
    rows = {"mean": _flat(means, dims), "standard deviation": np.sqrt(_flat(variances, dims))}
    bands, columns = -(-len(means) // _COLUMNS), min(len(means), _COLUMNS)
    figure, axes = _grid(2 * bands, columns)
    for which, (what, maps) in enumerate(rows.items()):
        panels = [axis for band in range(bands) for axis in axes[2 * band + which]]
        scale = _scale(maps)
        for axis, values, title in zip(panels, maps, titles, strict=False):
            _show(axis, values, scale)
            axis.set_title(title if which == 0 else "", fontsize=7)
        for axis in panels[len(maps) :]:
            axis.set_axis_off()
        panels[0].set_ylabel(what, fontsize=7)
        _bar(figure, axes[which], maps, scale)
    return _offered(figure)


def draw_ranking(
    maps: np.ndarray,
    dims: Sequence[str],
    scores: Sequence[float],
    ids: Sequence[Any],
    classes: Sequence[Any],
    images: Sequence[Any] | None,
    heading: str,
) -> Figure:
    """Maps (sample, …) with their scores, in lines, of which each holds one class; each map behind what it is of.

    Raises:
        PlotError: The maps or images have no picture.
    """
    maps, each, scale = _flat(maps, dims), 1 if images is None else 2, _scale(_flat(maps, dims))
    lines = _lines(classes, _COLUMNS // each)
    figure, axes = _grid(len(lines), each * max(map(len, lines)))
    for line, row in zip(lines, axes, strict=True):
        for axis in row[each * len(line) :]:
            axis.set_axis_off()
        for place, axis, beside in zip(line, row[each - 1 :: each], row[::each], strict=False):
            name, score = _short(ids[place]), f"{scores[place]:.3g}"
            _show(axis, maps[place], scale)
            axis.set_title(f"{name}\n{score}" if images is None else score, fontsize=7)
            if images is not None:
                _show_image(beside, images[place])
                beside.set_title(name, fontsize=7)
        label = str(classes[line[0]])
        row[0].set_ylabel("" if label == ALL else label, fontsize=8)
    _bar(figure, [axis for row in axes for axis in row], maps, scale)
    figure.suptitle(heading, fontsize=9)
    return _offered(figure)


def draw_clusters(tiles: Sequence[Tile]) -> Figure:
    """Of each class the eigenvalues, where the samples lie, and the mean map of each cluster; classes side by side.

    Raises:
        PlotError: The maps have no picture.
    """
    first = 1 if tiles[0].places is None else 2
    wide = first + max(len(one.means) for one in tiles)
    beside = min(len(tiles), max(1, _BESIDE // wide))
    figure, axes = _grid(-(-len(tiles) // beside), beside * wide)
    groups = [row[start : start + wide] for row in axes for start in range(0, beside * wide, wide)]
    for axis in (axis for group in groups for axis in group):
        axis.set_axis_off()
    for group, one in zip(groups, tiles, strict=False):
        _draw_tile(group[: first + len(one.means)], one)
    return _offered(figure)


def _draw_tile(axes: Sequence[Axes], one: Tile) -> None:
    for axis in axes:
        axis.set_axis_on()
    _draw_spectrum(axes[0], one)
    if one.places is not None:
        _draw_places(axes[1], one.places, one.groups)
    maps = _flat(one.means, one.dims)
    for cluster, axis in enumerate(axes[-len(maps) :]):
        _show(axis, maps[cluster], _scale(maps[cluster]))
        axis.set_title(one.titles[cluster], fontsize=7)
        for spine in axis.spines.values():
            spine.set(color=_COLOURS[cluster % len(_COLOURS)], linewidth=2)


def _draw_spectrum(axis: Axes, one: Tile) -> None:
    count = len(one.means)
    values = one.eigenvalues[: max(count + 1, 9)]
    axis.plot(range(1, len(values) + 1), values, "o", markersize=2.5, color="0.3")
    axis.axvline(count + 0.5, color="#c44e52", linewidth=1)
    axis.set(ylim=(-0.02, max(values.max() * 1.1, 0.05)), xticks=[1, len(values)])
    axis.locator_params(axis="y", nbins=4)
    axis.tick_params(labelsize=6, length=2, pad=1)
    axis.set_title(f"eigengap {one.gap:.1f}\nbehind {count}", fontsize=7)
    axis.set_ylabel(one.label, fontsize=9, rotation=0, ha="right", va="center")


def _draw_places(axis: Axes, places: np.ndarray, groups: np.ndarray) -> None:
    colours = [_COLOURS[group % len(_COLOURS)] for group in groups]
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


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _lines(classes: Sequence[Any], most: int) -> list[list[int]]:
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
