"""The 8-bit pictures that tf-explain's `explain` returns, and the part of each sample in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import ArgumentError, LayerError, ModelWarning, TargetError, warn
from cfi_core.silence import without_warnings
from cfi_core.specs import Head
from cfi_tfexplain.model import check_images, check_map, graph_of, patch_sizes, taps
from cfi_tfexplain.table import METHODS, MULTIPLY
from cfi_tfexplain.workarounds import GREY, UNSTRUCTURED, UNSUPPORTED, own_tool, quiet, quiet_graphs

_OF_THE_MODEL = ("saliency", "input_x_gradient")
_OVER_THE_IMAGE = ("occlusion", "grad_cam")


def run_picture(request: MethodRequest, images: np.ndarray) -> MethodResult:
    """What `explain` gives, to the bit: the grid in `extras["picture"]`, and its tiles as the values of the samples.

    Raises:
        ArgumentError: Settings that tf-explain does not have.
        TargetError: A target that tf-explain cannot be told.
        MethodError: A model that tf-explain cannot look into.
    """
    key, method = request.method.key, METHODS[request.method.key]
    colours = key in _OVER_THE_IMAGE
    check_images(request, images, "tf-explain's picture", colours=colours)
    graph_of(request.model)
    settings = _settings(request)
    sizes = patch_sizes(request) if key == "occlusion" else ()
    tool = own_tool(method.tool, request.seed, compiled=True)
    draw = _drawing(request, tool, images)
    applied: dict[str, Any] = {"picture": method.deviation, **{name: repr(value) for name, value in settings.items()}}
    with without_warnings(UNSTRUCTURED, UNSUPPORTED):
        grids = [draw(**settings | {"patch_size": size}) for size in sizes] or [draw(**settings)]
    extras: dict[str, Any] = {"picture": grids[0]}
    if len(sizes) > 1:
        extras |= {"patch_sizes": list(sizes), "pictures": np.stack(grids)}
    if key == "layer_activation":
        return _of_activations(request, extras, applied, len(images))
    tiles = split(grids[0], len(images), images.shape[1:3])
    return MethodResult((tiles,), Axes.INPUT if colours else Axes.INPUT_MAP, extras, applied)


def split(grid: np.ndarray, count: int, size: tuple[int, ...]) -> np.ndarray:
    """The first `count` tiles of a grid as `grid_display` makes it: as many columns as rows, filled row by row.

    Args:
        grid: Of shape (rows × height, columns × width, …).
        count: Number of tiles that are no filling.
        size: Height and width of one.
    """
    side = math.ceil(math.sqrt(count))
    height, width = size
    rows = grid.reshape(side, height, side, width, *grid.shape[2:]).swapaxes(1, 2)
    return rows.reshape(side * side, height, width, *grid.shape[2:])[:count]


def _settings(request: MethodRequest) -> dict[str, Any]:
    """The arguments of `explain` besides data, model and class, and nothing that tf-explain does not have."""
    if request.baselines is not None:
        raise ArgumentError("tf-explain's picture has its own baseline; pass exec_args={'picture': False} with yours")
    if request.exec_args.get(MULTIPLY):
        raise ArgumentError(f"tf-explain's picture cannot have {MULTIPLY}=True; pass exec_args={{'picture': False}}")
    own = {name: value for name, value in request.exec_args.items() if name not in ("picture", MULTIPLY)}
    if isinstance(own.get("noise"), str):
        raise ArgumentError(f"tf-explain's picture takes noise as a number, got {own['noise']!r}")
    return own


def _drawing(request: MethodRequest, tool: Any, images: np.ndarray) -> Callable[..., np.ndarray]:
    """The call of the tool that draws, which takes its settings."""
    key, model, data = request.method.key, request.model, (images, None)
    if key == "layer_activation":
        name = _layer(request)
        instance = quiet_graphs(tool)(**request.init_args)
        return lambda: instance.explain(data, model, [name])
    class_index = _class_index(request)
    if key in _OF_THE_MODEL:
        if request.head is Head.LOGIT:  # what tf-explain looks for at the model's end has been cut off already
            return lambda: tool().explain_score_model(data, model, class_index)
        return lambda: tool().explain(data, model, class_index)
    if key == "occlusion":
        _tell_of_the_patch(images)
        instance = tool(**request.init_args)
        return lambda **own: instance.explain(data, quiet(model), class_index, **own)
    if key == "grad_cam":
        name = _layer(request)
        return lambda **own: tool().explain(data, model, class_index, layer_name=name, **own)
    return lambda **own: tool().explain(data, model, class_index, **own)


def _class_index(request: MethodRequest) -> int:
    target = request.target
    index = None if target is None or target.output is not None else target.index
    if index is None or len(set(target.indices(len(request.inputs[0])))) != 1 or len(target.indices(1)[0]) != 1:  # type: ignore[union-attr]
        raise TargetError(
            "tf-explain's picture explains one class, the same for all samples, of a model with one output of shape "
            "(samples, classes); pass target=<class>, or exec_args={'picture': False}"
        )
    return int(target.indices(1)[0][0])  # type: ignore[union-attr]


def _layer(request: MethodRequest) -> str:
    if len(request.layer) != 1:
        raise LayerError(f"tf-explain draws one layer, got {len(request.layer)}; call it once for each")
    (tap,) = taps(request)
    check_map(request, tap)
    if request.layer[0].output is not tap.activation:
        raise LayerError(
            f"layer {tap.name!r} is part of several models, and tf-explain would read what it gives in another one; "
            "pass exec_args={'picture': False}"
        )
    return tap.name


def _tell_of_the_patch(images: np.ndarray) -> None:
    if not images.min() <= GREY <= images.max():
        warn(
            f"tf-explain covers patches with {GREY}, which lies outside of these inputs ({images.min():.3g} to "
            f"{images.max():.3g}): it is no grey to this model. Pass exec_args={{'picture': False}}, and baselines=.",
            ModelWarning,
        )


def _of_activations(
    request: MethodRequest, extras: dict[str, Any], applied: dict[str, Any], samples: int
) -> MethodResult:
    """The tiles are channels: all of the first sample first."""
    grid = extras["picture"]
    channels = int(taps(request)[0].activation.shape[-1])
    side = math.ceil(math.sqrt(samples * channels))
    size = (grid.shape[0] // side, grid.shape[1] // side)
    tiles = split(grid, samples * channels, size).reshape(samples, channels, *size)
    return MethodResult((np.moveaxis(tiles, 1, -1),), Axes.LAYER, extras, applied)
