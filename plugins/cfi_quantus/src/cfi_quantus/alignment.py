"""Attributions brought to the inputs: in their axes, or as a map of their spatial size; what was done is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cfi_core import Attribution
from cfi_core.errors import ArgumentError, InputError
from cfi_quantus.layout import CHANNEL, Layout

CHANNELS = ("sum", "mean", "norm")
RESIZING = ("nearest", "bilinear")


@dataclass(frozen=True)
class Values:
    """Attributions of one method.

    Attributes:
        array: In the user's axes; without the channel axis if it is a map.
        is_map: Whether it is one.
        applied: What was done to the values, in words.
    """

    array: np.ndarray
    is_map: bool
    applied: str

    def show(self, layout: Layout) -> np.ndarray:
        """Before Quantus."""
        return layout.show_map(self.array) if self.is_map else layout.show(self.array)


@dataclass(frozen=True)
class Alignment:
    """How attributions are brought to inputs.

    Attributes:
        dims: Names of the inputs' axes.
        channels: How channels are put together: `"sum"`, `"mean"`, `"norm"` (Euclidean); None: they are not.
        resize: How maps of another size are resized: `"nearest"`, `"bilinear"`; None: they are refused.
    """

    dims: tuple[str, ...]
    channels: str | None = None
    resize: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("channels", CHANNELS), ("resize", RESIZING)):
            if (given := getattr(self, name)) not in (None, *known):
                raise ArgumentError(f"{name}={given!r} is none of {', '.join(map(repr, known))}, or None.")

    def align(self, label: str, attributions: Any, shape: Sequence[int]) -> Values:
        """Values for inputs of a shape, in the axes of both.

        Raises:
            InputError: They belong to other inputs, or are those of a layer.
        """
        array, is_map = _read(label, attributions, self.dims, tuple(shape))
        applied = []
        if is_map and array.shape[1:] != self._spatial(shape):
            array = self._resize(label, array, self._spatial(shape))
            applied.append(f"resized ({self.resize})")
        if not is_map and self.channels is not None and CHANNEL in self.dims:
            array, is_map = _reduce(array, self.dims.index(CHANNEL), self.channels), True
            applied.append(f"{self.channels} over channels")
        return Values(array, is_map, ", ".join(applied) or "nothing")

    def _spatial(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(size for name, size in zip(self.dims, shape, strict=True) if name not in ("sample", CHANNEL))

    def _resize(self, label: str, array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        if self.resize is None:
            raise InputError(
                f"The attributions {label!r} are a map of size {array.shape[1:]} for inputs of size {size}. Pass "
                f"resize='bilinear' (or 'nearest') to stretch them, or let the method do it."
            )
        return _stretch(array, size, self.resize)


def _read(label: str, given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """The values, and whether they are a map."""
    has_channels = CHANNEL in dims
    if isinstance(given, Attribution):
        if isinstance(given.values, tuple):
            raise InputError(f"The attributions {label!r} are of several inputs or layers; Quantus takes those of one.")
        values, axes = given.values, given.dims
        if isinstance(values, Mapping) and isinstance(axes, Mapping) and len(values) == 1:  # of one input by its name
            ((name, values),) = values.items()
            axes = axes[name]
        array, names = np.asarray(values), tuple(axes)
        is_map = has_channels and names == tuple(name for name in dims if name != CHANNEL)
        fits = names == dims and array.shape == shape
        if not (fits or is_map):
            raise InputError(
                f"The attributions {label!r} have the axes {names} of shape {array.shape}, the inputs {dims} of shape "
                f"{shape}. Pass attributions of the inputs, or a map over them."
            )
    else:
        array = np.asarray(given)
        fits = array.shape == shape
        is_map = not fits and has_channels and array.ndim == len(shape) - 1
        if not (fits or is_map):
            raise InputError(
                f"The attributions {label!r} have shape {array.shape}, the inputs {shape}: pass values of the same "
                f"shape, or without the channel axis."
            )
    if len(array) != shape[0]:
        raise InputError(f"The attributions {label!r} are of {len(array)} samples, the inputs of {shape[0]}.")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"The attributions {label!r} are no finite numbers.")
    return array.astype(np.result_type(array, np.float32)), is_map


def _reduce(array: np.ndarray, axis: int, how: str) -> np.ndarray:
    if how == "norm":
        return np.asarray(np.linalg.norm(array, axis=axis))
    return np.asarray(array.sum(axis) if how == "sum" else array.mean(axis))


def _stretch(array: np.ndarray, size: tuple[int, ...], how: str) -> np.ndarray:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)] if how == "bilinear" else "nearest"
    corners = {} if mode == "nearest" else {"align_corners": False}
    stretched = torch.nn.functional.interpolate(torch.from_numpy(array[:, None]), size, mode=mode, **corners)
    return np.asarray(stretched[:, 0].numpy())
