"""Maps over images, in the ways that Captum's `visualize_image_attr` has, and images alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import Block
from cfi_matplotlib.panels import Bar, Panel
from cfi_matplotlib.pictures import IMAGE, Picture
from cfi_matplotlib.remarks import warning_of, write_into
from cfi_matplotlib.scales import NOT_FINITE, Scale, of_sign, scale_of, unit_range
from cfi_matplotlib.style import Style, View

_LEVELS, _LIGHTNESS = 256, 64  # of a colour bar
_RING, _FAINT = "#00a0a0", 0.1
_WEAK = 0.7  # power of a strength that its opacity has: below 1, so that values of a tenth are still seen


def panels_of_maps(block: Block, row: int, style: Style, shared: np.ndarray | None = None) -> list[Panel]:
    """The picture, and each map in each view; the maps of a view share a scale, whose bar stands behind the last.

    Args:
        block: What is drawn.
        row: Which sample.
        style: How.
        shared: The values that decide about the scale, where it is not that of the sample alone.

    Raises:
        PlotError: A view needs a picture, and there is none.
    """
    values, picture = block.values[row], block.pictures[row]
    panels = []
    shows_picture = any(view.method == "original_image" for view in style.views)
    if picture is not None and style.show_input and not shows_picture:
        panels.append(panel_of_picture(picture))
    views = [_settled(view, picture, values.shape[1:]) for view in style.views]
    for view in views:
        if view.method == "original_image":
            panels.append(panel_of_picture(_needed(picture, view)))
            continue
        kept = of_sign(values, view.sign)
        # One kind of scale for all rows of a figure, so that they can be compared.
        decisive = block.values if shared is None else shared
        signed = view.sign == "all" and (block.is_difference or bool((decisive < 0).any()))
        scale = scale_of(
            kept if shared is None else of_sign(shared, view.sign),
            view.sign,
            style,
            signed=signed,
            over=view.method == "blended_heat_map",
        )
        told = "" if len(views) == 1 else view.label if (block.values < 0).any() else view.words
        labels = [", ".join(filter(None, (told, one))) for one in block.labels]
        made = [
            _of_map(one, label, view, scale, picture, style, block) for one, label in zip(kept, labels, strict=True)
        ]
        if style.show_colorbar:
            made[-1] = replace(made[-1], bar=_bar(view, scale, style, block.scale_label))
        panels += made
    return panels


def panels_of_pictures(block: Block, row: int) -> list[Panel]:
    """Images that a feature visualization made, from the lowest to the highest of their values."""
    return [_of_made(values, label) for values, label in zip(block.values[row], block.labels, strict=True)]


def notes_on_maps(block: Block, style: Style) -> Iterator[str]:
    """What the reader must know of how the maps were drawn."""
    yield from chain.from_iterable(picture.notes for picture in block.pictures if picture is not None)
    shape = block.values.shape[2:4]
    for view in style.views:
        for picture in block.pictures:
            method = _settled(view, picture, shape).method
            if method == "original_image" or (method == "heat_map" and style.interpolation != "bilinear"):
                continue
            if method == "heat_map" or (picture is not None and tuple(picture.size) != shape):
                how = "not interpolated" if style.interpolation == "nearest" else "interpolated"
                yield f"maps of {shape[0]} × {shape[1]} values, {how}"
    if len(style.views) == 1 and style.views[0].sign != "all":
        yield style.views[0].sign_in_words


def blend(method: str, values: np.ndarray, scale: Scale, pixels: np.ndarray, alpha_overlay: float) -> np.ndarray:
    """Colours of values over a picture, as each of Captum's methods has them.

    A heat map lies over the picture in grey, and is the less opaque the weaker a value is: zero leaves the picture as
    it is, and the end of the scale has `alpha_overlay`.

    Args:
        method: One of `METHODS` that shows values.
        values: In any shape.
        scale: Their colours.
        pixels: The picture under each value, with red, green and blue on a last axis.
        alpha_overlay: Opacity of the strongest values.

    Returns:
        Red, green and blue, and opacity for `"alpha_scaling"`, on a last axis. What is not finite is pink.
    """
    strength, broken = scale.strength(values)[..., None], ~np.isfinite(values)
    if method == "alpha_scaling":
        drawn = np.concatenate([pixels, strength], axis=-1)
    elif method == "masked_image":
        drawn = pixels * strength
    elif method == "blended_heat_map":
        grey = (pixels @ (0.299, 0.587, 0.114))[..., None]
        opacity = alpha_overlay * strength**_WEAK
        drawn = (1 - opacity) * grey + opacity * scale.color(values)
    else:
        drawn = scale.color(values)
    drawn[broken, :3] = to_rgb(NOT_FINITE)
    return np.clip(drawn, 0, 1)


def stretch(values: np.ndarray, size: Sequence[int], interpolation: str) -> np.ndarray:
    """A map of more pixels, whose outermost ones keep the place that their borders have.

    Args:
        values: Height and width first.
        size: Height and width that are wanted.
        interpolation: `"nearest"`, or `"bilinear"`: a value stands in the middle of the part that it is of.
    """
    for axis, number in enumerate(size):
        places = (np.arange(number) + 0.5) * values.shape[axis] / number
        if interpolation == "nearest":
            values = values.take(places.astype(int), axis=axis)
            continue
        places = (places - 0.5).clip(0, values.shape[axis] - 1)
        low = places.astype(int)
        high, share = np.minimum(low + 1, values.shape[axis] - 1), places - low
        share = share.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
        # Of two equal values none but the same; a value that is not finite spreads as far as it is mixed in.
        values = values.take(low, axis=axis) * (1 - share) + values.take(high, axis=axis) * share
    return values


def _settled(view: View, picture: Picture | None, shape: Sequence[int]) -> View:
    """With its method: a map as fine as its picture is lost in that, one of few values does not tell where they lie."""
    if view.method is not None:
        return view
    over = picture is not None and _is_coarse(shape, picture)
    return replace(view, method="blended_heat_map" if over else "heat_map")


def _is_coarse(shape: Sequence[int], picture: Picture) -> bool:
    """Whether the map has at most half as many values along a side as the model got pixels."""
    return bool(max(np.divide(picture.size, shape)) >= 2.0)


def _needed(picture: Picture | None, view: View) -> Picture:
    if picture is None:
        raise PlotError(
            f"method={view.method!r} needs the picture that was explained, and none came with the attribution: "
            f"pass it as images=, or take method='heat_map'."
        )
    return picture


def panel_of_picture(picture: Picture) -> Panel:
    """The picture alone."""

    def draw(axis: Axes) -> None:
        _show(axis, picture.pixels)
        write_into(axis, picture.warning)

    return Panel(draw, picture.pixels.shape[:2], picture.label)


def _of_map(
    values: np.ndarray, label: str, view: View, scale: Scale, picture: Picture | None, style: Style, block: Block
) -> Panel:
    """One map; a heat map keeps its values in the picture, so that they can be read where the figure is alive."""
    is_image = block.axes == IMAGE
    behind = None if picture is None or view.method == "heat_map" else _needed(picture, view)
    if view.method != "heat_map":
        behind = _needed(picture, view)
    shape = values.shape if picture is None else picture.pixels.shape[:2]

    def draw(axis: Axes) -> None:
        if behind is None:
            drawn = _smooth(values) if style.interpolation == "bilinear" and is_image else values
            axis.imshow(
                np.ma.masked_invalid(drawn), cmap=scale.colors, norm=scale.norm, interpolation="nearest", aspect="auto"
            )
        else:
            _show(axis, _over(values, view, scale, behind, style))
        if not is_image:
            axis.set_ylabel(block.axes[0], fontsize=8)
            axis.set_xlabel(block.axes[1], fontsize=8)
            axis.tick_params(labelsize=7)
        else:
            axis.set_xticks([])
            axis.set_yticks([])
        write_into(axis, warning_of(values) or _mark_few(axis, values, scale))

    return Panel(draw, shape if is_image else (3, 4), label, is_chart=not is_image)


def _mark_few(axis: Axes, values: np.ndarray, scale: Scale) -> str:
    """Rings what would be too small to be seen, where nothing else is strong, and says how little it is."""
    places = np.argwhere(scale.strength(values) > _FAINT)
    if len(places) * 2000 > values.size:
        return ""
    for row, column in places[:5]:
        at = ((column + 0.5) / values.shape[1], 1 - (row + 0.5) / values.shape[0])
        axis.plot(*at, "o", ms=9, mfc="none", mec=_RING, mew=1.2, transform=axis.transAxes)
    return f"{len(places)} of {values.size} values above a tenth of the scale"


def _over(values: np.ndarray, view: View, scale: Scale, picture: Picture, style: Style) -> np.ndarray:
    """The map over the picture, at the larger resolution of the two."""
    pixels = picture.pixels
    size = [max(pair) for pair in zip(values.shape, pixels.shape[:2], strict=True)]
    if list(pixels.shape[:2]) != size:
        pixels = stretch(pixels, size, "nearest")
    if list(values.shape) != size:
        values = stretch(values, size, style.interpolation or "bilinear")
    return blend(str(view.method), values, scale, pixels, style.alpha_overlay)


def _smooth(values: np.ndarray) -> np.ndarray:
    factor = max(1, -(-256 // max(values.shape)))
    return stretch(values, [factor * side for side in values.shape], "bilinear")


def _show(axis: Axes, drawn: np.ndarray) -> None:
    # Pixels of small images stay squares; large ones are drawn smaller than they are, without losing lines.
    axis.imshow(drawn, interpolation="nearest" if max(drawn.shape[:2]) < 128 else "auto", aspect="auto")
    axis.set_xticks([])
    axis.set_yticks([])


def _bar(view: View, scale: Scale, style: Style, label: str) -> Bar:
    """The colours of the view as they are over black to white, for the values of the scale."""
    levels = np.linspace(scale.low, scale.high, _LEVELS)[:, None]
    lightness = np.linspace(0, 1, 1 if view.method == "heat_map" else _LIGHTNESS)
    levels, lightness = np.broadcast_arrays(levels, lightness)
    pixels = np.repeat(lightness[..., None], 3, axis=-1)
    colors = blend(str(view.method), levels, scale, pixels, style.alpha_overlay)
    return Bar(colors, scale.low, scale.high, scale.below, scale.above, label)


def _of_made(values: np.ndarray, label: str) -> Panel:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    pixels = unit_range(values)
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    told = f"black to white: {low:.3g} to {high:.3g}".replace("-", "−")

    def draw(axis: Axes) -> None:
        _show(axis, pixels)
        write_into(axis, warning_of(values))

    return Panel(draw, pixels.shape[:2], "\n".join(filter(None, (label, told))))
