"""From a gradient to what a method gives: its channels left as they are or made one, resized, smoothed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfi_core.contract import Axes, MethodRequest
from cfi_core.errors import ArgumentError, LayerError
from cfi_core.specs import resolve
from cfi_torchray.library import common, utils
from cfi_torchray.plugin import REDUCTION
from cfi_torchray.workarounds import stretch

Reduction = Callable[[Tensor], Tensor]

MODES = ("nearest", "bilinear", "bicubic", "area")


@dataclass(frozen=True)
class Gradient:
    """A tensor and its gradient, as TorchRay's functions of both take them: channels second."""

    value: Tensor
    grad: Tensor


def max_abs(x: Any) -> Tensor:
    """The largest magnitude among the channels, `(samples, 1, …)` (Simonyan et al. 2013)."""
    found: Tensor = common.gradient_to_saliency(x)
    return found


def norm(x: Any) -> Tensor:
    """The Euclidean norm over the channels, `(samples, 1, …)`."""
    return x.grad.norm(dim=1, keepdim=True)


def total(x: Any) -> Tensor:
    """The sum over the channels, with its sign, `(samples, 1, …)`."""
    return x.grad.sum(1, keepdim=True)


def linear(x: Any) -> Tensor:
    """The sum over the channels of activation times gradient, `(samples, 1, …)`."""
    return (x.detach() * x.grad).sum(1, keepdim=True)


def weighted_sum(x: Any) -> Tensor:
    """Grad-CAM before its rectifier: activations weighted by the mean gradient of their channel, `(samples, 1, …)`."""
    spatial = tuple(range(2, x.dim()))
    return (x.detach() * x.grad.mean(spatial, keepdim=True)).sum(1, keepdim=True)


NAMED: dict[str, Reduction] = {
    "max": max_abs,
    "norm": norm,
    "sum": total,
    "linear": linear,
    "weighted sum": weighted_sum,
}


def reduction(chosen: Any) -> Reduction | None:
    """The function that a user named, or gave; None leaves all channels as they are.

    Raises:
        ArgumentError: There is none of that name.
    """
    if chosen is None or (callable(chosen) and not isinstance(chosen, str)):
        return chosen
    if isinstance(chosen, str) and chosen in NAMED:
        return NAMED[chosen]
    if isinstance(chosen, str) and ":" in chosen:
        return resolve(chosen)
    raise ArgumentError(
        f"{REDUCTION}={chosen!r} is unknown. Choose one of {', '.join(map(repr, NAMED))}, None for all channels, or "
        "pass a function of a tensor with a gradient, as TorchRay takes it."
    )


def reduce(x: Tensor, chosen: Any, channel: int | None) -> tuple[Tensor, bool]:
    """What a method gives of a tensor with a gradient, and whether its channels were made one (which is left out).

    Args:
        x: Tensor with `.grad`, in the axes of the model that ran.
        chosen: As `reduction` takes it.
        channel: Its channel axis.

    Raises:
        ArgumentError: There are no channels to reduce, or a function of the user's gave something else than a map.
    """
    function = reduction(chosen)
    if function is None:
        return x.grad.detach(), False
    if channel is None:
        raise ArgumentError(
            f"{REDUCTION}={chosen!r} makes one map of the channels, and what is explained, of shape {tuple(x.shape)}, "
            "has no channel axis. Leave it out (None) for the gradient itself."
        )
    if channel != 1:
        moved = x.detach().movedim(channel, 1)
        moved.grad = x.grad.movedim(channel, 1)
        x = moved
    found = function(x)
    if not isinstance(found, Tensor) or found.shape != (len(x), 1, *x.shape[2:]):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ArgumentError(
            f"{REDUCTION} must give a map of shape {(len(x), 1, *x.shape[2:])}, one channel for each sample, but gave "
            f"{shape}. Reduce axis 1 and keep it."
        )
    return found.detach(), True


def finish(request: MethodRequest, x: Tensor, reference: Tensor, channel: int | None) -> tuple[Tensor, Axes]:
    """The values of a request: reduced, resized to the input and smoothed where it says so, and their axes.

    Args:
        request: Its `exec_args` say what is done.
        x: Tensor with a gradient, of a layer or of the input.
        reference: The input with its channels second.
        channel: Channel axis of `x`.
    """
    call, at_layer = request.exec_args, bool(request.layer)
    values, is_map = reduce(x, call.get(REDUCTION), channel)
    if len(values) != len(reference):
        raise LayerError(
            f"The layer's output of shape {tuple(x.shape)} does not hold the {len(reference)} samples first."
        )
    resized = check_resize(call.get("resize", False), call.get("resize_mode", "bilinear"), reference, is_map)
    if resized and is_map:
        values = stretch(reference, values, call.get("resize_mode", "bilinear"))
    values = _smooth(values, float(call.get("smooth", 0.0)))
    if not is_map:
        return values, Axes.LAYER if at_layer else Axes.INPUT
    axes = Axes.INPUT_MAP if not at_layer else Axes.INPUT_SIZED_MAP if resized else Axes.LAYER_MAP
    return values.squeeze(1), axes


def check_resize(resize: Any, mode: Any, reference: Tensor, is_map: bool) -> bool:
    """Whether a map is to be stretched over the input.

    Raises:
        ArgumentError: To something that has no axes in the user's model, or in a way that there is not.
    """
    size = list(resize) if isinstance(resize, (tuple, list)) else None
    if size is not None and reference.dim() == 4 and size == [reference.shape[3], reference.shape[2]]:
        resize = True
    if resize not in (True, False):
        raise ArgumentError(
            f"resize={resize!r}: a map is given at its own size (False) or at the input's (True). Stretch the values "
            "yourself to make another one of them."
        )
    if not resize:
        return False
    if mode not in MODES:
        raise ArgumentError(f"resize_mode={mode!r} is unknown. Choose one of {', '.join(map(repr, MODES))}.")
    if not is_map:
        raise ArgumentError(
            f"resize stretches a map over the input: pass {REDUCTION} too ({', '.join(map(repr, NAMED))})."
        )
    if reference.dim() != 4:
        raise ArgumentError(f"resize stretches maps of images, and the input has {reference.dim()} axes. Leave it out.")
    return True


def _smooth(values: Tensor, smooth: float) -> Tensor:
    if smooth < 0:
        raise ArgumentError(f"smooth={smooth} is the width of a Gaussian, as a part of the longer side: 0 or more.")
    if not smooth:
        return values
    if values.dim() != 4:
        raise ArgumentError(f"smooth blurs images, and these values have {values.dim()} axes. Leave it out.")
    with torch.no_grad():
        blurred: Tensor = utils.imsmooth(values.float(), smooth * max(values.shape[2:]), padding_mode="replicate")
    return blurred.to(values.dtype)
