"""Random numbers of a run from a generator of its own: Zennit's SmoothGrad draws from torch's global one."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWING = (torch.randn_like, torch.rand_like, torch.randn, torch.rand, torch.normal, torch.randint, torch.randperm)


class OwnGenerator(TorchFunctionMode):
    """Hands torch's functions a generator; a mode is its thread's alone.

    The numbers are those that users get who seed the global generator. The model runs outside, drawing as it does.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING and kwargs.get("generator") is None:
            like = next((value for value in args if isinstance(value, torch.Tensor)), None)
            device = torch.device(kwargs.get("device") or "cpu") if like is None else like.device
            if device not in self._generators:
                self._generators[device] = torch.Generator(device).manual_seed(self._seed)
            kwargs = {**kwargs, "generator": self._generators[device]}
        return func(*args, **kwargs)
