"""Random numbers of a run from generators of its own, where libraries draw from torch's global ones.

The global ones belong to the user's other threads, too. The numbers are those that users get who seed them.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction, signature
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cfi_torchgraph.nodes import tensors

_TAKE_GENERATOR = frozenset(
    {
        *(torch.normal, torch.randperm, torch.bernoulli, torch.multinomial, torch.rand, torch.randn, torch.randint),
        *(torch.rand_like, torch.randn_like),
        # A linear module and the batches of a DataLoader, such as captum's Lime trains with, draw by these.
        *(torch.Tensor.random_, torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_),
        *(init for init in vars(nn.init).values() if isfunction(init) and "generator" in signature(init).parameters),
    }
)


class OwnGenerators(TorchFunctionMode):
    """Hands torch's functions a generator for the device that they draw on; a mode is its thread's alone.

    Args:
        seed: Of all of them.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _TAKE_GENERATOR and kwargs.get("generator") is None:
            like = next(tensors((args, kwargs)), None)
            device = torch.device(kwargs.get("device") or "cpu") if like is None else like.device
            kwargs = {**kwargs, "generator": self._generator(device)}
        return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]
