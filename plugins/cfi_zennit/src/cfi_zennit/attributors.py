"""Zennit's attributors, and two of their kin: gradients at layers, and occlusion as its paper has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from zennit.attribution import Gradient, Occlusion

from cfi_core.errors import LayerError


class AtLayers(Gradient):
    """The (modified) gradient at the outputs of layers, each called once."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], composite: Any, attr_output: Any) -> None:
        super().__init__(model=model, composite=composite, attr_output=attr_output)
        self.layers = tuple(layers)

    def forward(self, input: Tensor | None, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Any]:
        """Output of the model, and a tuple of gradients."""
        found: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise LayerError(f"The layer gives a {type(output).__name__}, not one tensor. Choose another layer.")
            found[module] = output if output.requires_grad else output.detach().requires_grad_()
            return found[module].clone()  # the next module may change it in place

        with ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_hook(keep).remove)
            output = self.model(input if input is None else input.requires_grad_())
        if absent := [layer for layer in self.layers if layer not in found]:
            raise LayerError(f"The model does not call the layer ({type(absent[0]).__name__}) in this forward pass.")
        at = tuple(found[layer] for layer in self.layers)
        return output, torch.autograd.grad((output,), at, (attr_output_fn(output),))


class ScoreDrop(Occlusion):
    """How far the score falls where a window is covered, averaged over the windows that cover an element.

    Zennit's own keeps what is inside the window and covers the rest, gives the sum of the scores, and lets the last
    windows of an axis go on at its beginning.
    """

    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Output of the model, and the values."""
        window, stride = self._resolve_window_stride(input)
        with torch.no_grad():
            before = self.model(input)
            total, times = torch.zeros_like(input), torch.zeros_like(input)
            for offset in product(*map(offsets, input.shape, window, stride)):
                mask = torch.zeros_like(input, dtype=torch.bool)
                mask[tuple(slice(start, start + size) for start, size in zip(offset, window, strict=True))] = True
                drop = before - self.model(self.occlusion_fn(input, mask))
                total += mask * drop.reshape(-1, *[1] * (input.dim() - 1))
                times += mask
        return before, total / times.clamp(min=1)


def offsets(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin: every stride, the last one at the end of the axis."""
    last = max(size - window, 0)
    return sorted({*range(0, last, stride), last})
