"""Faults of TorchRay 1.0.0.2 and what is done about each; a test for each fails when TorchRay no longer has it.

Those that do not change values are worked around always (`rules.py` and `explained.py` say where):

- after an error parameters stay without gradients, probes stay on the model, and the model in inference mode; the
  contrastive method and extremal perturbation never undo it. They get a model of their own (`explained.py`).
- a function that is called with keywords while excitation backprop's rules are in place fails (`positional`).
- `resize_mode="nearest"` fails (`stretch`).
- what is not in single precision fails in RISE, in extremal perturbation and in smoothing (`Explained.single`).
- RISE seeds the generators of all devices and puts back only the CPU's (`perturbation.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cfi_torchray.library import common, guided_backprop


class Probe(common.Probe):
    """TorchRay's probe, whose tensor nothing after it can overwrite.

    A rectifier in place behind the layer (as in torchvision's VGG), or a sum in place, otherwise makes the layer's
    tensor its own output: the values, the gradient, and every map of both are those of another layer. Where nothing
    before it takes gradients, torch notices and fails.
    """

    def __init__(self, module: Any, target: str = "input") -> None:
        super().__init__(module, target)
        if target == "input":
            self._copy = module.register_forward_pre_hook(lambda module, args: _copies(args))
        else:
            self._copy = module.register_forward_hook(lambda module, args, output: _copies(output))

    def remove(self) -> None:
        """Removes the probe."""
        super().remove()
        self._copy.remove()


def _copies(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return tuple(map(_copies, value)) if type(value) is tuple else value


class GuidedReLU(guided_backprop.GuidedBackpropReLU):
    """TorchRay's rule lets the gradient pass where the input is exactly 0 (a black background, say)."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        """The gradient where it and the input are positive (Springenberg et al. 2014, figure 1)."""
        (value,) = ctx.saved_tensors
        return torch.where(value > 0, grad_output.clamp(min=0), 0.0)


def contrastive_reward(activation: Tensor, target: int, variant: str) -> Tensor:
    """The score of the target less the largest other score of the same mask (Fong et al. 2019).

    TorchRay subtracts the largest score of every mask from that of every other where there are several, and takes -100
    for the least score there is.
    """
    others = activation.clone()
    others[:, target] = -torch.inf
    reward = activation[:, target] - others.max(dim=1)[0]
    if variant == "dual":
        preserved, deleted = reward.chunk(2)
        return preserved - deleted
    return -reward if variant == "delete" else reward


def mask_generator(original: type) -> type:
    """TorchRay's generator of masks, none of which is smaller than the image, as some are and fail.

    Its area is left as it is: measured with a margin of `sigma` pixels on every side, which is cut off afterwards.
    The margin is where the mask is kept at first, when all of it is equal; without it, that is the image's border.
    """

    class MaskGenerator(original):
        def __init__(self, shape: Any, step: int, sigma: float, **options: Any) -> None:
            self.shape_out: list[int]
            super().__init__(shape, step, sigma, **options)
            if any(out - round(self.margin) < side for out, side in zip(self.shape_out, shape, strict=True)):
                super().__init__([side + step for side in shape], step, sigma, **options)
            self.shape = shape

    return MaskGenerator


def positional(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of excitation backprop, which takes positions only, as the function that it stands for is called."""
    names = _PARAMETERS.get(getattr(original, "__name__", ""), ())

    def called(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            return function(*args)
        rest = dict(kwargs)
        values = list(args)
        for name, default in names[len(args) :]:
            values.append(rest.pop(name, default))
        if rest or inspect.Parameter.empty in values:
            raise TypeError(f"{original.__name__}() cannot be called with {', '.join(kwargs)}")
        return function(*values)

    return called


_EMPTY = inspect.Parameter.empty
_CONV = (
    *(("input", _EMPTY), ("weight", _EMPTY), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1)),
    ("groups", 1),
)
_POOL = (
    *(("input", _EMPTY), ("kernel_size", _EMPTY), ("stride", None), ("padding", 0), ("ceil_mode", False)),
    ("count_include_pad", True),
)
_ADAPTIVE = (("input", _EMPTY), ("output_size", _EMPTY))
_PARAMETERS: dict[str, tuple[tuple[str, Any], ...]] = {
    "linear": (("input", _EMPTY), ("weight", _EMPTY), ("bias", None)),
    "batch_norm": tuple(
        (name, parameter.default) for name, parameter in inspect.signature(F.batch_norm).parameters.items()
    ),
    **{f"conv{n}d": _CONV for n in (1, 2, 3)},
    "avg_pool1d": _POOL,
    **{f"avg_pool{n}d": (*_POOL, ("divisor_override", None)) for n in (2, 3)},
    **{f"adaptive_avg_pool{n}d": _ADAPTIVE for n in (1, 2, 3)},
}


def stretch(reference: Tensor, saliency: Tensor, mode: str) -> Tensor:
    """`torchray.attribution.common.resize_saliency`, which fails where a mode takes no `align_corners`."""
    if mode in ("bilinear", "bicubic"):
        resized: Tensor = common.resize_saliency(reference, saliency, True, mode=mode)
        return resized
    return F.interpolate(saliency, reference.shape[2:], mode=mode)
