"""Where in a user's picture the pixels lie that a model is given, and values brought back to there.

An image processor is asked, not read: it is given a picture whose colours say where they are. What it makes of that is
a straight line along each axis if it resizes and crops, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import load_image

from cfi_core.contract import Axes
from cfi_core.errors import InputError

_STEPS = 253  # of the ramps, which end before black and white
_SHADES = 16  # ramps that are averaged: each is rounded elsewhere
_LOOSE = 0.25  # of a pixel: nearer than that, a number of pixels is meant to be whole
_APART = 3.0  # steps of colour that rounding, of the picture and of the processor, explains
_OF_PIXELS = (Axes.INPUT, Axes.INPUT_MAP)
_MAPS = (Axes.LAYER_MAP, Axes.INPUT_SIZED_MAP)


@dataclass(frozen=True)
class Span:
    """What of an axis of the user's picture the model is given, in pixels from the user's first one.

    Attributes:
        size: Of the user's axis.
        start: Where the first of the model's pixels begins.
        step: How many of the user's pixels each of the model's is wide.
        count: How many these are.
    """

    size: int
    start: float
    step: float
    count: int

    def shares(self, cells: int) -> np.ndarray:
        """Which share of each cell lies in each of the user's pixels, `(size, cells)`.

        The cells divide what the model is given evenly.
        """
        width = self.step * self.count / cells
        starts = self.start + width * np.arange(cells)
        pixels = np.arange(self.size)[:, None]
        overlap = np.minimum(pixels + 1, starts + width) - np.maximum(pixels, starts)
        return np.clip(overlap, 0, None) / width

    def covers(self, cells: int) -> np.ndarray:
        """Which share of each of the user's pixels lies in each cell."""
        return self.shares(cells) * (self.step * self.count / cells)


@dataclass(frozen=True, eq=False)
class Pictures:
    """The user's pictures, and what a processor does with them.

    Attributes:
        images: Arrays `(height, width, colours)` or `(colours, height, width)`.
        prepare: From one of them to what the model is given, `(colours, height, width)`.
    """

    images: Sequence[np.ndarray]
    prepare: Callable[[np.ndarray], np.ndarray]

    @cached_property
    def frames(self) -> tuple[tuple[Span, Span], ...]:
        """Of each picture, what of its height and width the model is given; empty where it cannot be told."""
        if len({image.shape for image in self.images}) > 1:
            return ()
        found = find_frame(self.images[0], self.prepare)
        return () if found is None else (found,) * len(self.images)

    @property
    def found(self) -> str:
        """What was found, in words."""
        if self.frames:
            rows, columns = self.frames[0]
            ends = [f"{span.start:g} to {span.start + span.step * span.count:g}" for span in (rows, columns)]
            return f"rows {ends[0]} and columns {ends[1]} of those given, resized and normalised"
        if len({image.shape for image in self.images}) > 1:
            return "of pictures of different sizes, which no one array can hold"
        return "not by resizing and cropping alone"

    @property
    def shown(self) -> tuple[tuple[np.ndarray, tuple[str, ...]], ...]:
        """The user's pictures as one array, where they have one size."""
        if not self.frames:
            return ()
        return ((np.stack(self.images), ("sample", *_axes(self.images[0]))),)

    def bring_home(
        self, values: np.ndarray, dims: tuple[str, ...], axes: Axes
    ) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Values of pixels, or maps, on the user's pixels; None of anything else.

        The value of a pixel is divided among the user's pixels that it was made of, so that the sum stays; a map has at
        each of the user's pixels what it has there, and 0 where the model saw nothing.
        """
        if not {"sample", "height", "width"} <= set(dims) <= {"sample", "channel", "height", "width"}:
            return None
        if axes not in (*_OF_PIXELS, *_MAPS):
            return None
        order = [name for name in ("sample", "channel", "height", "width") if name in dims]
        turned = values.transpose([dims.index(name) for name in order])
        home = [self._place(one, frame, axes in _MAPS) for one, frame in zip(turned, self.frames, strict=True)]
        own = [name for name in ("sample", *_axes(self.images[0])) if name in order]
        placed = np.stack(home).astype(values.dtype)
        return placed.transpose([order.index(name) for name in own]), tuple(own)

    def _place(self, values: np.ndarray, frame: tuple[Span, Span], is_map: bool) -> np.ndarray:
        rows, columns = (
            span.covers(cells) if is_map else span.shares(cells)
            for span, cells in zip(frame, values.shape[-2:], strict=True)
        )
        return rows @ values.astype(np.float64) @ columns.T


def as_pictures(inputs: Any) -> list[np.ndarray]:
    """Each picture as an array of bytes with three colours; paths and pictures of PIL are read as the pipeline does.

    Raises:
        InputError: Something is no picture.
    """
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        inputs = list(inputs)
    listed = inputs if isinstance(inputs, list | tuple) else [inputs]
    if not listed:
        raise InputError("inputs is empty. Pass a picture, or a list of pictures.")
    return [_as_picture(one) for one in listed]


def _as_picture(one: Any) -> np.ndarray:
    if isinstance(one, str | Image.Image):
        return np.asarray(load_image(one))
    array = np.asarray(one)
    if array.ndim != 3 or array.dtype != np.uint8 or 3 not in (array.shape[0], array.shape[-1]):
        raise InputError(
            f"An array of {array.dtype} and shape {array.shape} is no picture for this pipeline. Pass pictures of PIL, "
            f"paths, or arrays of uint8 of shape (height, width, 3); what the model itself takes goes by its name: "
            f"inputs={{'pixel_values': …}}."
        )
    return array


def as_pil(image: np.ndarray) -> Image.Image:
    """An array as every version of the pipelines takes it."""
    return Image.fromarray(image if _axes(image)[-1] == "channel" else np.ascontiguousarray(image.transpose(1, 2, 0)))


def find_frame(image: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray]) -> tuple[Span, Span] | None:
    """What of a picture of that shape a processor gives on; None where it does more than resize and crop."""
    axes = _axes(image)
    height, width = (image.shape[axes.index(name)] for name in ("height", "width"))
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    ramps = np.stack([_STEPS * columns / width, _STEPS * rows / height, 0 * rows], axis=-1) + 1
    flat = np.ones_like(ramps)
    low, high = (prepare(_like(one, axes)) for one in (flat, flat + _STEPS))
    if low.ndim != 3 or len(low) != 3 or not np.abs(high - low).min() > 0:
        return None
    shades = (np.arange(_SHADES) + 0.5) / _SHADES - 0.5
    seen = np.mean([prepare(_like(ramps + shade, axes)) for shade in shades], axis=0, dtype=np.float64)
    levels = (seen - low) / (high - low)  # 0 … 1, whatever the normalisation
    if np.abs(levels[2]).max() * _STEPS > _APART:
        return None
    across, down = _line(levels[0], width), _line(levels[1].T, height)
    return None if across is None or down is None else (down, across)


def _line(levels: np.ndarray, size: int) -> Span | None:
    """The straight line along the last axis, from shares of the user's axis; None if it is none, or differs."""
    count = levels.shape[-1]
    places = np.arange(count) + 0.5
    # At its ends a picture is continued by its last pixels.
    inner = slice(count // 8, count - count // 8) if count >= 8 else slice(None)
    along = levels.mean(0) * size
    if count < 2:
        return None
    step, start = np.polyfit(places[inner], along[inner], 1)
    bound = _APART * max(size / _STEPS, step)
    if step <= 0 or np.abs(levels * size - (start + step * places)).max() > bound + step:
        return None
    return _whole(Span(size, float(start), float(step), count))


def _whole(span: Span) -> Span:
    """The span of a picture that was resized to a whole number of pixels, of which a whole number was left out."""
    resized = span.size / span.step
    left_out = span.start / span.step
    if abs(resized - round(resized)) > _LOOSE or abs(left_out - round(left_out)) > _LOOSE:
        return span
    step = span.size / round(resized)
    return Span(span.size, round(left_out) * step, step, span.count)


def _axes(image: np.ndarray) -> tuple[str, ...]:
    first = image.shape[-1] != 3
    return ("channel", "height", "width") if first else ("height", "width", "channel")


def _like(picture: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    plain = np.round(picture).astype(np.uint8)
    return plain if axes[-1] == "channel" else plain.transpose(2, 0, 1)
