"""The operators of torch that are written as ONNX, by their names in `torch.ops.aten`, and the one at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cfi_translate.grammar import Operators
from cfi_translate.translators import TORCH_EXPORT


@dataclass(frozen=True)
class TorchOp:
    """An operator of a captured graph.

    Attributes:
        name: Its schema's, such as `aten::add.Tensor`, for messages.
        path: The dotted path of the module that it came from; empty if it is in none.
        result: What torch.export has for what it gives: one tensor without data, or several.
    """

    name: str
    path: str = ""
    result: Any = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes of its only result: integers, or symbols that follow the number of samples."""
        return tuple(self.result.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the elements of its only result."""
        return self.result.dtype


def describe(op: TorchOp) -> str:
    """How messages name an operator."""
    return f"{op.name} of {op.path!r}" if op.path else op.name


operator = Operators(TORCH_EXPORT, describe)
"""Names are those of `torch.ops.aten`, with their overload unless it is the default one: `conv2d`, `add.Tensor`.

Operands are all arguments of the schema, in its order, with the defaults filled in: values of the ONNX graph, constants
(tensors), numbers. Where an operator has no function, torch's own rule for it is followed (`capture.take_apart`).
"""
