"""Follows the calls of a model's layers, and may replace what they give."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from cfi_core.framework import LayerCalls


class LayerWatch(LayerCalls):
    """Calls a function on the tensor that each layer gives; every hook is taken away on leaving."""

    def __init__(
        self,
        model: nn.Module,
        names: Collection[str] | None,
        function: Callable[[str, torch.Tensor], torch.Tensor | None],
    ) -> None:
        """Takes names of modules (None: each module by its first name), of which TorchScript shows nothing."""
        modules = model.named_modules(remove_duplicate=names is None)
        self._modules = {name: module for name, module in modules if name and (names is None or name in names)}
        super().__init__(torch.Tensor, {name: type(one).__name__ for name, one in self._modules.items()}, function)
        self._handles: list[Any] = []

    def __enter__(self) -> Any:
        for name, module in self._modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                # Registered last, so it sees what the user's own hooks have made of the output.
                hook = module.register_forward_hook(lambda _module, _inputs, output, name=name: self.see(name, output))
                self._handles.append(hook)
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()
