"""Modules that hold some of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cfi_torch.derivation import derive, view
from cfi_torch.function import TorchFunction


def bind(model: nn.Module, held: Sequence[Any]) -> nn.Module:
    """The same module (parameters, submodules, buffers and hooks are shared), with the held values behind its inputs.

    A tensor of one row is repeated for as many samples as the first input has. A scripted module has no classes to
    derive from: there it is a function that calls it.
    """
    if isinstance(model, torch.jit.ScriptModule | TorchFunction):
        return TorchFunction(lambda *inputs: model(*inputs, *_repeat(held, inputs)))
    kind: Any = type(model)

    def forward(self: nn.Module, *inputs: Any) -> Any:
        return kind.forward(self, *inputs, *_repeat(held, inputs))

    return view(model, derive(kind, forward, f"with {len(held)} held"))


def _repeat(held: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    samples = len(inputs[0])
    return [
        value.repeat_interleave(samples, 0) if isinstance(value, Tensor) and value.shape[:1] == (1,) else value
        for value in held
    ]
