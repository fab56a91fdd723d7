"""What is explained: the model, followed by the choice of one value for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.contract import Target
from cfi_torchgraph.nodes import is_real, walk
from cfi_torchgraph.scores import choose, one_per_sample, select

_BENDING = ("Relu", "Threshold", "Clamp", "LeakyRelu", "Elu", "Gelu", "Silu", "Hardtanh", "Maximum", "Minimum")
"""How autograd's nodes of rectifiers, and of their like, begin."""


class Explained(nn.Module):
    """A model with one value for each sample.

    Its input is the one that is differentiated; where there are several, one tensor that holds them all in a row.

    Attributes:
        model: The model.
        target: What is explained; None: the output as it is.
        inputs: All inputs of the model.
    """

    def __init__(self, model: nn.Module, target: Target | None, inputs: Sequence[Any]) -> None:
        super().__init__()
        self.model, self.target = model, target
        self.inputs = tuple(inputs)
        self.places = [place for place, value in enumerate(inputs) if is_real(value)]

    def pack(self, values: Sequence[Tensor]) -> Tensor:
        """One tensor of what is differentiated."""
        if len(self.places) == 1:
            return values[0]
        return torch.cat([value.reshape(len(value), -1) for value in values], 1)

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """The tensors in it."""
        if len(self.places) == 1:
            return [packed]
        shapes = [self.inputs[place].shape[1:] for place in self.places]
        parts = packed.split([shape.numel() for shape in shapes], 1)
        return [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]

    def forward(self, packed: Tensor | None = None) -> Tensor:
        """The values, shape (samples,), or the whole output where there is no target."""
        inputs = list(self.inputs)
        if packed is not None:
            for place, value in zip(self.places, self.unpack(packed), strict=True):
                inputs[place] = value.clone()  # the model may change its inputs in place
        output = self.model(*inputs)
        return output if self.target is None else pick(self.target, output, len(self.inputs[0]))


def pick(target: Target, output: Any, samples: int) -> Tensor:
    """What is explained of each sample, shape (samples,).

    Raises:
        TargetError: The output has no such part, or the function gives something else.
    """
    output = choose(output, target.output)
    if target.function is not None:
        return one_per_sample(target.function(output), samples)
    return select(output, target) if target.index else one_per_sample(output, samples, "Without a target, the model")


def rectifies(model: nn.Module, target: Target, inputs: Sequence[Any]) -> bool:
    """Whether a target function bends what it is given, such as by a relu: no rule attaches there."""
    with torch.no_grad():
        output = model(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))
    output = choose(output, target.output)
    if target.function is None or not isinstance(output, Tensor):
        return False
    value = target.function(output.detach().requires_grad_())
    node = value.grad_fn if isinstance(value, Tensor) else None
    return node is not None and any(one.name().startswith(_BENDING) for one in walk([node]))


class Column(nn.Module):
    """What is explained as a column, which Zennit's occlusion wants."""

    def __init__(self, explained: nn.Module) -> None:
        super().__init__()
        self.explained = explained

    def forward(self, values: Tensor) -> Tensor:
        """The values, shape (samples, 1)."""
        column: Tensor = self.explained(values)[:, None]
        return column


Start = Callable[[Tensor], Tensor]
"""Makes of what is explained the relevance that the way back starts with."""


def ones(values: Tensor) -> Tensor:
    """One for each sample: a gradient."""
    return torch.ones_like(values)


def as_it_is(values: Tensor) -> Tensor:
    """What is explained itself: relevance (Bach et al. 2015, equation 2)."""
    return values.detach()
