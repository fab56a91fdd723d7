"""How attributions are drawn: over the pictures that the user named, whatever the model makes of them first."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from cfi_core import Attribution
from cfi_core.requirements import unmet
from cfi_core.specs import Kind, resolve

_DOTS_PER_INCH = 110
_SPACE = {"height", "width"}
MOST = 8
"""Samples that are drawn one by one."""


def options_for(
    attribution: Attribution, pictures: Sequence[np.ndarray], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Options of the plotter: the pictures, where they show what the model saw, and the names of the classes.

    Args:
        attribution: What is to be drawn.
        pictures: `(height, width, 3)` of bytes, one for each sample, or none.
        names: Of the classes, where the model knows none.
    """
    if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION or not _are_maps(attribution, pictures):
        return {}
    wanted = {"images": list(pictures), "target_names": None if names is None else list(names)}
    known = _options_of_plotter(attribution)
    return {name: value for name, value in wanted.items() if value is not None and name in known}


def _are_maps(attribution: Attribution, pictures: Sequence[np.ndarray]) -> bool:
    """Whether the values lie over the pictures, which are as large as what the model got."""
    if not pictures or len(attribution.inputs) != 1 or not all(set(dims) >= _SPACE for _, dims in attribution.parts):
        return False
    ((array,), (dims,)) = attribution.inputs, attribution.input_dims
    if not set(dims) >= _SPACE or len(array) != len(pictures):
        return False
    size = (array.shape[dims.index("height")], array.shape[dims.index("width")])
    return all(picture.shape[:2] == size for picture in pictures)


def _options_of_plotter(attribution: Attribution) -> set[str]:
    """Those of the plotter that will draw it."""
    for spec in attribution.outlets.plotters.values():
        if all(set(spec.accepts) <= set(dims) for _, dims in attribution.parts) and not unmet(spec.requirements):
            return set(signature(resolve(spec.implementation)).parameters)
    return set()


def draw_each(attribution: Attribution, options: Mapping[str, Any] | None = None) -> list[bytes]:
    """Maps sample by sample, which can be read on a narrow screen too; anything else in one picture.

    Raises:
        PlotError: No plotter accepts it.
    """
    single = {"samples", "title"} <= _options_of_plotter(attribution)
    if not single or not all(set(dims) >= _SPACE for _, dims in attribution.parts):
        return [draw(attribution, options)]
    count = min(MOST, len(attribution.parts[0][0]))
    return [draw(attribution, {**(options or {}), "samples": [i], "title": ""}) for i in range(count)]


def draw(attribution: Attribution, options: Mapping[str, Any] | None = None) -> bytes:
    """An attribution as a PNG file.

    Raises:
        PlotError: No plotter accepts it.
    """
    return as_png(attribution.plot(show=False, **(options or {})))  # a notebook that calls for a report shows none


def as_png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
    return stream.getvalue()
