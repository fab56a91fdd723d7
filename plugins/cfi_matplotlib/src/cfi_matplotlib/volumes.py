"""Videos and volumes: values with a third axis besides height and width, as strips of frames or as slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure, SubFigure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import values_by_sample
from cfi_matplotlib.colors import colormap_of, limit_of
from cfi_matplotlib.heading import heading_of, is_of_inputs, label_of_sample, wrap
from cfi_matplotlib.letters import dress
from cfi_matplotlib.pictures import Picture, way_of_showing
from cfi_matplotlib.remarks import annotate
from cfi_matplotlib.selection import choose_samples

_PLANE, _THIRD = ("height", "width"), ("depth", "time", "frame", "step", "position")
_TEMPORAL = ("time", "frame", "step")


def is_volume(attribution: Attribution) -> bool:
    """Whether there is one array with height, width and a third axis, besides samples and channels."""
    return len(attribution.parts) == 1 and _third_of(attribution.parts[0][1]) is not None


def draw_volume(
    attribution: Attribution,
    *,
    view: Literal["frames", "slices"] | None = None,
    along: str | None = None,
    at: Literal["strongest", "center"] = "strongest",
    samples: Sequence[int] | None = None,
    max_samples: int = 4,
    max_frames: int = 8,
    show_input: bool = True,
    alpha_overlay: float = 0.6,
    outlier_perc: float = 2.0,
    cmap: str | Colormap | None = None,
    show_colorbar: bool = True,
    title: str | None = None,
    panel_size: float = 1.5,
) -> Figure:
    """Draws a video as a strip of frames, or a volume as slices along its three axes, under their heat maps.

    Channels are summed. All pictures of a sample share a colour scale. A layer's coarser values are stretched over the
    input; each of its steps lies over the frame in the middle of the frames that it stands for.

    Args:
        attribution: What to draw: axes `height`, `width`, a third one (`depth`, `time`), and perhaps `channel`.
        view: `"frames"` in order, or `"slices"` (one along each axis); None takes frames where the third axis is one of
            time or the input has colours, and slices otherwise.
        along: Name of the axis that counts frames; None takes the third one, or `channel` where there are three along
            the third one and more than four channels, as in videos of (time, colour, height, width).
        at: Where slices are taken: through the `"strongest"` value or the `"center"`.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_frames: Most frames of a sample: evenly spaced ones, the strongest (largest sum of absolute values) in the
            place of its neighbour among them.
        show_input: Whether the input is drawn above the heat maps.
        alpha_overlay: Opacity of a heat map over the input.
        outlier_perc: The strongest values that hold this percentage of the sum of all absolute values have the
            scale's last colour, as in Captum.
        cmap: A matplotlib colour map, or its name; None takes a diverging one for values of which some are negative.
        show_colorbar: Whether to draw the colour scale.
        title: Replaces the title, which tells method, toolset, target, layer and route.
        panel_size: Width of one picture in inches.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: There is no such third axis, no finite value, no such sample, or an option does not fit.
    """
    _check(attribution, view, at, along, max_samples, max_frames, alpha_overlay, outlier_perc, panel_size)
    films, notes, kind = films_of(attribution, samples, max_samples, view, along)
    why = ", since three colours lie along the other" if along is None and films[0].third == "channel" else ""
    if not any(np.isfinite(film.values).any() for film in films):
        raise PlotError("None of the values is finite (all are NaN or infinite).")
    signed = any((film.values < 0).any() for film in films)
    colors = _colors(cmap, signed=signed, over=films[0].images is not None)
    strips = [_frames(film, max_frames) if kind == "frames" else _slices(film, at) for film in films]
    if kind == "frames" and len(strips[0]) < len(films[0].values):
        notes.append(f"{len(strips[0])} of {len(films[0].values)} frames are shown, the strongest of each sample too")
    if kind == "frames" and films[0].third not in _TEMPORAL:
        notes.append(f"frames along the axis {films[0].third!r}{why}")
    if kind == "slices":
        notes.append("slices through the strongest value" if at == "strongest" else "slices through the centre")
    lines = 2 if show_input and films[0].images is not None else 1
    columns = max(len(strip) for strip in strips)
    width = max(columns * panel_size + 0.8 * show_colorbar, 4.0)
    row_height = lines * (panel_size * _ratio(strips) + 0.1) + (0.5 if len(films) > 1 else 0.25)
    text = wrap(heading_of(attribution) if title is None else title, width)
    note = wrap("; ".join(notes), width, points=8)
    above, below = 0.2 * (text.count("\n") + 1) + 0.1, (0.17 * (note.count("\n") + 1) if note else 0)
    figure = Figure(figsize=(width, row_height * len(films) + above + below + 0.1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    cells = figure.subfigures(len(films), 1, squeeze=False)[:, 0]
    for cell, film, strip in zip(cells, films, strips, strict=True):
        _draw_strip(
            cell, film, strip, columns, colors, outlier_perc, alpha_overlay, show_input, show_colorbar, signed=signed
        )
    if note:
        figure.supxlabel(note, fontsize=8, color="0.35", parse_math=False)
    return dress(figure)


@dataclass(frozen=True)
class Film:
    """One sample.

    Attributes:
        label: Which one.
        third: Name of the axis that counts frames.
        values: Frame, height and width.
        images: Frame, height, width and channels of the input; or None.
        show: From a plane of these to a picture.
    """

    label: str
    third: str
    values: np.ndarray
    images: np.ndarray | None
    show: Callable[[np.ndarray], Picture] | None = None

    def picture(self, position: int, axis: int = 0) -> np.ndarray | None:
        """A plane of the input in red, green and blue."""
        return None if self.images is None or self.show is None else self.show(self.images.take(position, axis)).pixels


@dataclass(frozen=True)
class _Picture:
    """One panel: a plane of the values and of the input, under a label.

    Attributes:
        label: Which plane.
        values: Along its two axes.
        image: Of the input, in red, green and blue; or None.
        cross: Where the other slices cut it, in shares of its width from the left and of its height from below.
    """

    label: str
    values: np.ndarray
    image: np.ndarray | None
    cross: tuple[float, float] | None = None


def films_of(
    attribution: Attribution,
    samples: Sequence[int] | None,
    max_samples: int,
    view: str | None,
    along: str | None,
) -> tuple[list[Film], list[str], str]:
    """The chosen samples, what must be told of them, and whether they are shown as frames or slices."""
    values, dims = values_by_sample(attribution, 0)
    chosen, notes = choose_samples(samples, max_samples, len(values))
    third, colours = str(_third_of(dims)), "channel"
    if along == "channel" or (along is None and _is_film_of_colours(attribution)):
        third, colours = "channel", third
    values = values[chosen].transpose(
        [dims.index(name) for name in ("sample", third, *_PLANE, colours) if name in dims]
    )
    if values.ndim == 5:
        notes += [f"sum over {values.shape[-1]} channels"] if values.shape[-1] > 1 else []
        values = values.sum(-1)
    images = _images(attribution, chosen, len(attribution.parts[0][0]), third, colours)
    if images is not None and images.shape[1:4] != values.shape[1:]:
        shapes = [" × ".join(map(str, shape)) for shape in (values.shape[1:], images.shape[1:4])]
        notes.append(f"{shapes[0]} values are stretched over the {shapes[1]} of the input")
    of_colours = images is not None and images.shape[-1] == 3
    show = None if images is None else way_of_showing(images)
    if images is not None and show is not None and "in grey" in show(images[0, 0]).label:
        notes.append("inputs in grey, since they do not tell which colours they are")
    shown = view or ("frames" if third in (*_TEMPORAL, "channel") or of_colours else "slices")
    labels = [label_of_sample(attribution, sample, len(attribution.parts[0][0])) for sample in chosen]
    films = [
        Film(label, third, values[i], None if images is None else images[i], show) for i, label in enumerate(labels)
    ]
    return films, notes, shown


def _third_of(dims: Sequence[str]) -> str | None:
    others = [name for name in dims if name not in ("sample", "channel", *_PLANE)]
    return others[0] if set(_PLANE) <= set(dims) and len(others) == 1 and others[0] in _THIRD else None


def _is_film_of_colours(attribution: Attribution) -> bool:
    """Whether the axis named `channel` counts frames: three colours lie along the third axis, and no colours there."""
    values, dims = attribution.parts[0]
    third = _third_of(dims)
    if "channel" not in dims or third is None or third in _TEMPORAL:
        return False
    return values.shape[dims.index(third)] == 3 and values.shape[dims.index("channel")] > 4


def _images(attribution: Attribution, chosen: Sequence[int], count: int, third: str, colours: str) -> np.ndarray | None:
    """The inputs as sample, frame, height, width and channel."""
    places = range(min(len(attribution.inputs), len(attribution.input_dims)))
    for place in list(places)[:1] if is_of_inputs(attribution) else places:
        inputs, dims = attribution.inputs[place], attribution.input_dims[place]
        if not {"sample", third, *_PLANE} <= set(dims) or inputs.shape[dims.index("sample")] != count:
            continue
        if inputs.dtype.kind not in "fiub" or set(dims) - {"sample", third, colours, *_PLANE}:
            continue
        order = [dims.index(name) for name in ("sample", third, *_PLANE, colours) if name in dims]
        images = inputs.transpose(order)[list(chosen)]
        return images if images.ndim == 5 else images[..., None]
    return None


# Which planes.


def _frames(film: Film, most: int) -> list[_Picture]:
    count = len(film.values)
    kept = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    strength = np.nansum(np.abs(film.values), axis=(1, 2))
    best = int(strength.argmax())
    if best not in kept:
        kept[np.abs(kept - best).argmin()] = best
    strongest_of_all = best if count > 1 and strength.any() else None
    return [_frame(film, int(step), star=step == strongest_of_all) for step in sorted(kept)]


def _frame(film: Film, step: int, *, star: bool) -> _Picture:
    frames = len(film.values) if film.images is None else len(film.images)
    middle = int((step + 0.5) * frames / len(film.values))
    name = film.third if film.third in _TEMPORAL else "frame"
    label = f"{name} {middle}" if frames == len(film.values) else f"step {step} over {name} {middle}"
    return _Picture(f"{label} ★" if star else label, film.values[step], film.picture(middle))


def _slices(film: Film, at: str) -> list[_Picture]:
    """A plane across each axis, through one place."""
    shape = film.values.shape
    place = tuple(size // 2 for size in shape)
    if at == "strongest" and np.nan_to_num(film.values, posinf=0, neginf=0).any():
        strongest = np.nanargmax(np.where(np.isfinite(film.values), np.abs(film.values), np.nan))
        place = tuple(int(i) for i in np.unravel_index(strongest, shape))
    names, found = (film.third, *_PLANE), []
    sizes = shape if film.images is None else film.images.shape[:3]
    over = [int((one + 0.5) * size / own) for one, size, own in zip(place, sizes, shape, strict=True)]
    for axis, name in enumerate(names):
        rest = [other for other in range(3) if other != axis]
        image = film.picture(over[axis], axis)
        cross = ((over[rest[1]] + 0.5) / sizes[rest[1]], 1 - (over[rest[0]] + 0.5) / sizes[rest[0]])
        label = f"{name} {over[axis]} of {sizes[axis]}"
        found.append(_Picture(label, film.values.take(place[axis], axis), image, cross))
    return found


# How they are drawn.


def _draw_strip(
    cell: SubFigure,
    film: Film,
    strip: Sequence[_Picture],
    columns: int,
    colors: Colormap,
    outlier_perc: float,
    alpha_overlay: float,
    show_input: bool,
    show_colorbar: bool,
    *,
    signed: bool,
) -> None:
    limit, extend = limit_of(film.values, outlier_perc)
    norm = Normalize(-limit if signed else 0.0, limit)
    with_input = show_input and film.images is not None
    # Slices have pixels of one size, frames are all alike.
    widths = [_width(strip[column]) if column < len(strip) else 1 for column in range(columns)]
    grid = cell.subplots(1 + with_input, columns, squeeze=False, width_ratios=widths)
    cell.suptitle(film.label, fontsize=9, parse_math=False)
    for column in range(columns):
        for axis in grid[:, column]:
            axis.set(xticks=[], yticks=[])
        if column >= len(strip):
            for axis in grid[:, column]:
                axis.set_axis_off()
            continue
        picture = strip[column]
        if with_input:
            assert picture.image is not None
            grid[0, column].imshow(picture.image, interpolation="nearest", aspect="auto")
        draw_plane(grid[-1, column], picture.values, picture.image, colors, norm, alpha_overlay)
        grid[0, column].set_title(picture.label, fontsize=8, parse_math=False)
        for axis, anchor in zip(grid[:, column], "SN" if with_input else "C", strict=True):
            _shape(axis, picture)
            axis.set_anchor(anchor)
    if show_colorbar:
        kept = list(grid[-1] if not with_input else grid.ravel())
        bar = cell.colorbar(
            ScalarMappable(norm, colors), ax=kept, extend=extend, shrink=0.85, aspect=18 * len(grid), pad=0.02
        )
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


def draw_plane(
    axis: Axes,
    values: np.ndarray,
    image: np.ndarray | None,
    colors: Colormap,
    norm: Normalize,
    alpha_overlay: float = 0.6,
) -> None:
    """A heat map, stretched over the image in grey where there is one."""
    height, width = values.shape if image is None else image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    options: dict[str, Any] = {"extent": extent, "aspect": "auto"}
    if image is not None:
        grey = 0.25 + 0.75 * (image @ (0.299, 0.587, 0.114))
        axis.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", **options)
    smooth = image is not None and values.shape != image.shape[:2]
    options["interpolation"] = "bilinear" if smooth else "nearest"
    axis.imshow(
        np.ma.masked_invalid(values), cmap=colors, norm=norm, alpha=alpha_overlay if image is not None else 1, **options
    )
    annotate(axis, values)


def _shape(axis: Axes, picture: _Picture) -> None:
    """Pixels as squares, but for planes that would be too long; lines where the other slices cut this one."""
    height, width = picture.values.shape if picture.image is None else picture.image.shape[:2]
    axis.set_box_aspect(_kept(height / width))
    if picture.cross is not None:
        across, up = picture.cross
        style: dict[str, Any] = {"color": "#00a000", "linewidth": 0.6, "alpha": 0.8, "transform": axis.transAxes}
        axis.plot([across, across], [0, 1], **style)
        axis.plot([0, 1], [up, up], **style)


def _width(picture: _Picture) -> int:
    shape = (picture.values if picture.image is None else picture.image).shape
    return max(shape[1], int(shape[0] / 2.5))


def _kept(ratio: float) -> float:
    return min(max(ratio, 0.4), 2.5)


def _ratio(strips: Sequence[Sequence[_Picture]]) -> float:
    """Height of the tallest picture over the mean width of a column."""
    shapes = [(one.values if one.image is None else one.image).shape for strip in strips for one in strip]
    mean = sum(_width(one) for one in strips[0]) / len(strips[0])
    return max(_kept(shape[0] / shape[1]) * shape[1] / mean for shape in shapes)


def _colors(name: str | Colormap | None, *, signed: bool, over: bool) -> Colormap:
    return colormap_of(name or ("RdBu_r" if signed else "inferno" if over else None), signed=signed)


def _check(
    attribution: Attribution,
    view: str | None,
    at: str,
    along: str | None,
    max_samples: int,
    max_frames: int,
    alpha_overlay: float,
    outlier_perc: float,
    panel_size: float,
) -> None:
    dims = [dims for _, dims in attribution.parts]
    if not is_volume(attribution):
        raise PlotError(
            "There is no video or volume to draw: one array needs height, width and a third axis (depth, time, frame) "
            f"besides samples and channels; the values have the axes {'; '.join(map(str, dims))}."
        )
    if view not in (None, "frames", "slices") or at not in ("strongest", "center"):
        raise PlotError(f'view={view!r} must be "frames" or "slices", and at={at!r} "strongest" or "center".')
    if along not in (None, _third_of(dims[0]), *(("channel",) if "channel" in dims[0] else ())):
        raise PlotError(f"along={along!r} must be {_third_of(dims[0])!r}, or 'channel' where there are channels.")
    if max_samples < 1 or max_frames < 1:
        raise PlotError(f"max_samples={max_samples} and max_frames={max_frames} must be at least 1.")
    if not (0 < alpha_overlay <= 1 and 0 <= outlier_perc < 100 and panel_size > 0):
        raise PlotError("alpha_overlay must lie in (0, 1], outlier_perc in [0, 100), and panel_size above 0.")
