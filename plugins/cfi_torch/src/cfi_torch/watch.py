"""Follows the calls of a model's layers, and may replace what they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cfi_core.framework import flatten, map_structure


class LayerWatch:
    """Notes the calls and outputs of layers; every hook is taken away on leaving."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.calls: Counter[str] = Counter()
        self.outputs: dict[str, Any] = {}
        self._model, self._names = model, names
        self._handles: list[Any] = []

    def __enter__(self) -> Any:
        modules = dict(self._model.named_modules(remove_duplicate=False))
        for name in self._names:
            # Registered last, so it sees what the user's own hooks have made of the output.
            self._handles.append(
                modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: self.see(name, output))
            )
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def see(self, name: str, output: Any) -> Any:
        """Called after each call of a layer; what it returns, if anything, goes on instead."""
        self.calls[name] += 1
        self.outputs[name] = output


class TensorWatch(LayerWatch):
    """Calls a function on the tensor that each layer gives; what it returns, if anything, goes on instead."""

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str] | None,
        function: Callable[[str, torch.Tensor], torch.Tensor | None],
    ) -> None:
        modules = [name for name, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)]
        super().__init__(model, [name for name in modules if name and (names is None or name in names)])
        self._function = function

    def see(self, name: str, output: Any) -> Any:
        """Passes on what holds one tensor."""
        self.calls[name] += 1
        leaves = flatten(output)
        if len(leaves) != 1 or not isinstance(leaves[0], torch.Tensor):
            return None
        result = self._function(name, leaves[0])
        return None if result is None else map_structure(lambda _: result, output)
